"""Every program in scripts/ answers bad input with one line and exit status 2."""

import importlib
import resource
from pathlib import Path

import pytest

NO_WEIGHTS = ["--weights", "nowhere.pth", "--photos", "nowhere"]

CASES = [
    ("benchmark", ["photos", "--folder", "nowhere"], "expected a folder of images, found none at 'nowhere'"),
    ("compare_loss_networks", ["mosaic", *NO_WEIGHTS], "expected the weights of a loss network at 'nowhere.pth'"),
    ("compress_loss_network", NO_WEIGHTS, "expected the weights of a loss network at 'nowhere.pth'"),
    ("measure_widths", NO_WEIGHTS, "expected the weights of a loss network at 'nowhere.pth'"),
    ("measure_flicker", ["mosiac"], "did you mean 'mosaic'?"),
    ("ship_styles", ["nowhere"], "found nothing at 'nowhere'"),
    ("train_base", ["budget.stepps=3"], "did you mean 'budget.steps'?"),
    ("make_figures", ["--to", "/dev/null/docs"], "Not a directory: '/dev/null/docs'"),
    ("benchmark", ["photos", "--folder", "~nobody-of-this-name/a"], "found none at '~nobody-of-this-name/a'"),
]


@pytest.mark.parametrize(("name", "words", "message"), CASES, ids=[f"{name} {words[-1]}" for name, words, _ in CASES])
def test_bad_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    name: str,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    work = ["--work", "work"] if name in {"compress_loss_network", "train_base"} else []
    monkeypatch.setattr("sys.argv", [name, *words, *work])
    assert importlib.import_module(f"scripts.{name}").main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_the_home_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, words in {"ship_styles": ["~/nowhere"], "make_figures": ["--to=~/a.txt/docs"]}.items():
        (tmp_path / "a.txt").touch()
        monkeypatch.setattr("sys.argv", [name, *words])
        assert importlib.import_module(f"scripts.{name}").main() == 2
        assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["train", "--batch", "0"], ["stylize", "--pictures", "-1"], ["photos", "--size", "x"]]
)
def test_a_number_that_is_none_is_refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *words])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module("scripts.benchmark").main()
    assert stop.value.code == 2
    assert "expected a whole number of 1 or more" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_to_its_end_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_styles = importlib.import_module("scripts.draw_styles")
    monkeypatch.setattr(draw_styles, "draw", lambda _: bytes(10_000))
    monkeypatch.setattr("sys.argv", ["draw_styles", "mosaic", "--output", str(tmp_path)])
    (tmp_path / "mosaic.jpg").write_bytes(b"an earlier one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert draw_styles.main() == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().err.endswith("free some and run again; no half-written file is left\n")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an earlier one"]


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(path: Path) -> Path:
        raise KeyboardInterrupt

    ship_styles = importlib.import_module("scripts.ship_styles")
    monkeypatch.setattr(ship_styles, "ship", stop)
    monkeypatch.setattr("sys.argv", ["ship_styles", "mosaic"])
    assert ship_styles.main() == 130
    assert capsys.readouterr().err == "interrupted; files already written are whole\n"
