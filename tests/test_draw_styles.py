import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image

from scripts.draw_styles import NAMES

ROOT = Path(__file__).resolve().parent.parent
PICTURES = sorted((ROOT / "src" / "impasto" / "assets" / "styles").glob("*.jpg"))


def shipped_configs() -> dict[str, Any]:
    """The style configs whose picture ships inside the package, by the name of their file."""
    loaded = {path.stem: OmegaConf.load(path) for path in sorted((ROOT / "configs" / "style").glob("*.yaml"))}
    return {name: config for name, config in loaded.items() if "builtin:" in str(OmegaConf.to_container(config))}


CONFIGS = shipped_configs()


def draw(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "draw_styles.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def luminance(path: Path, *, short_side: int) -> NDArray[np.floating[Any]]:
    with Image.open(path) as image:
        scale = short_side / min(image.size)
        small = image.convert("L").resize((round(image.width * scale), round(image.height * scale)))
    return np.asarray(small, np.float32) / 255


def test_every_name_has_a_picture_and_a_config_and_the_reverse() -> None:
    names = set(NAMES)
    assert len(names) == 10
    assert {path.stem for path in PICTURES} == names
    assert set(CONFIGS) == names


@pytest.mark.parametrize("name", CONFIGS)
def test_config_names_its_own_picture(name: str) -> None:
    config = CONFIGS[name]
    assert config["name"] == name
    assert config["image"] == f"builtin:{name}.jpg"
    assert 256 <= config["size"] <= 512
    assert config["licence"] == "MIT"


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_picture_is_rgb_large_enough_and_small_on_disk(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
        assert image.mode == "RGB"
        assert min(image.size) >= 768
    assert path.stat().st_size <= 400_000


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_picture_has_texture_everywhere(path: Path) -> None:
    grey = luminance(path, short_side=CONFIGS[path.stem]["size"])
    rows, columns = grey.shape[0] // 32, grey.shape[1] // 32
    blocks = grey[: rows * 32, : columns * 32].reshape(rows, 32, columns, 32)
    assert (blocks.std(axis=(1, 3)) > 0.03).mean() >= 0.9


def test_drawing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        finished = draw("watercolour", "--output", str(tmp_path / folder))
        assert finished.returncode == 0, finished.stderr
    first, second = ((tmp_path / folder / "watercolour.jpg").read_bytes() for folder in ("first", "second"))
    assert first == second


def test_misspelt_name_is_refused_with_the_closest_match(tmp_path: Path) -> None:
    finished = draw("weeping_women", "--output", str(tmp_path / "out"))
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr == (
        "error: expected the name of a style picture, got 'weeping_women'; did you mean 'weeping_woman'? "
        f"There are: {', '.join(NAMES)}\n"
    )
    assert not (tmp_path / "out").exists()
