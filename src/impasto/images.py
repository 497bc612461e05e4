"""Picture files and tensors: the only room that knows files, uint8, EXIF, alpha and colour profiles.

Inside the code an image is a float32 tensor (N, 3, H, W), RGB, in [0, 1]. Pillow decodes and encodes. What painting
alone needs, 16 bits and EXIF that is kept, is in ``painting/pictures.py``.
"""

import io
import logging
import os
import struct
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError

from impasto.files import written_whole

with suppress(ImportError):  # the extra impasto[heic]
    from pillow_heif import register_heif_opener

    register_heif_opener()

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_log = logging.getLogger(__name__)

_KNOWN = Image.registered_extensions()  # suffix to format; AVIF and others are missing from some builds of Pillow
_WRITTEN = {".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
# Other names, or too few colours for paint, or no encoder everywhere.
_ONLY_READ = {".apng", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".pbm", ".pgm", ".pnm"}
_HEIC = {".heic", ".heif"} - _KNOWN.keys()
_LONGEST_JPEG_SIDE = 65_500  # px
_WITH_QUALITY = {"AVIF", "JPEG", "WEBP"}
# Colour space of a profile and mode of an image, to the mode in which the profile is applied.
_PROFILED = {("CMYK", "CMYK"): "CMYK", ("GRAY", "L"): "L", ("RGB", "L"): "RGB", ("RGB", "RGB"): "RGB"}

IMAGE_SUFFIXES = frozenset(_KNOWN.keys() & (_WRITTEN | _ONLY_READ)) | _HEIC
"""Endings, in lower case, of the files that count as images in a folder; without the extra for HEIC it is named."""

ANIMATED_SUFFIXES = frozenset({".gif", ".webp"})
"""Endings, in lower case, of the picture files whose frames are painted where they move."""

WRITABLE_SUFFIXES = IMAGE_SUFFIXES & _WRITTEN
"""Endings, in lower case, that write_image knows."""

THINNEST_PHOTO = 2
"""Least side in px of a photo to train on: a crop of one pixel is of one colour, which gives infinite gradients."""

MOST_ASPECT = 50
"""Of the sides of a picture that is scaled by the short one: the longest painted scrolls have about 30."""

_FORMATS = sorted({_KNOWN[suffix] for suffix in IMAGE_SUFFIXES - _HEIC})  # others, such as EPS, are programs to be run


class ImageFileError(ValueError):
    """A file that is no readable image, or an image that its file format cannot hold."""


def read_image(path: Path) -> "Tensor":
    """Return the image (1, 3, H, W) of a picture file as it is meant to be seen: upright, in sRGB, on white.

    Gray, palette, CMYK and 16-bit files are converted; embedded colour profiles are applied.

    Raises:
        FileNotFoundError: nothing is there.
        ImageFileError: the file is no image, is damaged, or is too large to be decoded safely.
    """
    return to_float(_to_tensor(_decode(path))[None])


def _decode(path: Path) -> Image.Image:
    with opened(path) as file:
        return _on_white(upright(file), with_profile=True)


def read_pixels(path: Path, *, at_least: int) -> "Tensor":
    """Return a training photo fast: uint8 (3, H, W), upright, transparent parts on white.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size when both sides then keep ``at_least`` px; nothing is enlarged.
    Colour profiles are left out: their slight shift does not matter to training. Raises as read_image does, and
    ImageFileError for a photo of less than 2 px on a side.
    """
    return _to_tensor(decode_photo(path, at_least=at_least))


def decode_photo(path: Path, *, at_least: int) -> Image.Image:
    """Return what read_pixels does as a Pillow image in mode RGB; raises as it does."""
    with opened(path) as file:
        width, height = file.size
        file.draft("RGB", (at_least, at_least))
        photo = upright(file)
    if min(width, height) < THINNEST_PHOTO:
        raise ImageFileError(
            f"expected a photo of at least {THINNEST_PHOTO} x {THINNEST_PHOTO} px, got {width} x {height} px in "
            f"{str(path)!r}: leave it out"
        )
    return _on_white(photo, with_profile=False)


def to_float(pixels: "Tensor") -> "Tensor":
    """Return uint8 or uint16 pixels (N, C, H, W) as float32 in [0, 1]; floats as float32 as they are."""
    return pixels.float() / _full_scale(pixels.dtype)


def to_pixels(image: "Tensor", dtype: "torch.dtype") -> "Tensor":
    """Return an image, clamped to [0, 1], as pixels of type uint8, uint16 or a float: the other way of to_float."""
    image = image.detach().float().clamp(0, 1)
    if dtype.is_floating_point:
        return image.to(dtype)
    return image.mul(_full_scale(dtype)).round().to(dtype)


def _full_scale(dtype: "torch.dtype") -> int:
    import torch

    return 1 if dtype.is_floating_point else torch.iinfo(dtype).max


def write_image(path: Path, image: "Tensor", *, quality: int = 95) -> None:
    """Write an image (1, 3, H, W), clamped to [0, 1], in the format of the suffix: a whole file or none.

    ``quality`` is of 1 to 100 and matters to JPEG, WebP and AVIF.

    Raises:
        ValueError: the shape, the quality or the suffix is not one of these.
        ImageFileError: the format cannot hold the image, for example a side over 16,383 px in WebP.
        OSError: the disk is full, or the folder cannot be written.
    """
    import torch

    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise ValueError(f"expected an image of shape (1, 3, H, W), got {tuple(image.shape)}")
    pixels = to_pixels(image[0].cpu(), torch.uint8).permute(1, 2, 0).contiguous()
    encode(path, Image.fromarray(pixels.numpy()), quality=quality)


def encode(path: Path, picture: Image.Image, *, quality: int, **options: object) -> None:
    """Write a Pillow image of 8 bits, with Pillow's own options such as ``exif``; raises as write_image does."""
    check_writable(path)
    if not 1 <= quality <= 100:
        raise ValueError(f"expected a quality of 1 to 100, got {quality!r}")
    file_format = format_of(path)
    if file_format in _WITH_QUALITY:
        options["quality"] = quality
    if file_format == "JPEG":
        if max(picture.size) > _LONGEST_JPEG_SIDE:  # libjpeg would print a line of its own
            raise unfit(path, f"{picture.width} x {picture.height} px")
        options["subsampling"] = 0  # full colour resolution, for paint has saturated edges
    with written_whole(path) as temporary, temporary.open("w+b") as file:
        try:
            # Without its number: given that, Pillow's encoders write past Python and lose the reason of an error.
            methods = {name: getattr(file, name) for name in ("read", "write", "seek", "tell", "flush")}
            picture.save(cast(IO[bytes], SimpleNamespace(**methods)), format=file_format, **options)
        except (OSError, ValueError, RuntimeError, OverflowError, struct.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise unfit(path, f"{picture.width} x {picture.height} px") from error


def format_of(path: Path) -> str:
    """Return Pillow's name of the format that the suffix of ``path`` names, for example JPEG."""
    return _KNOWN[path.suffix.lower()]


def unfit(path: Path, size: str) -> ImageFileError:
    """Return the error of an image that the format of ``path`` cannot hold."""
    file_format = format_of(path)
    other = ".tif" if file_format == "PNG" else ".png"
    return ImageFileError(
        f"expected an image that {file_format} can hold, got {size} for {str(path)!r}: write a {other} instead"
    )


def check_writable(path: Path) -> None:
    """Raise ValueError unless write_image knows the format that the suffix of ``path`` names."""
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ValueError(
            f"expected a picture file ending in one of {', '.join(sorted(WRITABLE_SUFFIXES))}, got {str(path)!r}: "
            "choose another ending, for example .png"
        )


def read_resized(path: Path, *, short_side: int) -> "Tensor":
    """Return the image (1, 3, H, W) of a picture file at that size; raises as read_image and check_aspect do."""
    check_aspect(path)
    return resize(read_image(path), short_side=short_side)


def check_aspect(path: Path) -> None:
    """Raise ImageFileError for a picture far longer than wide: scaled by its short side it would fill the memory."""
    with opened(path) as file:
        width, height = file.size
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise ImageFileError(
            f"expected a picture whose long side is at most {MOST_ASPECT} times the short one, got {width} x {height} "
            f"px in {str(path)!r}: cut a part out of it"
        )


def resize(image: "Tensor", *, short_side: int) -> "Tensor":
    """Return images (N, 3, H, W) scaled, antialiased, to ``short_side`` px on the shorter side; aspect is kept."""
    height, width = image.shape[-2:]
    scale = short_side / min(height, width)
    return resize_to(image, round(height * scale), round(width * scale))


def resize_to(image: "Tensor", height: int, width: int) -> "Tensor":
    """Return images (N, 3, H, W) scaled, antialiased, to that many px, at least one."""
    import torch.nn.functional as F

    size = (max(1, height), max(1, width))
    # Bicubic interpolation overshoots at edges.
    return F.interpolate(image, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def is_animated(path: Path) -> bool:
    """Return whether the file is a GIF or WebP of several frames, or cut off after the first; False for others."""
    if path.suffix.lower() not in ANIMATED_SUFFIXES:
        return False
    with suppress(ImageFileError, FileNotFoundError), opened(path) as file:
        try:
            return bool(getattr(file, "is_animated", False))
        except Exception:  # where a GIF is cut off
            return True
    return False


def find_images(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the paths of all images in the folder and its subfolders, sorted; hidden files and folders are skipped.

    Linked folders are followed, each real folder once, and one that may not be read is named in a warning.
    ``suffixes``, in lower case, say what counts as an image.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of images, found none at {str(folder)!r}: check the path")

    def warn(error: OSError) -> None:
        _log.warning("passed over a folder that cannot be read: %s: %r", error.strerror, error.filename)

    found: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=warn, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link may lead back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = (name for name in names if not name.startswith("."))
        found += [Path(parent, name) for name in shown if os.path.splitext(name)[1].lower() in suffixes]
    return sorted(found)


def contact_sheet(rows: Sequence[Sequence["Tensor"]], *, height: int = 256) -> "Tensor":
    """Return one image (1, 3, H, W): the pictures (1, 3, h, w) of each row side by side at one height, on white.

    Raises:
        ValueError: a row, or the whole, is empty.
    """
    import torch
    import torch.nn.functional as F

    if not rows or not all(rows):
        raise ValueError("expected at least one picture in every row of the contact sheet, got an empty row")
    gap = height // 32
    strips = [_strip(row, height=height, gap=gap) for row in rows]
    width = max(strip.shape[-1] for strip in strips)
    padded = [F.pad(strip, (0, width - strip.shape[-1], 0, gap), value=1.0) for strip in strips]
    return F.pad(torch.cat(padded, dim=-2), (0, 0, gap, 0), value=1.0)


def _strip(row: Sequence["Tensor"], *, height: int, gap: int) -> "Tensor":
    """Return the pictures side by side, a gutter on the left and after each."""
    import torch
    import torch.nn.functional as F

    scaled = [resize_to(image, height, round(image.shape[-1] * height / image.shape[-2])) for image in row]
    return F.pad(torch.cat([F.pad(image, (0, gap), value=1.0) for image in scaled], dim=-1), (gap, 0), value=1.0)


def limit_pixels(most: int) -> None:
    """Refuse from now on, in the whole process, to decode a picture of more pixels: Pillow's guard against bombs.

    An odd number is taken for the even one above it.
    """
    Image.MAX_IMAGE_PIXELS = (most + 1) // 2  # it warns above its limit and refuses above twice that


def pixel_limit() -> int | None:
    """Return how many pixels a picture may have; None: any number."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Yield the picture file, not yet decoded; raises as read_image does, also for what goes wrong inside."""
    # Pillow warns of what it reads nevertheless, such as damaged EXIF.
    with warnings.catch_warnings(action="ignore"):
        try:
            _check_file(path)
            # Given a name, Pillow maps some TIFF files into memory with the sides of the turned picture.
            with path.open("rb") as stream, Image.open(stream, formats=_FORMATS) as file:
                _check_layout(file, path)
                if raw_mode(file) == "RGB;16B" and "transparency" in file.info:
                    # Of the values of pixels Pillow keeps the upper 8 bits.
                    file.info["transparency"] = tuple(value >> 8 for value in file.info["transparency"])
                yield file
        except (FileNotFoundError, ImageFileError):
            raise
        except Exception as error:  # A damaged file brings Pillow's decoders to errors of any type.
            raise ImageFileError(_reason(path, error)) from error


def upright(image: Image.Image) -> Image.Image:
    """Return the image, itself turned as its EXIF says; of 32 bits for a value 8 are left."""
    ImageOps.exif_transpose(image, in_place=True)  # a copy of a large picture would take as much again
    if getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE) == (12,):  # which Pillow leaves below 4096
        image = image.point(lambda value: value * 16)
    if image.mode == "La":  # gray multiplied by its alpha, which Pillow converts to LA alone
        image = image.convert("LA")
    return _to_eight_bits(image) if image.mode in {"I", "F"} else image


def raw_mode(file: Image.Image) -> str:
    """Return how the values of a file that is not yet decoded lie in it, in Pillow's words, such as ``RGB;16B``."""
    tiles = getattr(file, "tile", [])
    arguments = tiles[0].args if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"expected an image file, found nothing at {str(path)!r}: check the path")
    if path.is_dir():
        raise ImageFileError(f"expected an image file, got the folder {str(path)!r}: name a picture inside it")
    if path.stat().st_size == 0:
        raise ImageFileError(f"expected an image file, got zero bytes in {str(path)!r}: copy it again")


def _check_layout(file: Image.Image, path: Path) -> None:
    """Raise ImageFileError for a TIFF that Pillow and OpenCV read wrongly without a word."""
    tags = getattr(file, "tag_v2", {})
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))
    is_planar = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) > 1 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
    is_negative = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    if max(bits) > 8 and (is_planar or is_negative):
        layout = "a plane for each colour" if is_planar else "0 for white"
        raise ImageFileError(
            "expected a TIFF of more than 8 bits to have pixel after pixel, and black as 0, "
            f"got one with {layout} in {str(path)!r}: save it as a PNG"
        )


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        suffix = path.suffix.lower()
        advice = "pip install 'impasto[heic]'" if suffix in _HEIC else "give a JPEG, PNG, WebP or TIFF"
        if suffix in {".tif", ".tiff"}:
            advice = "there are kinds of TIFF that cannot be read, as those of floats in colour: save it as a PNG"
        return f"expected an image file, got something else in {str(path)!r}: {advice}"
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"expected an image of at most {pixel_limit():,} px, got more in {str(path)!r}: make it smaller, "
            "or raise the limit"
        )
    if isinstance(error, MemoryError):
        return f"expected an image that fits the memory, got a larger one in {str(path)!r}: make it smaller"
    if isinstance(error, OSError) and error.strerror:
        return f"expected an image file that may be read, got {error.strerror!r} from {str(path)!r}: check the file"
    return f"expected a whole image file, got a damaged one in {str(path)!r}: copy it again"


