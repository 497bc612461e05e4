"""Pictures keep their bits, their alpha and what the camera noted on the way through painting."""

import importlib.util
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from impasto.images import ImageFileError, find_images, read_image
from impasto.painting.pictures import Picture, read_picture, write_picture
from tests.test_images import LINEAR_RGB, UNREADABLE

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (9, 13, 4), np.uint16)


def deep_file(path: Path, pixels: np.ndarray) -> Path:
    order = {2: cv2.COLOR_GRAY2BGR, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    _, data = cv2.imencode(path.suffix, pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, order[pixels.shape[2]]))
    path.write_bytes(data.tobytes())
    return path


def write_gray_of_12_bits(path: Path, values: np.ndarray, *, orientation: int) -> None:
    """Write a TIFF of two values in three bytes, which no library here does."""
    height, width = values.shape
    first, second = values.astype(np.uint32).ravel().reshape(-1, 2).T
    packed = first << 12 | second
    data = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8).tobytes()
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 274: orientation, 277: 1, 278: height}
    tags[279] = len(data)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    )


class TestSixteenBits:
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
    @pytest.mark.parametrize("channels", [3, 4])
    def test_they_come_and_go(self, tmp_path: Path, suffix: str, channels: int) -> None:
        pixels = DEEP[..., :channels].copy()
        pixels[..., 3:] |= 1  # nothing is hidden
        alpha = pixels[..., 3] if channels == 4 else None
        write_picture(tmp_path / f"a{suffix}", Picture(pixels[..., :3], alpha))
        for path in (tmp_path / f"a{suffix}", deep_file(tmp_path / "b.png", pixels)):
            picture = read_picture(path)
            assert np.array_equal(picture.pixels, pixels[..., :3])
            if alpha is None or picture.alpha is None:
                assert picture.alpha is alpha
            else:
                assert np.array_equal(picture.alpha, alpha)

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_gray(self, tmp_path: Path, suffix: str) -> None:
        picture = read_picture(deep_file(tmp_path / f"a{suffix}", DEEP[..., 0].copy()))
        assert np.array_equal(picture.pixels, np.repeat(DEEP[..., :1], 3, axis=2))

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_gray_of_12_bits_is_as_bright_as_of_16(self, tmp_path: Path, orientation: int) -> None:
        values = DEEP[:8, :12, 0] >> 4
        path = tmp_path / "a.tif"
        write_gray_of_12_bits(path, values, orientation=orientation)
        expected = np.rot90(values << 4, 0 if orientation == 1 else 3)
        assert np.array_equal(read_picture(path).pixels, np.repeat(expected[..., None], 3, axis=2))
        assert np.abs(read_image(path)[0, 0].numpy() - expected / 65535).max() < 0.51 / 255

    @pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
    def test_a_format_of_8_bits_gets_8(self, tmp_path: Path, suffix: str) -> None:
        write_picture(tmp_path / f"a{suffix}", Picture(np.full((8, 8, 3), 100 * 257, np.uint16)))
        pixels = read_picture(tmp_path / f"a{suffix}").pixels
        assert pixels.dtype == np.uint8
        assert np.abs(pixels.astype(int) - 100).max() <= 1

    def test_they_are_turned_upright(self, tmp_path: Path) -> None:
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            plain = Image.fromarray((DEEP[..., :3] >> 8).astype(np.uint8))
            plain.save(tmp_path / "8.png", exif=exif)
            block = np.frombuffer(exif.tobytes().removeprefix(b"Exif\0\0"), np.uint8)
            bgr = cv2.cvtColor(DEEP[..., :3].copy(), cv2.COLOR_RGB2BGR)
            _, data = cv2.imencodeWithMetadata(".png", bgr, [cv2.IMAGE_METADATA_EXIF], [block])
            (tmp_path / "16.png").write_bytes(data.tobytes())
            deep = read_picture(tmp_path / "16.png").pixels
            assert deep.dtype == np.uint16
            assert np.array_equal(deep >> 8, read_picture(tmp_path / "8.png").pixels)

    def test_a_profile_is_applied(self, tmp_path: Path) -> None:
        block = np.frombuffer(LINEAR_RGB, np.uint8)
        pixels = np.full((8, 8, 3), 32768, np.uint16)
        _, data = cv2.imencodeWithMetadata(".png", pixels, [cv2.IMAGE_METADATA_ICCP], [block])
        (tmp_path / "a.png").write_bytes(data.tobytes())
        assert np.abs(read_picture(tmp_path / "a.png").pixels / 257 - 188).max() < 1.5

    def test_a_picture_too_wide_for_a_png_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(b"old")
        size = "1000001 x 1 px of 16 bits"
        message = f"expected an image that PNG can hold, got {size} for {str(path)!r}: write a .tif instead"
        with pytest.raises(ImageFileError, match=f"^{re.escape(message)}$"):
            write_picture(path, Picture(np.zeros((1, 1_000_001, 3), np.uint16)))
        assert path.read_bytes() == b"old"

    def test_a_picture_too_wide_for_opencv_is_read_with_8(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((1, 2**20 + 1), 100 * 257, np.uint16)).save(tmp_path / "a.tif")
        pixels = read_picture(tmp_path / "a.tif").pixels
        assert pixels.dtype == np.uint8
        assert (pixels == 100).all()


