"""How much memory is left, of the machine and of the container that the program may run in."""

from pathlib import Path

import psutil

_CONTAINER = Path("/sys/fs/cgroup")  # of Linux, control groups of version 2


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
