"""Every kind of picture file becomes the image that a viewer shows, and comes out whole."""

import errno
import os
import re
import resource
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from impasto.images import (
    IMAGE_SUFFIXES,
    WRITABLE_SUFFIXES,
    ImageFileError,
    contact_sheet,
    find_images,
    limit_pixels,
    read_image,
    read_pixels,
    resize,
    to_float,
    write_image,
)

RED_LEFT = np.zeros((6, 9, 3), np.uint8)
RED_LEFT[:, :3] = (255, 0, 0)

UNREADABLE = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="before 13, Pillow cannot read such TIFFs"
)


def at(image: Tensor, y: int, x: int) -> list[int]:
    """The values of one pixel on the scale of 0 to 255."""
    return (image[0, :, y, x] * 255).round().int().tolist()


def save(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def png(path: Path, pixels: np.ndarray, *, color_type: int) -> Path:
    """A PNG of 16 bits per value, which Pillow cannot write itself; pixels (H, W, C)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def icc_profile(space: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """A colour profile of version 2.4 with these tags."""
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    white = struct.pack(">3i", 63190, 65536, 54061)  # D50 as 16.16 fixed point
    header = struct.pack(">IIIcccc", offset + len(body), 0, 0x02400000, b"m", b"n", b"t", b"r") + space + connection
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white + bytes(48)
    return header + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


WHITE = xyz(0.9642, 1, 0.8249)
LINEAR = b"curv\0\0\0\0" + struct.pack(">I", 0)
SRGB_PRIMARIES = {
    b"wtpt": WHITE,
    b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
    b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
    b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
}
LINEAR_RGB = icc_profile(b"RGB ", b"XYZ ", SRGB_PRIMARIES | {b"rTRC": LINEAR, b"gTRC": LINEAR, b"bTRC": LINEAR})
LINEAR_GRAY = icc_profile(b"GRAY", b"XYZ ", {b"wtpt": WHITE, b"kTRC": LINEAR})
RAMP = bytes(range(256))
IDENTITY = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
GRAY_INKS = bytes([128, 128, 128, 0, 128, 128]) * 2**3  # L* 50 without black ink, 0 with it, whatever the others
GRAY_CMYK = icc_profile(
    b"CMYK",
    b"Lab ",
    {b"wtpt": WHITE, b"A2B0": b"mft1\0\0\0\0\4\3\2\0" + IDENTITY + RAMP * 4 + GRAY_INKS + RAMP * 3},
)


class TestRead:
    def test_an_rgb_file_gives_its_values_over_255(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
        image = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)))
        assert image.dtype == torch.float32
        torch.testing.assert_close(image, torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None])

    def test_orientation_is_applied(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # turned a quarter to the right: the left of the file is the top of the picture
        image = read_image(save(tmp_path / "a.png", Image.fromarray(RED_LEFT), exif=exif))
        assert image.shape == (1, 3, 9, 6)
        assert at(image, 0, 5) == [255, 0, 0]
        assert at(image, 8, 5) == [0, 0, 0]

    @pytest.mark.parametrize("mode", ["1", "L", "P", pytest.param("YCbCr", marks=UNREADABLE), "CMYK", "LAB"])
    def test_white_and_black_survive_every_mode(self, tmp_path: Path, mode: str) -> None:
        halves = np.zeros((8, 8, 3), np.uint8)
        halves[:, 4:] = 255
        image = read_image(save(tmp_path / "a.tiff", Image.fromarray(halves).convert("RGB").convert(mode)))
        assert at(image, 4, 1) == pytest.approx([0, 0, 0], abs=1)
        assert at(image, 4, 6) == pytest.approx([255, 255, 255], abs=1)

    def test_a_cmyk_jpeg_without_profile_is_converted(self, tmp_path: Path) -> None:
        image = read_image(save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100))
        red, green, blue = at(image, 4, 4)
        assert red > 250
        assert max(green, blue) < 5

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
    def test_sixteen_bit_gray_is_scaled_not_clipped(self, tmp_path: Path, suffix: str) -> None:
        ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
        path = save(tmp_path / f"a{suffix}", Image.fromarray(ramp), **({"format": "PPM"} if suffix == ".pgm" else {}))
        expected = torch.from_numpy(ramp / 65535).float().expand(1, 3, 8, 8)
        torch.testing.assert_close(read_image(path), expected, atol=0.5 / 255 + 1e-6, rtol=0)

    @pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
    def test_sixteen_bit_colour_and_alpha_are_scaled(self, tmp_path: Path, color_type: int, channels: int) -> None:
        pixels = np.full((8, 8, channels), 40000, np.uint16)
        if channels in (2, 4):
            pixels[..., -1] = 65535
        assert at(read_image(png(tmp_path / "a.png", pixels, color_type=color_type)), 4, 4) == [156, 156, 156]

    @pytest.mark.parametrize("white", [1.0, 255.0, 65535.0, 1e6])
    def test_float_gray_is_scaled_by_its_habit(self, tmp_path: Path, white: float) -> None:
        halves = np.full((8, 8), 0.5 * white, np.float32)
        halves[0] = white
        image = read_image(save(tmp_path / "a.tif", Image.fromarray(halves)))
        assert at(image, 0, 0) == [255, 255, 255]
        assert at(image, 4, 4) == [128, 128, 128]

    @pytest.mark.parametrize(
        ("mode", "profile", "value"),
        [
            ("RGB", LINEAR_RGB, 188),
            ("RGBA", LINEAR_RGB, 188),
            ("LA", LINEAR_GRAY, 188),
            ("L", LINEAR_GRAY, 188),
            ("CMYK", GRAY_CMYK, 119),
        ],
    )
    def test_an_embedded_profile_is_applied(self, tmp_path: Path, mode: str, profile: bytes, value: int) -> None:
        picture = Image.new("RGB", (8, 8), (128, 128, 128)).convert(mode)
        image = read_image(save(tmp_path / "a.tif", picture, icc_profile=profile))
        assert at(image, 4, 4) == pytest.approx([value] * 3, abs=2)

    @pytest.mark.parametrize("profile", [b"no profile", LINEAR_GRAY, GRAY_CMYK])
    def test_a_damaged_or_foreign_profile_is_left_out(self, tmp_path: Path, profile: bytes) -> None:
        picture = Image.new("RGB", (8, 8), (128, 128, 128))
        assert at(read_image(save(tmp_path / "a.tif", picture, icc_profile=profile)), 4, 4) == [128, 128, 128]


class TestAlpha:
    def test_what_is_seen_through_is_laid_on_white(self, tmp_path: Path) -> None:
        pixels = np.zeros((4, 3, 4), np.uint8)
        pixels[:, :, 0] = 255  # red everywhere
        pixels[:, :, 3] = (0, 51, 255)
        image = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)))
        assert [at(image, 0, x) for x in range(3)] == [[255, 255, 255], [255, 204, 204], [255, 0, 0]]

    def test_gray_with_alpha(self, tmp_path: Path) -> None:
        image = read_image(save(tmp_path / "a.png", Image.new("LA", (4, 4), (100, 0))))
        assert at(image, 0, 0) == [255, 255, 255]

    @pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
    def test_palette_with_a_transparent_colour(self, tmp_path: Path, transparency: int | bytes) -> None:
        palette = Image.new("P", (4, 4))
        palette.putpalette([0, 0, 255, 0, 255, 0])
        palette.paste(1, (0, 0, 2, 4))
        image = read_image(save(tmp_path / "a.png", palette, transparency=transparency))
        assert [at(image, 0, x) for x in (0, 3)] == [[255, 255, 255], [0, 0, 255]]

    def test_a_transparent_colour_of_16_bits(self, tmp_path: Path) -> None:
        pixels = np.zeros((4, 4, 3), np.uint16)
        pixels[:2] = 0x1234, 0x5678, 0x9ABC
        path = png(tmp_path / "a.png", pixels, color_type=2)
        head, tail = path.read_bytes()[:33], path.read_bytes()[33:]  # the signature and IHDR come first
        key = b"tRNS" + struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
        path.write_bytes(head + struct.pack(">I", 6) + key + struct.pack(">I", zlib.crc32(key)) + tail)
        for image in (read_image(path), to_float(read_pixels(path, at_least=1)[None])):
            assert [at(image, y, 0) for y in (0, 3)] == [[255, 255, 255], [0, 0, 0]]


class TestBrokenFiles:
    def test_too_little_memory_for_floats_is_no_damage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: Tensor) -> Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        path = save(tmp_path / "a.png", Image.new("RGB", (4, 4)))
        monkeypatch.setattr(Tensor, "float", fail)
        with pytest.raises(RuntimeError, match=r"^DefaultCPUAllocator: can't allocate memory$"):
            read_image(path)

    def expect(self, path: Path, error: type[Exception], message: str) -> None:
        for read in (read_image, lambda path: read_pixels(path, at_least=8)):
            with pytest.raises(error, match=f"^{re.escape(message)}$"):
                read(path)

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        self.expect(path, FileNotFoundError, f"expected an image file, found nothing at {str(path)!r}: check the path")

    def test_folder(self, tmp_path: Path) -> None:
        message = f"expected an image file, got the folder {str(tmp_path)!r}: name a picture inside it"
        self.expect(tmp_path, ImageFileError, message)

    def test_zero_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.touch()
        self.expect(path, ImageFileError, f"expected an image file, got zero bytes in {str(path)!r}: copy it again")

    def test_no_image(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_text("a letter")
        message = f"expected an image file, got something else in {str(path)!r}: give a JPEG, PNG, WebP or TIFF"
        self.expect(path, ImageFileError, message)

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".gif"])
    def test_truncated(self, tmp_path: Path, suffix: str) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        path = save(tmp_path / f"a{suffix}", Image.fromarray(noise))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ImageFileError, match=f"^expected .*{re.escape(repr(str(path)))}"):
            read_image(path)

    def test_the_message_of_a_truncated_photo(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", Image.effect_noise((64, 64), 50))
        path.write_bytes(path.read_bytes()[:-500])
        message = f"expected a whole image file, got a damaged one in {str(path)!r}: copy it again"
        self.expect(path, ImageFileError, message)

    def test_a_tiff_of_a_kind_that_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.zeros((4, 4, 3), np.float16), photometric="rgb")
        advice = "there are kinds of TIFF that cannot be read, as those of floats in colour: save it as a PNG"
        self.expect(path, ImageFileError, f"expected an image file, got something else in {str(path)!r}: {advice}")

    def test_a_decompression_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(tmp_path / "a.png", Image.new("L", (60, 60)))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # restored afterwards
        limit_pixels(2000)
        message = (
            f"expected an image of at most 2,000 px, got more in {str(path)!r}: make it smaller, or raise the limit"
        )
        self.expect(path, ImageFileError, message)

    def test_the_smallest_limit_admits_a_pixel(self, tmp_path: Path) -> None:
        limit_pixels(1)
        assert read_image(save(tmp_path / "a.png", Image.new("L", (1, 1)))).shape == (1, 3, 1, 1)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", Image.new("L", (8, 8)))
        path.chmod(0)
        message = f"expected an image file that may be read, got 'Permission denied' from {str(path)!r}: check the file"
        self.expect(path, ImageFileError, message)

    def test_a_large_photo_below_the_limit_is_read_without_a_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save(tmp_path / "a.png", Image.new("L", (60, 60)))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
        with warnings.catch_warnings(record=True) as caught:
            assert read_image(path).shape == (1, 3, 60, 60)
        assert not caught

    def test_a_file_that_names_a_program_is_no_image(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.eps", Image.new("RGB", (8, 8)))
        message = f"expected an image file, got something else in {str(path)!r}: give a JPEG, PNG, WebP or TIFF"
        self.expect(path, ImageFileError, message)


class TestReadPixels:
    def test_uint8_pixels_of_the_file(self, tmp_path: Path) -> None:
        pixels = read_pixels(save(tmp_path / "a.png", Image.fromarray(RED_LEFT)), at_least=4)
        assert torch.equal(pixels, torch.from_numpy(RED_LEFT).permute(2, 0, 1))
        assert pixels.is_contiguous()

    @pytest.mark.parametrize(("at_least", "size"), [(256, (256, 384)), (128, (128, 192)), (100, (128, 192))])
    def test_a_large_jpeg_is_decoded_small_but_not_too_small(
        self, tmp_path: Path, at_least: int, size: tuple[int, int]
    ) -> None:
        path = save(tmp_path / "a.jpg", Image.new("RGB", (384, 256), "red"))
        assert read_pixels(path, at_least=at_least).shape == (3, *size)

    def test_nothing_is_enlarged(self, tmp_path: Path) -> None:
        assert read_pixels(save(tmp_path / "a.jpg", Image.new("L", (20, 10))), at_least=64).shape == (3, 10, 20)

    def test_orientation_and_alpha_as_in_pictures(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        path = save(tmp_path / "a.png", Image.new("RGBA", (9, 6), (255, 0, 0, 0)), exif=exif)
        pixels = read_pixels(path, at_least=4)
        assert pixels.shape == (3, 9, 6)
        assert pixels.min() == 255

    def test_to_float_is_the_image(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", Image.effect_noise((8, 9), 50))
        torch.testing.assert_close(to_float(read_pixels(path, at_least=4)[None]), read_image(path))


class TestWrite:
    @pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".tiff", ".tga", ".jp2", ".PNG"])
    def test_what_is_written_is_read_again(self, tmp_path: Path, suffix: str) -> None:
        image = torch.rand(1, 3, 9, 13)
        write_image(tmp_path / f"a{suffix}", image)
        torch.testing.assert_close(read_image(tmp_path / f"a{suffix}"), image, atol=0.5 / 255 + 1e-6, rtol=0)

    def test_the_common_formats_can_be_written(self, tmp_path: Path) -> None:
        assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp"} <= WRITABLE_SUFFIXES <= IMAGE_SUFFIXES
        for suffix in WRITABLE_SUFFIXES:
            write_image(tmp_path / f"a{suffix}", torch.rand(1, 3, 9, 13))
            assert read_image(tmp_path / f"a{suffix}").shape == (1, 3, 9, 13)

    def test_values_are_clamped_and_rounded(self, tmp_path: Path) -> None:
        values = torch.tensor([-1.0, 0.6 / 255, 0.4 / 255, 2.0]).expand(1, 3, 1, 4)
        write_image(tmp_path / "a.png", values)
        assert [at(read_image(tmp_path / "a.png"), 0, x)[0] for x in range(4)] == [0, 1, 0, 255]

    @pytest.mark.parametrize("suffix", [".jpg", ".webp"])
    def test_quality_counts(self, tmp_path: Path, suffix: str) -> None:
        image = torch.rand(1, 3, 64, 64)
        for quality in (1, 100):
            write_image(tmp_path / f"{quality}{suffix}", image, quality=quality)
        assert (tmp_path / f"1{suffix}").stat().st_size < (tmp_path / f"100{suffix}").stat().st_size / 2

    @pytest.mark.parametrize("quality", [0, 101])
    def test_quality_out_of_range(self, tmp_path: Path, quality: int) -> None:
        with pytest.raises(ValueError, match=f"^expected a quality of 1 to 100, got {quality}$"):
            write_image(tmp_path / "a.jpg", torch.rand(1, 3, 8, 8), quality=quality)

    @pytest.mark.parametrize("shape", [(3, 8, 8), (2, 3, 8, 8), (1, 1, 8, 8)])
    def test_another_shape(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        message = f"expected an image of shape (1, 3, H, W), got {shape}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            write_image(tmp_path / "a.png", torch.rand(shape))

    @pytest.mark.parametrize("name", ["a.xyz", "a", "a.gif", "a.pdf"])
    def test_a_suffix_that_cannot_be_written(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        message = (
            f"expected a picture file ending in one of {', '.join(sorted(WRITABLE_SUFFIXES))}, got {str(path)!r}: "
            "choose another ending, for example .png"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            write_image(path, torch.rand(1, 3, 8, 8))

    @pytest.mark.parametrize(
        ("suffix", "name", "width"),
        [(".webp", "WEBP", 16384), (".avif", "AVIF", 70000), (".tga", "TGA", 70000), (".jpg", "JPEG", 65501)],
    )
    def test_an_image_the_format_cannot_hold(
        self, tmp_path: Path, suffix: str, name: str, width: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / f"a{suffix}"
        message = f"expected an image that {name} can hold, got {width} x 1 px for {str(path)!r}: write a .png instead"
        with pytest.raises(ImageFileError, match=f"^{re.escape(message)}$"):
            write_image(path, torch.rand(1, 3, 1, width))
        assert os.listdir(tmp_path) == []
        assert capfd.readouterr() == ("", "")

    def test_the_longest_jpeg(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.jpg", torch.zeros(1, 3, 1, 65_500))
        assert read_image(tmp_path / "a.jpg").shape == (1, 3, 1, 65_500)

    def test_a_full_disk_leaves_the_earlier_picture(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        write_image(path, torch.zeros(1, 3, 8, 8))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                write_image(path, torch.rand(1, 3, 64, 64))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert read_image(path).max() == 0
        assert os.listdir(tmp_path) == ["a.png"]


class TestResize:
    @pytest.mark.parametrize(("size", "expected"), [((40, 60), (20, 30)), ((60, 40), (30, 20)), ((10, 15), (20, 30))])
    def test_the_short_side_and_the_aspect(self, size: tuple[int, int], expected: tuple[int, int]) -> None:
        assert resize(torch.rand(2, 3, *size), short_side=20).shape == (2, 3, *expected)

    def test_it_is_antialiased(self) -> None:
        stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 3, 64, 64)
        torch.testing.assert_close(resize(stripes, short_side=8), torch.full((1, 3, 8, 8), 0.5), atol=0.06, rtol=0)

    def test_it_stays_in_range(self) -> None:
        edge = torch.tensor([0.0, 1.0]).repeat_interleave(8).expand(1, 3, 16, 16)
        enlarged = resize(edge, short_side=64)
        assert (enlarged.min().item(), enlarged.max().item()) == (0, 1)


class TestFindImages:
    def test_all_images_below_sorted_and_hidden_ones_left_out(self, tmp_path: Path) -> None:
        names = ["b.JPG", "a/z.png", "a/b.webp", ".hidden.png", ".thumbs/a.png", "notes.txt", "a.jpeg.part"]
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert find_images(tmp_path) == [tmp_path / name for name in ("a/b.webp", "a/z.png", "b.JPG")]

    def test_a_folder_that_may_not_be_read_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in ("mine/a.png", "theirs/b.png"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        scandir = os.scandir

        def refuse(folder: str) -> Any:
            if os.path.basename(folder) == "theirs":  # root may enter any
                raise PermissionError(errno.EACCES, "Permission denied", folder)
            return scandir(folder)

        monkeypatch.setattr("os.scandir", refuse)
        assert find_images(tmp_path) == [tmp_path / "mine/a.png"]
        told = f"passed over a folder that cannot be read: Permission denied: {str(tmp_path / 'theirs')!r}"
        assert [record.getMessage() for record in caplog.records] == [told]

    def test_a_linked_folder_is_followed_and_a_loop_ends(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "a.png").touch()
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
        assert find_images(tmp_path / "photos") == [tmp_path / "photos" / "link" / "a.png"]

    def test_no_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "photos"
        message = f"expected a folder of images, found none at {str(path)!r}: check the path"
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
            find_images(path)


class TestContactSheet:
    def test_pictures_stand_at_one_height_between_white_gutters(self) -> None:
        black, wide = torch.zeros(1, 3, 20, 20), torch.zeros(1, 3, 10, 20)
        sheet = contact_sheet([[black, wide], [black]], height=64)
        assert sheet.shape == (1, 3, 2 + 64 + 2 + 64 + 2, 2 + 64 + 2 + 128 + 2)
        assert sheet[..., 2:66, 2:66].max() == 0
        assert sheet[..., 68:132, 68:].min() == 1  # beside the shorter row
        gutters = [sheet[..., :2, :], sheet[..., 66:68, :], sheet[..., :2], sheet[..., 66:68], sheet[..., -2:]]
        assert all(gutter.min() == 1 for gutter in gutters)

    @pytest.mark.parametrize("rows", [[], [[]]])
    def test_an_empty_row(self, rows: list[list[Tensor]]) -> None:
        message = "expected at least one picture in every row of the contact sheet, got an empty row"
        with pytest.raises(ValueError, match=f"^{message}$"):
            contact_sheet(rows)
