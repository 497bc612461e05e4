"""Picture files as painting needs them: 8 or 16 bits, alpha beside the colours, and what the camera noted.

OpenCV and tifffile do what Pillow does not: colours of 16 bits.
"""

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from impasto.files import written_whole
from impasto.images import (
    check_writable,
    encode,
    find_alpha,
    format_of,
    opened,
    raw_mode,
    to_float,
    to_pixels,
    to_rgb,
    unfit,
    upright,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Pixels = NDArray[Any]
"""Colours (H, W, 3) in sRGB, or alpha (H, W); uint8, uint16, or floats in [0, 1]."""

_WITHOUT_ALPHA = {"BMP", "JPEG", "PPM"}
_DEEP_FORMATS = {"PNG", "TIFF"}
_DEEP_MODES = ("I;12", "I;16", "LA;16", "RGB;16", "RGBA;16")
_BAND_PIXELS = 2**24  # what is converted at a time
_LONGEST_EXIF = 65_000  # a JPEG's; longer ones hold the maker's own thumbnails
_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
_KEPT_TAGS = [
    ExifTags.Base[name]
    for name in ("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "HostComputer", "Copyright")
]
# The last is where, in the old file, more stands that is not read.
_LEFT_OUT = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.IFD.Interop)


@dataclass
class Picture:
    """``pixels`` (H, W, 3), ``alpha`` (H, W) of the same type or None, and ``exif`` as written into files or None.

    Where alpha is 0 the pixels are white: any colour may hide there.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    exif: bytes | None = None


def read_picture(path: Path) -> Picture:
    """Return the picture of a file, upright and in sRGB, with 16 bits where a PNG or TIFF has them.

    Raises:
        FileNotFoundError: nothing is there.
        ImageFileError: the file is no image, is damaged, or is too large to be decoded safely.
    """
    with opened(path) as file:
        is_deep = file.format in _DEEP_FORMATS and raw_mode(file).startswith(_DEEP_MODES)
        file.load()
        exif = file.getexif()
        turn = exif.get(ExifTags.Base.Orientation, 1)
        image = upright(file)
    deep = _decode_deep(path, turn=turn) if is_deep else None
    if deep is not None and deep.shape[1::-1] != image.size:
        deep = None
    picture = from_pillow(image, deep=deep)
    picture.exif = kept_notes(exif)
    return picture


def from_pillow(image: Image.Image, *, deep: Pixels | None = None) -> Picture:
    """Return the picture of an image that stands upright; ``deep`` has its values of 16 bits (H, W, 3 or 4).

    Raises:
        ValueError: it has no pixel.
    """
    if 0 in image.size:
        raise ValueError(f"expected an image of 1 px or more, got {image.width} x {image.height} px")
    dtype = np.uint8 if deep is None else np.uint16
    full = np.iinfo(dtype).max
    pixels = np.empty((image.height, image.width, 3), dtype)
    alpha = np.empty((image.height, image.width), dtype) if find_alpha(image.crop((0, 0, 1, 1))) is not None else None
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = slice(top, min(top + rows, image.height))
        piece = image.crop((0, band.start, image.width, band.stop))
        pixels[band] = np.asarray(to_rgb(piece)) if deep is None else _deep_colours(piece, deep[band])
        if alpha is not None:
            if deep is None or deep.shape[2] == 3:  # OpenCV has none for gray
                alpha[band] = np.asarray(find_alpha(piece)).astype(dtype) * (full // 255)
            else:
                alpha[band] = deep[band][..., 3]
            pixels[band][alpha[band] == 0] = full
    return Picture(pixels, alpha)


def to_pillow(picture: Picture) -> Image.Image:
    """Return the Pillow image of 8 bits, in mode RGB or RGBA."""
    image = Image.fromarray(_to_eight_bits(picture.pixels))
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(_to_eight_bits(picture.alpha)))
    return image


def to_image(pixels: Pixels, device: "torch.device | str" = "cpu") -> "Tensor":
    """Return the image (1, 3, H, W) in [0, 1], on that device, of pixels (H, W, 3)."""
    import torch

    tensor = torch.from_numpy(pixels.copy())
    if pixels.dtype == np.uint8:  # travels as it is: floats are four times as many bytes
        tensor = tensor.to(device)
    return to_float(tensor.permute(2, 0, 1)[None]).contiguous().to(device)


def to_array(image: "Tensor", dtype: np.dtype) -> Pixels:
    """Return pixels (H, W, 3) of that type of an image (1, 3, H, W), clamped to [0, 1]: the other way of to_image."""
    import torch

    image = image if dtype == np.uint8 else image.cpu()  # not every device has 16-bit pixels
    return to_pixels(image[0].permute(1, 2, 0), getattr(torch, dtype.name)).cpu().numpy()


def write_picture(path: Path, picture: Picture, *, quality: int = 95) -> None:
    """Write a picture in the format of the suffix, marked as sRGB: a whole file or none.

    16 bits stay 16 bits in PNG and TIFF. A format without alpha gets the picture on white.

    Raises:
        ValueError: the quality or the suffix is not one that encode knows.
        ImageFileError: the format cannot hold the picture, for example a side over 16,383 px in WebP.
        OSError: the disk is full, or the folder cannot be written.
    """
    check_writable(path)
    file_format = format_of(path)
    if picture.pixels.dtype == np.uint16 and file_format in _DEEP_FORMATS:
        data = _encode_deep_png(path, picture) if file_format == "PNG" else _encode_deep_tiff(picture)
        with written_whole(path) as temporary:
            temporary.write_bytes(data)
        return
    options = notes_for(file_format, picture.exif)
    if picture.alpha is not None and file_format in _WITHOUT_ALPHA:
        picture = Picture(_on_white(picture.pixels, picture.alpha))
    encode(path, to_pillow(picture), quality=quality, **options)


def notes_for(file_format: str, exif: bytes | None) -> dict[str, object]:
    """Return, as Pillow's options, what stands beside the colours: that they are sRGB, and what the camera noted."""
    notes: dict[str, object] = {"icc_profile": _SRGB}
    if exif is not None and (file_format != "JPEG" or len(exif) < _LONGEST_EXIF):
        notes["exif"] = exif if file_format != "TIFF" else _load_notes(exif)
    return notes


def _decode_deep(path: Path, *, turn: int) -> Pixels | None:
    """Return the values of 16 bits (H, W, 3 or 4), upright, or None where OpenCV reads none."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        values: Pixels | None = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # a side beyond 2**20 px
        return None
    if values is None or values.dtype != np.uint16:
        return None
    to_rgb_order = {2: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
    channels = 2 if values.ndim == 2 else values.shape[2]
    turns, is_mirrored = _TURNS.get(turn, (0, False))
    turned: Pixels = np.rot90(cv2.cvtColor(values, to_rgb_order[channels]), turns)
    return turned[:, ::-1] if is_mirrored else turned


def _deep_colours(piece: Image.Image, deep: Pixels) -> Pixels:
    """Return colours of 16 bits in sRGB: lcms converts 8 in Pillow, and what that changes is added."""
    if not piece.info.get("icc_profile"):
        return deep[..., :3]
    change = np.asarray(to_rgb(piece)).astype(np.int32) - np.asarray(to_rgb(piece, with_profile=False))
    return (deep[..., :3] + change * 257).clip(0, 65535).astype(np.uint16)


def _to_eight_bits(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def _on_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    full = np.iinfo(pixels.dtype).max
    share = alpha[..., None] / np.float32(full)
    return np.rint(pixels * share + full * (1 - share)).astype(pixels.dtype)


def _encode_deep_png(path: Path, picture: Picture) -> bytes:
    import cv2

    order = cv2.COLOR_RGB2BGR if picture.alpha is None else cv2.COLOR_RGBA2BGRA
    metadata = {cv2.IMAGE_METADATA_ICCP: _SRGB}
    if picture.exif is not None:
        metadata[cv2.IMAGE_METADATA_EXIF] = picture.exif.removeprefix(b"Exif\0\0")
    blocks = [np.frombuffer(block, np.uint8) for block in metadata.values()]
    is_done, data = cv2.imencodeWithMetadata(".png", cv2.cvtColor(_stacked(picture), order), list(metadata), blocks)
    if not is_done:
        height, width = picture.pixels.shape[:2]
        raise unfit(path, f"{width} x {height} px of 16 bits")
    return bytes(data)


def _encode_deep_tiff(picture: Picture) -> bytes:
    import tifffile

    noted = _load_notes(picture.exif or b"")
    data = io.BytesIO()
    tifffile.imwrite(
        data,
        _stacked(picture),
        photometric="rgb",
        extrasamples=None if picture.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        iccprofile=_SRGB,
        metadata=None,
        software=False,
        extratags=[(tag, 2, 0, value, True) for tag, value in noted.items() if isinstance(value, bytes)],
    )
    return data.getvalue()


def _stacked(picture: Picture) -> Pixels:
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def kept_notes(exif: Image.Exif) -> bytes | None:
    """Return what the camera noted, without orientation, thumbnail, sizes and the layout of a TIFF file."""
    kept = Image.Exif()
    with suppress(Exception):  # Damaged notes are no reason to give up the photo.
        for tag in _KEPT_TAGS:
            if tag in exif:
                kept[tag] = exif[tag]
        for folder in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if noted := {tag: value for tag, value in exif.get_ifd(folder).items() if tag not in _LEFT_OUT}:
                kept[folder] = noted
        return _with_bytes(kept).tobytes() if len(kept) else None
    return None


def _load_notes(block: bytes) -> Image.Exif:
    noted = Image.Exif()
    noted.load(block)
    return _with_bytes(noted)


def _with_bytes(noted: Image.Exif) -> Image.Exif:
    """Return the notes with their texts as the bytes of the file: Pillow reads Latin-1, but writes ASCII alone."""
    for tag, value in list(noted.items()):
        if isinstance(value, str):
            noted[tag] = value.encode("latin-1", "replace")
    return noted


def _srgb_profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes.fromhex("07ea 0001 0001 0000 0000 0000")  # its date: the same picture is the same file
    return bytes(profile)


_SRGB = _srgb_profile()
