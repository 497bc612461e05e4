"""Work for a GPU that is recorded once and then replayed.

A training step is a thousand small pieces of work. Launched one by one, a GPU waits for the next most of the time.

Source: CUDA graphs, https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from impasto.memory import is_out_of_memory

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Recording:
    """What is replayed: it reads ``inputs`` and writes ``outputs``, always the same memory."""

    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Tensor]
    outputs: Any


class Replays:
    """Calls functions of tensors on a GPU, from the third call on by a replay of what they did in the second.

    A function may do nothing but work for the GPU, the same for all inputs of one shape.
    """

    def __init__(self) -> None:
        self._recordings: dict[Any, _Recording | None] = {}
        self._can_record = True

    def __deepcopy__(self, memo: dict[int, Any]) -> "Replays":
        """Return one without recordings: they are of the original's memory."""
        del memo
        return Replays()

    def __call__(self, function: Callable[..., Any], *inputs: Tensor, uses: Sequence[Tensor]) -> Any:
        """Return what the function does for the inputs; what it returns is overwritten by the next call.

        ``uses`` are the other tensors that it reads or changes: where they are elsewhere, it is recorded anew.
        """
        if not self._can_record:
            return function(*inputs)
        key = function.__name__, *(each.shape for each in inputs), *(each.data_ptr() for each in uses)
        if key not in self._recordings:
            self._recordings[key] = None
            return function(*inputs)  # what is set up at a first use cannot be recorded
        if (recording := self._recordings[key]) is None:
            recording = self._recordings[key] = self._record(function, inputs)
            if recording is None:
                return function(*inputs)
        for ours, theirs in zip(recording.inputs, inputs, strict=True):
            ours.copy_(theirs)
        recording.graph.replay()
        return copy.copy(recording.outputs)

    def _record(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> _Recording | None:
        inputs = [each.clone() for each in inputs]
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # others may load photos meanwhile
                outputs = function(*inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            _log.warning("steps are slower: the GPU cannot replay them (%s)", str(error).partition("\n")[0])
            self._can_record = False
            return None
        return _Recording(graph, inputs, outputs)
