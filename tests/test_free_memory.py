"""What is free is the machine's, or the container's where that is less."""

from pathlib import Path

import psutil
import pytest

from impasto import memory


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    return tmp_path


def write(folder: Path, *, limit: str, used: int = 700) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\nslab_reclaimable 7\n")


def test_a_container_leaves_its_limit_less_what_is_used_but_for_files(container: Path) -> None:
    write(container, limit="1000")
    assert memory.free_memory() == 1000 - 700 + 150 + 50 + 7
    write(container, limit="100")
    assert memory.free_memory() == 0


@pytest.mark.parametrize("limit", ["max", str(2**60)])
def test_a_container_without_a_limit_that_matters(container: Path, limit: str) -> None:
    write(container, limit=limit)
    assert memory.free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_no_container(container: Path) -> None:
    assert memory.free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
