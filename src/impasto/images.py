"""Picture files and tensors: the only room that knows files, uint8, EXIF, alpha and colour profiles.

Inside the code an image is a float32 tensor (N, 3, H, W), RGB, in [0, 1]. Pillow alone decodes and encodes.
"""

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from impasto.files import written_whole

_KNOWN = Image.registered_extensions()  # suffix to format; AVIF and others are missing from some builds of Pillow
_WRITTEN = {".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
_ONLY_READ = {".apng", ".gif", ".jfif", ".jpe", ".pbm", ".pgm", ".pnm"}  # other names, or too few colours for paint
_WITHOUT_ALPHA = {"BMP", "JPEG", "PPM"}
_WITH_QUALITY = {"AVIF", "JPEG", "WEBP"}
# Colour space of a profile and mode of an image, to the mode in which the profile is applied.
_PROFILED = {("CMYK", "CMYK"): "CMYK", ("GRAY", "L"): "L", ("RGB", "L"): "RGB", ("RGB", "RGB"): "RGB"}

IMAGE_SUFFIXES = frozenset(_KNOWN.keys() & (_WRITTEN | _ONLY_READ))
"""Endings, in lower case, of the files that count as images in a folder."""

WRITABLE_SUFFIXES = IMAGE_SUFFIXES & _WRITTEN
"""Endings, in lower case, that write_image knows."""


class ImageFileError(ValueError):
    """A file that is no readable image, or an image that its file format cannot hold."""


@dataclass(frozen=True)
class Picture:
    """What a picture file shows: ``image`` (1, 3, H, W) on white, and ``alpha`` (1, 1, H, W) where the file has one."""

    image: Tensor
    alpha: Tensor | None


def read_picture(path: Path) -> Picture:
    """Return the picture as it is meant to be seen: upright, in sRGB, transparent parts on white.

    Gray, palette, CMYK and 16-bit files are converted; embedded colour profiles are applied.

    Raises:
        FileNotFoundError: nothing is there.
        ImageFileError: the file is no image, is damaged, or is too large to be decoded safely.
    """
    colours, alpha = _flatten(_decode(path), with_profile=True)
    image = to_float(_to_pixels(colours)[None])
    return Picture(image, None if alpha is None else to_float(_to_pixels(alpha)[None]))


def read_image(path: Path) -> Tensor:
    """Return the image (1, 3, H, W) of a picture file; raises as read_picture does."""
    return read_picture(path).image


def read_pixels(path: Path, *, at_least: int) -> Tensor:
    """Return a training photo fast: uint8 (3, H, W), upright, transparent parts on white.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size when both sides then keep ``at_least`` px; nothing is enlarged.
    Colour profiles are left out: their slight shift does not matter to training. Raises as read_picture does.
    """
    colours, _ = _flatten(_decode(path, at_least=at_least), with_profile=False)
    return _to_pixels(colours)


def to_float(pixels: Tensor) -> Tensor:
    """Return uint8 pixels (N, C, H, W) as float32 in [0, 1]."""
    return pixels.to(torch.float32) / 255


def write_image(path: Path, image: Tensor, *, alpha: Tensor | None = None, quality: int = 95) -> None:
    """Write an image (1, 3, H, W), clamped to [0, 1], in the format of the suffix: a whole file or none.

    ``alpha`` (1, 1, H, W) is attached, or in a format without it the image is laid on white. ``quality`` is of 1 to
    100 and matters to JPEG, WebP and AVIF.

    Raises:
        ValueError: the shape, the quality or the suffix is not one of these.
        ImageFileError: the format cannot hold the image, for example a side over 16,383 px in WebP.
        OSError: the disk is full, or the folder cannot be written.
    """
    check_writable(path)
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise ValueError(f"expected an image of shape (1, 3, H, W), got {tuple(image.shape)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"expected a quality of 1 to 100, got {quality!r}")
    data = _encode(path, image, alpha=alpha, quality=quality)
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def check_writable(path: Path) -> None:
    """Raise ValueError unless write_image knows the format that the suffix of ``path`` names."""
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise ValueError(
            f"expected a picture file ending in one of {', '.join(sorted(WRITABLE_SUFFIXES))}, got {str(path)!r}: "
            "choose another ending, for example .png"
        )


def resize(image: Tensor, *, short_side: int) -> Tensor:
    """Return images (N, 3, H, W) scaled, antialiased, to ``short_side`` px on the shorter side; aspect is kept."""
    height, width = image.shape[-2:]
    scale = short_side / min(height, width)
    return _scale(image, round(height * scale), round(width * scale))


def find_images(folder: Path) -> list[Path]:
    """Return the paths of all images in the folder and its subfolders, sorted; hidden files and folders are skipped.

    Linked folders are followed, each real folder once.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of images, found none at {str(folder)!r}: check the path")
    found: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        # A link may lead back up: what was seen already is not entered again.
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in names if real not in seen and _is_image_name(name)]
        seen.add(real)
    return sorted(found)


def contact_sheet(rows: Sequence[Sequence[Tensor]], *, height: int = 256) -> Tensor:
    """Return one image (1, 3, H, W): the pictures (1, 3, h, w) of each row side by side at one height, on white.

    Raises:
        ValueError: a row, or the whole, is empty.
    """
    if not rows or not all(rows):
        raise ValueError("expected at least one picture in every row of the contact sheet, got an empty row")
    gap = height // 32
    strips = [_strip(row, height=height, gap=gap) for row in rows]
    width = max(strip.shape[-1] for strip in strips)
    padded = [F.pad(strip, (0, width - strip.shape[-1], 0, gap), value=1.0) for strip in strips]
    return F.pad(torch.cat(padded, dim=-2), (0, 0, gap, 0), value=1.0)


def _strip(row: Sequence[Tensor], *, height: int, gap: int) -> Tensor:
    """Return the pictures side by side, a gutter on the left and after each."""
    scaled = [_scale(image, height, round(image.shape[-1] * height / image.shape[-2])) for image in row]
    return F.pad(torch.cat([F.pad(image, (0, gap), value=1.0) for image in scaled], dim=-1), (gap, 0), value=1.0)


def _scale(image: Tensor, height: int, width: int) -> Tensor:
    size = (max(1, height), max(1, width))
    # Bicubic interpolation overshoots at edges.
    return F.interpolate(image, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _decode(path: Path, *, at_least: int | None = None) -> Image.Image:
    """Return the first frame, upright, in the file's own mode."""
    _check_file(path)
    # Pillow warns of what it reads nevertheless, such as damaged EXIF.
    with warnings.catch_warnings(action="ignore"):
        try:
            with Image.open(path) as file:
                if at_least is not None:
                    file.draft("RGB", (at_least, at_least))
                return ImageOps.exif_transpose(file)
        except Exception as error:  # A damaged file brings Pillow's decoders to errors of any type.
            raise ImageFileError(_reason(path, error)) from error


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"expected an image file, found nothing at {str(path)!r}: check the path")
    if path.is_dir():
        raise ImageFileError(f"expected an image file, got the folder {str(path)!r}: name a picture inside it")
    if path.stat().st_size == 0:
        raise ImageFileError(f"expected an image file, got zero bytes in {str(path)!r}: copy it again")


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"expected an image file, got something else in {str(path)!r}: give a JPEG, PNG, WebP or TIFF"
    if isinstance(error, Image.DecompressionBombError):
        return f"expected an image of at most {_most_pixels():,} px, got more in {str(path)!r}: make it smaller first"
    if isinstance(error, OSError) and error.strerror:
        return f"expected an image file that may be read, got {error.strerror!r} from {str(path)!r}: check the file"
    return f"expected a whole image file, got a damaged one in {str(path)!r}: copy it again"


def _most_pixels() -> int:
    # Pillow warns above its limit and refuses above twice that.
    return 2 * (Image.MAX_IMAGE_PIXELS or 0)


def _flatten(image: Image.Image, *, with_profile: bool) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours on white in mode RGB, and the alpha channel in mode L where there is one."""
    image = _to_eight_bits(image)
    if not image.has_transparency_data:
        return _to_rgb(image, with_profile=with_profile), None
    image = image if image.mode == "LA" else image.convert("RGBA")
    alpha = image.getchannel("A")
    white = Image.new("RGB", image.size, "white")
    # Any colour may hide where nothing is seen, and would bleed into what is seen.
    return Image.composite(_to_rgb(image, with_profile=with_profile), white, alpha), alpha


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return gray of 16 or 32 bits scaled to mode L, which Pillow's own conversion would clip to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0).clip(min=0)
    # Floats come in three habits, integers fill 16 bits; beyond that the brightest value is white.
    full_scales = [1.0, 255.0, 65535.0] if image.mode == "F" else [65535.0]
    peak = float(values.max())
    full_scale = next((scale for scale in full_scales if peak <= scale), peak)
    return Image.fromarray(np.rint(values * (255 / full_scale)).astype(np.uint8))


def _to_rgb(image: Image.Image, *, with_profile: bool) -> Image.Image:
    profile = image.info.get("icc_profile")
    if with_profile and profile:
        try:
            return _apply_profile(image, profile)
        except (ImageCms.PyCMSError, OSError, KeyError):
            pass  # A damaged or foreign profile says nothing; the plain conversion is the best guess.
    return image.convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Return the image in sRGB; raises KeyError for a profile of another colour space than the image's."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    mode = _PROFILED[space, {"CMYK": "CMYK", "L": "L", "LA": "L"}.get(image.mode, "RGB")]
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image.convert(mode), source, srgb, outputMode="RGB")
    return converted or image.convert("RGB")


def _to_pixels(image: Image.Image) -> Tensor:
    """Return uint8 (C, H, W)."""
    pixels = np.array(image).reshape(image.height, image.width, -1)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _encode(path: Path, image: Tensor, *, alpha: Tensor | None, quality: int) -> bytes:
    # In memory first: Pillow's encoders lose the reason when the disk is full.
    file_format = _KNOWN[path.suffix.lower()]
    picture = _to_pillow(image, alpha, transparent=file_format not in _WITHOUT_ALPHA)
    options: dict[str, int] = {"quality": quality} if file_format in _WITH_QUALITY else {}
    if file_format == "JPEG":
        options["subsampling"] = 0  # full colour resolution, for paint has saturated edges
    data = io.BytesIO()
    try:
        picture.save(data, format=file_format, **options)
    except (OSError, ValueError) as error:
        size = f"{picture.width} x {picture.height} px"
        raise ImageFileError(
            f"expected an image that {file_format} can hold, got {size} for {str(path)!r}: write a .png instead"
        ) from error
    return data.getvalue()


def _to_pillow(image: Tensor, alpha: Tensor | None, *, transparent: bool) -> Image.Image:
    image = image.detach().float().cpu()
    if alpha is not None:
        alpha = alpha.detach().float().cpu()
        image = torch.cat([image, alpha], dim=1) if transparent else image * alpha + (1 - alpha)
    pixels = image[0].clamp(0, 1).mul(255).round().to(torch.uint8)  # (3 or 4, H, W)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


__all__ = [
    "IMAGE_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "ImageFileError",
    "Picture",
    "check_writable",
    "contact_sheet",
    "find_images",
    "read_image",
    "read_picture",
    "read_pixels",
    "resize",
    "to_float",
    "write_image",
]
