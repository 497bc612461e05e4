"""Files of torch.save from strangers: nothing is executed, and what is small on disk stays small."""

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from impasto.torch_files import LARGEST, read_torch_file


class OurError(ValueError):
    pass


def refuse(path: Path) -> None:
    message = (
        "expected a whole file of plain values and tensors, got a damaged one, another kind, or one that could run "
        f"code: {str(path)!r} was not used; look elsewhere"
    )
    with pytest.raises(OurError, match=f"^{re.escape(message)}$"):
        read_torch_file(path, error=OurError, advice="look elsewhere")


@pytest.mark.parametrize("is_zip", [True, False])
def test_plain_values_and_tensors_come_back(tmp_path: Path, *, is_zip: bool) -> None:
    torch.save(
        {"a": torch.arange(3), "b": [1, "x", None, (2.5, True)]}, tmp_path / "a", _use_new_zipfile_serialization=is_zip
    )
    content: Any = read_torch_file(tmp_path / "a", error=OurError, advice="")
    assert torch.equal(content["a"], torch.arange(3))
    assert content["b"] == [1, "x", None, (2.5, True)]


@pytest.mark.parametrize("content", [b"", b"a letter", b"PK\3\4", bytes(range(256))])
def test_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    refuse(tmp_path / "a")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("is_zip", [True, False])
def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_zip: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Trap()}, "a", _use_new_zipfile_serialization=is_zip)
    refuse(Path("a"))
    assert os.listdir() == ["a"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3).to_sparse(),
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.zeros(3, dtype=torch.complex64),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 1, 0, torch.qint8),
    ],
    ids=["sparse", "without values", "complex", "quantized"],
)
def test_tensors_that_no_network_of_ours_has(tmp_path: Path, make: Any) -> None:
    torch.save({"a": [make()]}, tmp_path / "a")
    refuse(tmp_path / "a")


def test_lists_that_hold_each_other(tmp_path: Path) -> None:
    """Written out they would be a billion words."""
    inside = ["ha"]
    many: list[Any] = inside
    for _ in range(15):
        many = [many] * 4
    torch.save({"a": many}, tmp_path / "a")
    assert (tmp_path / "a").stat().st_size < 5000
    refuse(tmp_path / "a")


def test_lists_too_deep_to_be_written_out(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(30):
        deep = [deep]
    torch.save(deep, tmp_path / "a")
    refuse(tmp_path / "a")


def repack(path: Path, *, compression: int) -> None:
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, content in parts.items():
            new.writestr(name, content)


def test_packed_parts(tmp_path: Path) -> None:
    """100 MB of zeros are 100 KB then."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a")
    repack(tmp_path / "a", compression=zipfile.ZIP_STORED)
    read_torch_file(tmp_path / "a", error=OurError, advice="")
    repack(tmp_path / "a", compression=zipfile.ZIP_DEFLATED)
    refuse(tmp_path / "a")


def test_parts_that_share_bytes(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a", "a") as archive:
        archive.filelist += [part for part in archive.infolist() if part.file_size == 4000] * 3
        archive.writestr("more", b"")
    refuse(tmp_path / "a")


def test_a_file_larger_than_any_of_ours(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a")
    with (tmp_path / "a").open("rb+") as file:
        file.truncate(LARGEST + 1)  # a hole, which takes no room
    refuse(tmp_path / "a")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "a", error=OurError, advice="")
