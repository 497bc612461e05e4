"""Too little memory for a step, seen beforehand where that is certain."""

import psutil
import torch
from torch import Tensor

from impasto.learning.module import StyleModule
from impasto.memory import free_memory

_SIZES = (64, 128)
"""Sides in px of the photos on which memory is counted: the difference leaves out what does not grow, as weights."""

_CERTAIN = 0.9
"""Of what is counted: paddings weigh more in small photos than in large ones."""


def check_memory(module: StyleModule, *, photos: int, size: int, bf16: bool) -> None:
    """Raise MemoryError if a step on so many photos at a time cannot fit: Linux would kill the program without a word.

    It needs more than what it keeps for its backward, so that nothing is refused that would work.
    """
    small, large = (_kept_bytes(module, each, bf16=bf16) for each in _SIZES)
    per_pixel = (large - small) / (_SIZES[1] ** 2 - _SIZES[0] ** 2)
    needed = _CERTAIN * per_pixel * photos * size**2
    free = free_memory() + psutil.swap_memory().free
    if needed > free:
        raise MemoryError(f"a step takes more than {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")


def _kept_bytes(module: StyleModule, size: int, *, bf16: bool) -> int:
    """Return the bytes that a step on one photo keeps for its backward."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        terms = module.step_terms(torch.rand(1, 3, size, size))
    del terms  # until here it holds all of them, so that no two have one address
    return sum(kept.values())