def _on_white(image: Image.Image, *, with_profile: bool) -> Image.Image:
    """Return the colours in mode RGB; any may hide where nothing is seen, and white takes their place."""
    colours, alpha = to_rgb(image, with_profile=with_profile), find_alpha(image)
    return colours if alpha is None else Image.composite(colours, Image.new("RGB", image.size, "white"), alpha)


def find_alpha(image: Image.Image) -> Image.Image | None:
    """Return the alpha channel in mode L, or None for an image without transparency."""
    if not image.has_transparency_data:
        return None
    if image.mode.startswith("I"):  # one gray of a PNG is transparent, which Pillow does not convert
        return Image.fromarray(np.where(np.asarray(image) == image.info["transparency"], 0, 255).astype(np.uint8))
    return (image if image.mode == "LA" else image.convert("RGBA")).getchannel("A")


def to_rgb(image: Image.Image, *, with_profile: bool = True) -> Image.Image:
    """Return the colours in mode RGB and, with the embedded profile applied, in sRGB."""
    image = _to_eight_bits(image)
    if image.has_transparency_data and image.mode != "LA":
        image = image.convert("RGBA")
    profile = image.info.get("icc_profile")
    if with_profile and profile:
        try:
            return _apply_profile(image, profile)
        except (ImageCms.PyCMSError, OSError, KeyError):
            pass  # A damaged or foreign profile says nothing; the plain conversion is the best guess.
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return gray of 16 or 32 bits scaled to mode L, which Pillow's own conversion would clip to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0).clip(min=0)
    # Floats come in three habits, integers fill 16 bits; beyond that the brightest value is white.
    full_scales = [1.0, 255.0, 65535.0] if image.mode == "F" else [65535.0]
    peak = float(values.max())
    full_scale = next((scale for scale in full_scales if peak <= scale), peak)
    gray = Image.fromarray(np.rint(values * (255 / full_scale)).astype(np.uint8))
    gray.info["icc_profile"] = image.info.get("icc_profile")
    return gray


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Return the image in sRGB; raises KeyError for a profile of another colour space than the image's."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    mode = _PROFILED[space, {"CMYK": "CMYK", "L": "L", "LA": "L"}.get(image.mode, "RGB")]
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image.convert(mode), source, srgb, outputMode="RGB")
    return converted or image.convert("RGB")


def _to_tensor(image: Image.Image) -> "Tensor":
    """Return uint8 (3, H, W) of mode RGB."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