class TestAlpha:
    def test_hidden_colours_are_white_and_others_their_own(self, tmp_path: Path) -> None:
        pixels = np.zeros((4, 3, 4), np.uint8)
        pixels[:, :, 0] = 255  # red everywhere
        pixels[:, :, 3] = (0, 51, 255)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        picture = read_picture(tmp_path / "a.png")
        assert picture.pixels[0].tolist() == [[255, 255, 255], [255, 0, 0], [255, 0, 0]]
        assert picture.alpha is not None
        assert picture.alpha[0].tolist() == [0, 51, 255]

    @pytest.mark.parametrize(
        ("channels", "photometric"),
        [pytest.param(1, "minisblack", marks=UNREADABLE, id="gray"), pytest.param(3, "rgb", id="colours")],
    )
    def test_colours_that_are_multiplied_by_it(self, tmp_path: Path, channels: int, photometric: Any) -> None:
        pixels = np.full((9, 13, channels + 1), 50, np.uint8)
        pixels[..., -1] = 128
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, extrasamples=["assocalpha"])
        picture = read_picture(tmp_path / "a.tif")
        assert picture.alpha is not None
        assert (picture.alpha == 128).all()
        assert np.abs(picture.pixels.astype(int) - round(50 * 255 / 128)).max() <= 1

    @pytest.mark.parametrize(("kind", "key"), [(0, (300,)), (2, (300, 300, 300))], ids=["gray", "colours"])
    def test_a_colour_of_16_bits_that_is_transparent(self, tmp_path: Path, kind: int, key: tuple[int, ...]) -> None:
        values = np.array([[0, 300, 301], [65535, 9, 44]], np.uint16)
        rows = np.repeat(values[..., None], len(key), axis=2).astype(">u2")
        head = struct.pack(">IIBBBBB", 3, 2, 16, kind, 0, 0, 0)
        chunks = {b"IHDR": head, b"tRNS": struct.pack(f">{len(key)}H", *key)}
        chunks |= {b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)), b"IEND": b""}
        data = (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks.items()
        )
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(data))
        picture = read_picture(tmp_path / "a.png")
        assert picture.alpha is not None
        assert picture.alpha.tolist() == [[65535, 0, 65535], [65535, 65535, 65535]]
        assert picture.pixels[..., 1].tolist() == [[0, 65535, 301], [65535, 9, 44]]
        write_picture(tmp_path / "b.png", picture)
        again = read_picture(tmp_path / "b.png")
        assert again.alpha is not None
        assert np.array_equal(again.alpha, picture.alpha)

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif"])
    def test_it_is_attached(self, tmp_path: Path, suffix: str) -> None:
        alpha = np.full((16, 16), 150, np.uint8)
        write_picture(tmp_path / f"a{suffix}", Picture(np.full((16, 16, 3), 90, np.uint8), alpha), quality=100)
        written = read_picture(tmp_path / f"a{suffix}")
        assert written.alpha is not None
        assert np.abs(written.alpha.astype(int) - 150).max() <= 1
        assert np.abs(written.pixels.astype(int) - 90).max() <= 2

    @pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".ppm"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_without_alpha_in_the_format_the_picture_is_laid_on_white(
        self, tmp_path: Path, suffix: str, dtype: Any
    ) -> None:
        full = np.iinfo(dtype).max
        picture = Picture(np.zeros((8, 8, 3), dtype), np.full((8, 8), full // 5, dtype))
        write_picture(tmp_path / f"a{suffix}", picture)
        assert np.abs(read_picture(tmp_path / f"a{suffix}").pixels.astype(int) - 204).max() <= 1


class TestNotes:
    def noted(self) -> Image.Exif:
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x010F] = "a maker"
        exif[0x8769] = {0x9003: "2026:01:02 03:04:05", 0xA002: 13}
        exif[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0)}
        return exif

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_they_are_kept_without_orientation_and_size(self, tmp_path: Path, suffix: str, dtype: Any) -> None:
        Image.new("RGB", (13, 9)).save(tmp_path / "a.jpg", exif=self.noted())
        picture = read_picture(tmp_path / "a.jpg")
        picture.pixels = picture.pixels.astype(dtype)
        write_picture(tmp_path / f"b{suffix}", picture)
        with Image.open(tmp_path / f"b{suffix}") as written:
            exif = written.getexif()
            assert exif[0x010F] == "a maker"
            assert 0x0112 not in exif
            assert 0xA002 not in exif.get_ifd(0x8769)
            if suffix != ".tif":
                assert exif.get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
                assert exif.get_ifd(0x8825)[1] == "N"

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_names_beyond_ascii_keep_their_bytes(self, tmp_path: Path, suffix: str, dtype: Any) -> None:
        exif = self.noted()
        exif[0x013B], exif[0x8298] = "François".encode(), "© 2024 Jane".encode("latin-1")
        Image.new("RGB", (13, 9)).save(tmp_path / "a.jpg", exif=exif)
        picture = read_picture(tmp_path / "a.jpg")
        picture.pixels = picture.pixels.astype(dtype)
        write_picture(tmp_path / f"b{suffix}", picture)
        with Image.open(tmp_path / f"b{suffix}") as written:
            notes = written.getexif()
            assert notes[0x013B].encode("latin-1").decode() == "François"
            assert notes[0x8298] == "© 2024 Jane"
            if suffix != ".tif" or dtype is np.uint8:
                assert notes.get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"

    def test_no_place_in_the_old_file_is_kept(self, tmp_path: Path) -> None:
        exif = self.noted()
        exif[0x8769] = {0x9003: "2026:01:02 03:04:05", 0xA005: {1: "R98"}}
        Image.new("RGB", (13, 9)).save(tmp_path / "a.jpg", exif=exif)
        with Image.open(tmp_path / "a.jpg") as photo:
            assert photo.getexif().get_ifd(0xA005) == {1: "R98"}
        write_picture(tmp_path / "b.jpg", read_picture(tmp_path / "a.jpg"))
        with Image.open(tmp_path / "b.jpg") as written:
            assert written.getexif().get_ifd(0x8769) == {0x9003: "2026:01:02 03:04:05"}

    def test_the_layout_of_a_tiff_is_no_note(self, tmp_path: Path) -> None:
        Image.new("RGB", (13, 9)).save(tmp_path / "a.tif")
        assert read_picture(tmp_path / "a.tif").exif is None

    def test_notes_too_long_for_a_jpeg_are_left_out(self, tmp_path: Path) -> None:
        write_picture(tmp_path / "a.jpg", Picture(np.zeros((8, 8, 3), np.uint8), exif=b"Exif\0\0" + bytes(70_000)))
        assert read_picture(tmp_path / "a.jpg").exif is None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_result_is_marked_as_srgb_and_is_the_same_every_time(tmp_path: Path, suffix: str, dtype: Any) -> None:
    picture = Picture(np.full((8, 8, 3), 77, dtype))
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}{suffix}", picture)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    with Image.open(tmp_path / f"a{suffix}") as written:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(written.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)


