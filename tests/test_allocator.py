"""Freed memory is kept for the next step."""

import platform

import pytest

from tests import processes

PROGRAM = """
import resource, sys, torch
from impasto.learning.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def step():
    return torch.ones(2**24).mul(2).add(1).sum()
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = processes.run("-c", PROGRAM, how)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_large_tensors_come_from_memory_that_is_there() -> None:
    assert faults("kept") < faults("as ever") / 10
