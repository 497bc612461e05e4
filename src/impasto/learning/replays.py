"""Work for a GPU that is recorded once and then replayed.

A training step is a thousand small pieces of work. Launched one by one, a GPU waits for the next most of the time.

Source: CUDA graphs, https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Recording:
    """What is replayed: it reads ``inputs`` and writes ``outputs``, always the same memory."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any


class Replays:
    """Calls functions of tensors on a GPU, from the third call on by a replay of what they did in the second.

    A function may do nothing but work for the GPU, the same for all inputs of one shape.
    """

    def __init__(self) -> None:
        self._recordings: dict[Any, _Recording | None] = {}
        self._pool: Any = None  # memory of all recordings: one is replayed at a time
        self._can_record = True

    def __deepcopy__(self, memo: dict[int, Any]) -> "Replays":
        """Return one without recordings: they are of the original's memory."""
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
        torch._foreach_copy_(recording.inputs, inputs)
        recording.graph.replay()
        return recording.outputs

    def _record(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> _Recording | None:
        inputs = [each.clone() for each in inputs]
        try:
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on, as one that loads photos.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = function(*inputs)
        except RuntimeError as error:
            _warn(str(error).partition("\n")[0])
            self._can_record = False
            return None
        self._pool = graph.pool()
        return _Recording(graph, inputs, outputs)


@functools.cache
def _warn(reason: str) -> None:
    """Say once why nothing is replayed."""
    _log.warning("steps are slower: the GPU cannot replay them (%s)", reason)
