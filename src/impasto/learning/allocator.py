"""How the C library treats memory that is freed."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt, in malloc.h
_TWO_GIB = 2**31 - 1


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next to come, up to 2 GiB; other C libraries are left as they are.

    Every step takes and frees the same large tensors. By default glibc gives them back each time, and the system fills
    the pages that it hands out again with zeros: a tenth of a step, and more where tensors are larger.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, _TWO_GIB)
