"""The stylizer paints any size, and plans where results go."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from impasto.painting.outputs import Job, plan_jobs
from impasto.painting.stylizer import Stylizer
from impasto.style_file import load_style
from impasto.transformer import find_device


@pytest.fixture
def stylizer(style_path: Path) -> Stylizer:
    return Stylizer(load_style(style_path), device="cpu")


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (41, 50)])
def test_same_size_out_within_range(stylizer: Stylizer, size: tuple[int, int]) -> None:
    painted = stylizer(torch.rand(1, 3, *size))
    assert painted.shape == (1, 3, *size)
    assert painted.dtype == torch.float32
    assert painted.min() >= 0
    assert painted.max() <= 1


def test_it_is_the_network_of_the_style_clamped(stylizer: Stylizer) -> None:
    image = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        expected = stylizer.style.network(image).clamp(0, 1)
    torch.testing.assert_close(stylizer(image), expected)


def test_no_gradient_is_recorded(stylizer: Stylizer) -> None:
    assert not stylizer(torch.rand(1, 3, 8, 8, requires_grad=True)).requires_grad


def test_an_image_under_eight_pixels_is_an_error(stylizer: Stylizer) -> None:
    message = "expected images of at least 8 x 8 px, got 9 x 7 px: enlarge the image first"
    with pytest.raises(ValueError, match=f"^{message}$"):
        stylizer(torch.rand(1, 3, 7, 9))


def test_an_image_beyond_the_memory_is_a_clear_error(stylizer: Stylizer) -> None:
    image = torch.zeros(1).expand(1, 3, 2**23, 2**23)  # one value in memory, 845 TB when computed with
    message = "expected an image that fits the memory of cpu, got 8388608 x 8388608 px: make it smaller first"
    with pytest.raises(ValueError, match=f"^{message}$"):
        stylizer(image)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_image_beyond_the_graphics_memory_is_a_clear_error(style_path: Path) -> None:
    image = torch.zeros(1).expand(1, 3, 2**10, 2**10)
    stylizer = Stylizer(load_style(style_path), device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    message = (
        "expected an image that fits the memory of cuda, got 1024 x 1024 px: make it smaller first, or try --device cpu"
    )
    try:
        with pytest.raises(ValueError, match=f"^{message}$"):
            stylizer(image)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_graphics_card_paints_what_the_cpu_paints(style_path: Path) -> None:
    style, image = load_style(style_path), torch.rand(1, 3, 33, 47)
    painted = Stylizer(style, device="cuda")(image)
    assert painted.device.type == "cpu"
    torch.testing.assert_close(painted, Stylizer(style, device="cpu")(image), atol=0.02, rtol=0)


def test_auto_is_the_best_device_there_is() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert find_device("auto") == torch.device(best)
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="needs a machine without")
@pytest.mark.parametrize("name", ["cuda", "mps", "gpu", ""])
def test_a_device_that_is_not_there_is_an_error(name: str) -> None:
    message = f"expected auto or a device of this machine (cpu), got {name!r}: choose again"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find_device(name)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with photos a.jpg, b.PNG, c.gif and trip/a.jpg, and notes.txt."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    for name in ("a.jpg", "b.PNG", "c.gif", "trip/a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return Path("photos")


def targets(jobs: list[Job]) -> list[str]:
    return [job.target.as_posix() for job in jobs]


def plan(*inputs: str, output: str | None = None) -> list[Job]:
    return plan_jobs(inputs, output=output, style_name="zigzag")


@pytest.mark.usefixtures("photos")
class TestPlan:
    def test_one_photo_goes_to_the_folder_painted_under_both_names(self) -> None:
        assert plan("photos/a.jpg") == [Job(Path("photos/a.jpg"), Path("painted/a_zigzag.jpg"))]

    def test_a_folder_gives_all_its_pictures_with_distinct_targets(self) -> None:
        expected = ["a_zigzag.jpg", "b_zigzag.PNG", "c_zigzag.png", "a_zigzag-2.jpg"]
        assert targets(plan("photos")) == [f"painted/{name}" for name in expected]

    def test_targets_are_distinct_where_case_does_not_count(self) -> None:
        Image.new("RGB", (8, 8)).save("photos/A.jpg")
        assert targets(plan("photos/a.jpg", "photos/A.jpg")) == ["painted/a_zigzag.jpg", "painted/A_zigzag-2.jpg"]

    def test_a_pattern_gives_the_pictures_that_fit(self) -> None:
        assert targets(plan("photos/*")) == ["painted/a_zigzag.jpg", "painted/b_zigzag.PNG", "painted/c_zigzag.png"]
        assert len(plan("photos/**/*.jpg")) == 2

    def test_a_picture_named_twice_is_painted_once(self) -> None:
        assert targets(plan("photos/a.jpg", "photos", "./photos/a.jpg"))[0] == "painted/a_zigzag.jpg"
        assert len(plan("photos/a.jpg", "photos", "./photos/a.jpg")) == 4

    def test_a_name_with_brackets_is_a_name(self) -> None:
        Image.new("RGB", (8, 8)).save("photos/[x].png")
        assert targets(plan("photos/[x].png")) == ["painted/[x]_zigzag.png"]

    def test_pictures_painted_before_are_not_painted_again(self) -> None:
        Path("painted").mkdir()
        Image.new("RGB", (8, 8)).save("painted/a_zigzag.jpg")
        assert len(plan(".")) == 4
        assert targets(plan("painted")) == ["painted/a_zigzag_zigzag.jpg"]

    def test_output_is_a_file_for_one_picture(self) -> None:
        assert targets(plan("photos/a.jpg", output="out/x.png")) == ["out/x.png"]

    @pytest.mark.parametrize("output", ["new", "v1.2/", "photos"])
    def test_output_is_a_folder_where_it_is_one_or_looks_like_one(self, output: str) -> None:
        folder = output.rstrip("/")
        assert targets(plan("photos/a.jpg", output=output)) == [f"{folder}/a_zigzag.jpg"]

    def test_a_target_that_is_a_source_gets_another_name(self) -> None:
        Image.new("RGB", (8, 8)).save("photos/a_zigzag.jpg")
        jobs = plan("photos/a.jpg", "photos/a_zigzag.jpg", output="photos")
        assert targets(jobs) == ["photos/a_zigzag-2.jpg", "photos/a_zigzag_zigzag.jpg"]

    def test_a_file_for_several_pictures_is_an_error(self) -> None:
        message = (
            "expected a folder as output of 4 pictures, got the file 'x.png': "
            "name a folder, with a slash at the end if it has a dot in its name"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            plan("photos", output="x.png")

    def test_the_source_as_output_is_an_error(self) -> None:
        message = "expected an output other than the picture itself, got 'photos/../photos/a.jpg': choose another name"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            plan("photos/a.jpg", output="photos/../photos/a.jpg")

    def test_an_unknown_format_is_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"^expected a picture file ending in one of .*, got 'x\.xyz': choose"):
            plan("photos/a.jpg", output="x.xyz")

    def test_a_pattern_that_fits_nothing_is_an_error(self) -> None:
        message = "expected a pattern that fits images, found none for 'photos/*.txt': check the path"
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
            plan("photos/*.txt")

    def test_an_empty_folder_is_an_error(self) -> None:
        Path("empty").mkdir()
        message = "expected images in the folder 'empty', found none: check the path"
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
            plan("empty")
