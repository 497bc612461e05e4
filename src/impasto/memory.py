"""How much memory is left, of the machine and of the container the program may run in; and errors of too little."""

from pathlib import Path

import psutil

_CONTAINER = Path("/sys/fs/cgroup")  # of Linux, control groups of version 2
_WORDS = (
    "DefaultCPUAllocator",
    "MPS backend out of memory",
    "std::bad_alloc",
    "Insufficient memory",
    "Storage size calculation overflowed",
)
"""Of errors of torch and OpenCV that have no type of their own."""


def free_memory() -> int:
    """Return the bytes that may still be taken without swap; of groups within a container its limit alone is known."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((_CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        facts = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
        given_back = sum(int(facts[name]) for name in ("inactive_file", "active_file", "slab_reclaimable"))
        return min(free, max(0, limit - used + given_back))
    except (OSError, ValueError, KeyError):  # no container, or one without a limit: "max"
        return free


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory was asked for in vain, on whatever device."""
    # The second is torch's, which is not imported here.
    has_type = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    says_so = isinstance(error, RuntimeError) or type(error).__module__ == "cv2"
    return has_type or (says_so and any(words in str(error) for words in _WORDS))