@pytest.mark.parametrize(
    ("shape", "options", "layout"),
    [
        ((3, 9, 13), {"photometric": "rgb", "planarconfig": "separate"}, "a plane for each colour"),
        ((9, 13), {"photometric": "miniswhite"}, "0 for white"),
    ],
)
def test_a_layout_that_would_be_read_wrongly_is_an_error(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any], layout: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full(shape, 60_000, np.uint16), **options)
    expected = "expected a TIFF of more than 8 bits to have pixel after pixel, and black as 0"
    message = f"{expected}, got one with {layout} in {str(tmp_path / 'a.tif')!r}: save it as a PNG"
    with pytest.raises(ImageFileError, match=f"^{re.escape(message)}$"):
        read_picture(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.full(shape, 60, np.uint8), **options)
    assert read_picture(tmp_path / "b.tif").pixels.shape == (9, 13, 3)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_of_an_animation_the_first_frame_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    assert np.abs(read_picture(tmp_path / f"a{suffix}").pixels[4, 4].astype(int) - (255, 0, 0)).max() < 5


def test_a_heic_photo(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs the extra impasto[heic]")
    heif.from_pillow(Image.new("RGB", (16, 16), (200, 100, 50))).save(tmp_path / "a.heic")
    assert np.abs(read_picture(tmp_path / "a.heic").pixels[8, 8].astype(int) - (200, 100, 50)).max() < 8


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is not None, reason="needs a machine without the extra")
def test_a_heic_photo_of_a_folder_is_named_with_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"a photo")
    (found,) = find_images(tmp_path)
    with pytest.raises(ImageFileError, match=r"a\.HEIC'.*pip install 'impasto\[heic\]'"):
        read_picture(found)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16", "RGB"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_an_uncompressed_tiff_is_turned_as_a_png_is(tmp_path: Path, mode: str, orientation: int) -> None:
    values = np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 27
    image = Image.fromarray(values) if mode == "I;16" else Image.fromarray((values >> 8).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.tiff", exif=exif)
    plain = tmp_path / "plain.tiff"
    image.save(plain)
    expected = np.rot90(read_picture(plain).pixels, {3: 2, 6: 3, 8: 1}[orientation])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tiff").pixels, expected)
