"""A file is written whole or not at all."""

import os
import re
from pathlib import Path

import pytest

from impasto.files import remove_leftovers, written_whole


def test_the_file_appears_with_its_content_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "note.txt"
    with written_whole(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["note.txt"]


def test_the_temporary_file_is_a_hidden_neighbour_with_the_same_suffix(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    with written_whole(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert (temporary.parent, temporary.suffix, temporary.name[0]) == (tmp_path, ".txt", ".")


def write_half(path: Path) -> None:
    with written_whole(path) as temporary:
        temporary.write_text("ha")
        raise KeyboardInterrupt


def test_an_error_leaves_the_earlier_file_and_no_half_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_an_earlier_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("earlier")
    with written_whole(path) as temporary:
        temporary.write_text("later")
    assert path.read_text() == "later"


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("earlier")
    with pytest.raises(FileNotFoundError), written_whole(path):
        pass
    assert path.read_text() == "earlier"


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".txt")
    with written_whole(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_a_folder_or_device_is_never_replaced(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        message = f"expected a file to write, got the folder or device {str(path)!r}: choose another name"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"), written_whole(path):
            pass


def test_what_a_killed_program_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = ["mine.txt", ".mine", ".0123456789abcdef.d.txt", ".0123456789abcde.txt", "0123456789abcdef.txt"]
    for name in [*kept, ".0123456789abcdef.txt", ".0123456789abcdef"]:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    with pytest.raises(FileNotFoundError) as caught, written_whole(path):
        pass  # nothing is written
    assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as caught, written_whole(path):
        (tmp_path / "another").read_bytes()
    assert caught.value.filename == str(tmp_path / "another")
