"""The stylizer paints any size, and plans where results go."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import impasto
from impasto.painting.outputs import Job, plan_jobs
from impasto.painting.painter import add_grain
from impasto.painting.stylizer import Stylizer
from impasto.style_file import SHIPPED, load_style
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


def grainy(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.from_numpy(add_grain(one.permute(1, 2, 0).numpy())).permute(2, 0, 1) for one in images])


def test_it_is_the_network_of_the_style_clamped(stylizer: Stylizer) -> None:
    image = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        expected = stylizer.style.network(grainy(image)).clamp(0, 1)
    torch.testing.assert_close(stylizer(image), expected)


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 255), ("uint16", 65535), ("float32", 1)])
def test_grain_is_faint_within_the_range_and_the_same_in_parts(dtype: str, most: int) -> None:
    pixels: Any = np.linspace(0, most, 41 * 29 * 3).reshape(41, 29, 3).astype(dtype)
    added = add_grain(pixels)
    assert added.dtype == dtype
    assert 0 <= added.min() <= added.max() <= most
    levels = (added.astype(np.float64) - pixels) / most * 255
    assert np.abs(levels).max() < 3.01
    inside = levels[1:-1]
    assert np.abs(inside).max() < 2.01
    assert np.abs(inside - inside[..., :1]).max() < 0.01  # gray
    assert 0.9 < inside.std() < 1.3
    assert np.array_equal(np.concatenate([add_grain(pixels[:10]), add_grain(pixels[10:], 10)]), added)


@pytest.mark.parametrize("style", ["mosaic", "ink_hatching"])
def test_what_is_of_one_value_is_painted_with_strokes(style: str) -> None:
    """As the ground of a logo: it was a smooth patch."""
    logo = np.full((160, 160, 3), 255, np.uint8)
    logo[30:60, 30:60] = 200, 30, 30
    ground = Stylizer.load(SHIPPED / f"{style}.safetensors", device="cpu")(logo)[90:150, 90:150]
    assert ground.astype(np.float32).std(axis=(0, 1)).min() > 5


def test_no_gradient_is_recorded(stylizer: Stylizer) -> None:
    assert not stylizer(torch.rand(1, 3, 8, 8, requires_grad=True)).requires_grad


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 9), (2, 3), (3, 8)])
def test_what_is_smaller_than_the_network_sees_is_reflected_and_cut_back(
    stylizer: Stylizer, size: tuple[int, int]
) -> None:
    image = torch.rand(1, 3, *size)
    padded = np.pad(image[0].numpy(), [(0, 0), *((0, max(0, 8 - side)) for side in size)], mode="reflect")
    expected = stylizer(torch.from_numpy(padded)[None])[..., : size[0], : size[1]]
    torch.testing.assert_close(stylizer(image), expected)


def test_an_image_beyond_the_memory_is_a_clear_error(stylizer: Stylizer) -> None:
    image = np.broadcast_to(np.uint8(0), (8, 2**30, 3))  # one value in memory
    with pytest.raises(
        ValueError, match=r"^expected an image that fits the memory of cpu, got 1073741824 x 8 px: "
    ) as e:
        stylizer(image, stroke_scale=1)
    assert re.search(r": at least 3865\.5 GB more is needed, or a larger stroke scale$", str(e.value))


def test_the_memory_that_is_asked_for_is_enough(stylizer: Stylizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stylizer, "_free", lambda _, memory: memory - 345_678_901)  # what the process takes
    image = torch.zeros(3, 64, 2000)
    with pytest.raises(ValueError, match=r": at least a memory of [\d.]+ GB is needed, or a larger stroke scale$") as e:
        stylizer(image, memory=10**6)
    asked = re.search(r"memory of ([\d.]+) GB", str(e.value))
    assert asked is not None
    assert stylizer(image, memory=int(float(asked[1]) * 1e9)).shape == image.shape


class TestKinds:
    """A Pillow image, an array or a tensor: what goes in comes out."""

    def test_all_kinds_are_painted_alike(self, stylizer: Stylizer) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
        painted = stylizer(pixels)
        assert (painted.shape, painted.dtype.name) == ((11, 13, 3), "uint8")
        assert np.array_equal(np.asarray(stylizer(Image.fromarray(pixels))), painted)
        for dtype in (np.float64, np.float32):
            floats = stylizer((pixels / 255).astype(dtype))
            assert floats.dtype == dtype
            assert np.abs(floats * 255 - painted).max() < 0.51
        deep = stylizer(pixels.astype(np.uint16) * 257)
        assert deep.dtype == np.uint16
        assert np.abs(deep / 257 - painted).max() < 0.51

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("shape", [(3, 11, 13), (1, 3, 11, 13), (2, 3, 11, 13)])
    def test_tensors(self, stylizer: Stylizer, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        images = torch.rand(shape).to(dtype)
        painted = stylizer(images)
        assert (painted.shape, painted.dtype) == (images.shape, images.dtype)
        with torch.no_grad():
            expected = stylizer.style.network(grainy(images.float().reshape(-1, 3, 11, 13))).clamp(0, 1)
        torch.testing.assert_close(painted.float(), expected.reshape(shape), atol=0.01, rtol=0)

    def test_a_transparent_image_stays_transparent_and_a_gray_one_becomes_rgb(self, stylizer: Stylizer) -> None:
        clear = Image.new("RGBA", (13, 11), (200, 100, 0, 77))
        painted = stylizer(clear)
        assert (painted.mode, painted.size) == ("RGBA", (13, 11))
        assert painted.getchannel("A").getextrema() == (77, 77)
        assert stylizer(Image.new("L", (13, 11))).mode == "RGB"

    @pytest.mark.parametrize("mode", ["F", "I"])
    def test_32_bits_are_scaled_by_the_whole_picture(
        self, stylizer: Stylizer, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("impasto.painting.pictures._BAND_PIXELS", 8)
        values = np.full((9, 8), 50_000, np.int32)
        values[-1] = 100_000
        image = Image.fromarray(values).convert(mode)
        scaled = np.repeat(np.rint(values / 100_000 * 255).astype(np.uint8)[..., None], 3, axis=2)
        assert np.array_equal(np.asarray(stylizer(image, strength=0)), scaled)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((8, 8), np.uint8), "expected an array of shape (H, W, 3), got (8, 8)"),
            (np.zeros((0, 8, 3), np.uint8), "expected an array of shape (H, W, 3), got (0, 8, 3)"),
            (np.zeros((8, 8, 3), int), "expected values of uint8, uint16 or floats in [0, 1], got int64"),
            (np.full((8, 8, 3), 255.0), "expected values in [0, 1], got 255 to 255: divide them by their full scale"),
            (np.full((8, 8, 3), np.nan), "expected values in [0, 1], got nan to nan: divide them by their full scale"),
            (torch.zeros(8, 8), "expected a tensor of shape (3, H, W) or (N, 3, H, W), got (8, 8)"),
            (torch.zeros(0, 3, 8, 8), "expected a tensor of shape (3, H, W) or (N, 3, H, W), got (0, 3, 8, 8)"),
            ("a.png", "expected a Pillow image, array or tensor, got str: convert it first"),
        ],
    )
    def test_another_kind(self, stylizer: Stylizer, image: Any, message: str) -> None:
        with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
            stylizer(image)

    def test_it_is_loaded_from_the_package_which_is_light(self, style_path: Path) -> None:
        code = "import sys, impasto; print('torch' in sys.modules); impasto.Stylizer.load(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", code, str(style_path)], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"
        with pytest.raises(AttributeError, match=r"^module 'impasto' has no attribute 'Stylist'$"):
            _ = impasto.Stylist


class TestLook:
    @pytest.fixture
    def photo(self) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (41, 50, 3), np.uint8)

    def test_strength_goes_from_the_photo_through_the_painting_to_beyond(
        self, stylizer: Stylizer, photo: np.ndarray
    ) -> None:
        assert np.array_equal(stylizer(photo, strength=0), photo)
        painted, more = (stylizer(photo, strength=strength).astype(int) for strength in (1, 1.5))
        assert np.abs(more - (photo + 1.5 * (painted - photo)).clip(0, 255)).max() <= 1

    def test_strokes_keep_their_proportion_in_what_is_larger_than_full_hd(self, stylizer: Stylizer) -> None:
        photo = np.random.default_rng(0).integers(0, 256, (2160, 3840, 3), np.uint8)
        assert np.array_equal(stylizer(photo), stylizer(photo, stroke_scale=2))
        full_hd = photo[::2, ::2]
        assert np.array_equal(stylizer(full_hd), stylizer(full_hd, stroke_scale=1))

    def test_the_stroke_scale_is_the_scale_at_which_it_is_painted(self, stylizer: Stylizer, photo: np.ndarray) -> None:
        larger, smaller = (stylizer(photo, stroke_scale=scale) for scale in (2, 0.5))
        assert larger.shape == smaller.shape == photo.shape
        half = np.kron(np.random.default_rng(1).integers(0, 256, (20, 24, 3), np.uint8), np.ones((2, 2, 1), np.uint8))
        expected = cv2.resize(stylizer(half[::2, ::2]), (48, 40), interpolation=cv2.INTER_CUBIC)
        assert np.array_equal(stylizer(half, stroke_scale=2), expected)

    @pytest.mark.parametrize("scale", [0.1, 10])
    def test_a_small_picture_at_any_scale(self, stylizer: Stylizer, scale: float) -> None:
        assert stylizer(np.zeros((3, 5, 3), np.uint8), stroke_scale=scale).shape == (3, 5, 3)

    def test_a_scale_at_which_a_picture_does_not_fit_the_memory(self, stylizer: Stylizer, photo: np.ndarray) -> None:
        message = (
            "expected an image that fits the memory, got 500 x 410 px at a stroke scale of 0.1, which take 0.0 GB: "
            "raise the stroke scale, or give a smaller one"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            stylizer(photo, stroke_scale=0.1, memory=10**6)

    def test_colours_are_kept(self, stylizer: Stylizer, photo: np.ndarray) -> None:
        gray = np.repeat(photo[..., :1], 3, axis=2)
        kept = stylizer(gray, keep_colors=True).astype(int)
        assert np.ptp(kept, axis=2).max() <= 1

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"strength": 1.6}, "expected a strength of 0 to 1.5, got 1.6"),
            ({"strength": float("nan")}, "expected a strength of 0 to 1.5, got nan"),
            ({"stroke_scale": 0}, "expected a stroke scale of 0.1 to 10, got 0"),
            ({"memory": 0}, "expected a memory of 1 byte or more, got 0"),
        ],
    )
    def test_out_of_range(self, stylizer: Stylizer, options: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            stylizer(np.zeros((8, 8, 3), np.uint8), **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_image_beyond_the_graphics_memory_is_a_clear_error(style_path: Path) -> None:
    image = torch.zeros(1).expand(1, 3, 2**10, 2**10)
    stylizer = Stylizer(load_style(style_path), device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    message = "expected an image that fits the memory of cuda, got 1024 x 1024 px: set a smaller memory"
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_graphics_card_paints_pixels_of_every_type(style_path: Path, dtype: type) -> None:
    style, most = load_style(style_path), 1 if dtype is np.float32 else np.iinfo(dtype).max
    pixels: Any = (np.random.default_rng(0).random((33, 47, 3)) * most).astype(dtype)
    painted, expected = (Stylizer(style, device=device)(pixels) for device in ("cuda", "cpu"))
    assert painted.dtype == dtype
    np.testing.assert_allclose(painted / most, expected / most, atol=0.02)


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
        expected = ["a_zigzag.jpg", "b_zigzag.PNG", "c_zigzag.png", "trip/a_zigzag.jpg"]
        assert targets(plan("photos")) == [f"painted/{name}" for name in expected]

    def test_targets_are_distinct_where_case_does_not_count(self) -> None:
        Image.new("RGB", (8, 8)).save("photos/A.jpg")
        assert targets(plan("photos/a.jpg", "photos/A.jpg")) == ["painted/a_zigzag.jpg", "painted/A_zigzag-2.jpg"]

    @pytest.mark.parametrize("named", ["photos", "photos/**/*.jpg", "photos/*/**/*.jpg"])
    def test_what_is_added_does_not_take_the_names_of_others(self, named: str) -> None:
        Path("photos/a.jpg").rename("a.jpg")
        before = {job.source: job.target for job in plan(named)}
        for folder in ("photos", "photos/b", "photos/b/trip"):
            Path(folder).mkdir(exist_ok=True)
            shutil.copy("a.jpg", folder)
        after = {job.source: job.target for job in plan(named)}
        assert after.items() > before.items()
        assert len(set(after.values())) == len(after)

    def test_a_pattern_gives_the_pictures_that_fit(self) -> None:
        assert targets(plan("photos/*")) == ["painted/a_zigzag.jpg", "painted/b_zigzag.PNG", "painted/c_zigzag.png"]
        assert len(plan("photos/**/*.jpg")) == 2

    def test_a_pattern_that_leads_up_does_not_lead_out_of_the_output(self) -> None:
        assert targets(plan("photos/*/../../photos/a.jpg")) == ["painted/a_zigzag.jpg"]

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

    @pytest.mark.parametrize("pattern", ["**/*.jpg", "./**/*.jpg", "p*/**/*.jpg", "painted/../**/*.jpg"])
    def test_a_pattern_leaves_out_pictures_painted_before(self, pattern: str) -> None:
        Path("painted").mkdir()
        Image.new("RGB", (8, 8)).save("painted/a_zigzag.jpg")
        assert targets(plan(pattern)) == ["painted/photos/a_zigzag.jpg", "painted/photos/trip/a_zigzag.jpg"]
        assert targets(plan("painted/*")) == ["painted/a_zigzag_zigzag.jpg"]

    @pytest.mark.parametrize("named", ["photos", "photos/*"])
    def test_among_the_photos_pictures_painted_before_are_known_by_their_names(self, named: str) -> None:
        Path("photos/trip/a.jpg").unlink()
        before = targets(plan(named, output="photos"))
        for name in ("a_zigzag.jpg", "b_zigzag-2.PNG", "c_zigzag.partial.mp4", "d_zigzag-3.partial.gif"):
            Path("photos", name).touch()
        assert targets(plan(named, output="photos")) == before
        assert len(plan(named)) == 7

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

    def test_the_source_as_the_unfinished_part_is_an_error(self) -> None:
        message = "expected an output other than the picture itself, got 'photos/film.mp4': choose another name"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            plan("photos/film.partial.mp4", output="photos/film.mp4")

    def test_a_source_is_never_an_unfinished_part(self) -> None:
        for name in ("film.mp4", "film_zigzag.partial.mp4"):
            Path("photos", name).touch()
        named = ["photos/film.mp4", "photos/film_zigzag.partial.mp4"]
        expected = ["photos/film_zigzag-2.mp4", "photos/film_zigzag.partial_zigzag.mp4"]
        assert targets(plan(*named, output="photos")) == expected

    @pytest.mark.parametrize(("named", "output"), [("", None), ("photos/a.jpg", "")])
    def test_an_empty_word_is_an_error(self, named: str, output: str | None) -> None:
        message = "expected the name of a file or folder, got an empty word: a dot is the current folder"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            plan(named, output=output)

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
