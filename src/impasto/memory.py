"""How much memory is left, of the machine and of the container that the program may run in."""

from pathlib import Path

import psutil

_CONTAINER = Path("/sys/fs/cgroup")  # of Linux, control groups of version 2


def free_memory() -> int:
    """Return the bytes that may still be taken without swap."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((_CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        facts = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
        return min(free, limit - used + int(facts["inactive_file"]))  # what files have left there is given back
    except (OSError, ValueError, KeyError):  # no container, or one without a limit: "max"
        return free
