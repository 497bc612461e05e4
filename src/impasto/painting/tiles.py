"""Large pictures in bounded memory: painted band by band, with the very statistics of the whole picture.

Instance normalisation needs each channel's mean and variance over the whole picture, so bands painted alone would show
seams. Here the network runs layer by layer instead: each layer goes over all bands and is measured before the next one
begins. Nothing is estimated, so the result differs from that of the whole picture by rounding alone.

What lies between two layers is not kept but computed again, except where the network works at a quarter of the size:
there it is small, and goes to a temporary file of 16-bit floats. That costs about half as much arithmetic again.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from impasto.files import NO_SPACE
from impasto.painting.arithmetic import measure, normalise
from impasto.transformer import ConvLayer, ResidualBlock, TransformerNet

_QUARTER = 4  # rows of the picture to one row of the features in the file
_HALO = 2  # rows of features: as far as an encoder or a decoder sees, 7 px of 8
SMALLEST_BAND = _QUARTER * _HALO
"""Rows of the picture that a band has at least."""

_STORED = torch.float16

ReadRows = Callable[[int, int], Tensor]
"""Returns rows ``top`` to ``bottom`` of a picture as an image (1, 3, bottom - top, W) on the network's device."""


def paint_in_bands(
    network: TransformerNet, read_rows: ReadRows, *, height: int, width: int, band: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``top`` and the painted rows (1, 3, h, W) from there, downwards, for a picture of 8 px or more each way.

    ``band`` is the number of rows of the picture in each band: a multiple of 4, 8 or more.

    Raises:
        OSError: the disk has no room for the temporary files, of about one byte for each pixel and unit of width.
    """
    if band % _QUARTER or band < SMALLEST_BAND:
        raise ValueError(f"expected a band of 8, 12, 16 ... rows, got {band!r}")
    rows = math.ceil(height / _QUARTER)
    bands = [_Band(top, min(top + band // _QUARTER, rows), rows) for top in range(0, rows, band // _QUARTER)]
    try:
        with tempfile.TemporaryFile() as trunk, tempfile.TemporaryFile() as branch:
            passes = _Passes(network, read_rows, bands, height=height, width=width, files=(trunk, branch))
            yield from passes.paint()
    except OSError as error:
        if error.errno in NO_SPACE:
            error.filename = tempfile.gettempdir()
            error.add_note("large pictures take temporary files there: set TMPDIR to a disk with more room")
        raise


@dataclass(frozen=True)
class _Band:
    """Rows ``top`` to ``bottom`` of the ``rows`` of features; ``start`` and ``end`` include what its edges look at."""

    top: int
    bottom: int
    rows: int

    @property
    def start(self) -> int:
        return max(self.top - _HALO, 0)

    @property
    def end(self) -> int:
        return min(self.bottom + _HALO, self.rows)

    def core(self, features: Tensor, scale: int) -> Tensor:
        """Return the band's own rows, of features that have ``scale`` rows for each."""
        return features[..., (self.top - self.start) * scale : (self.bottom - self.start) * scale, :]


class _Layer:
    """A convolution whose normalisation takes the statistics of all that was recorded."""

    def __init__(self, layer: ConvLayer) -> None:
        self.layer = layer
        self.count = 0
        self.sums = torch.zeros(2, 1, dtype=torch.float64)  # of the values and of their squares: (2, C)
        self.mean = self.variance = torch.empty(0)

    def record(self, features: Tensor) -> None:
        count = features.shape[-2] * features.shape[-1]
        mean, variance = measure(features)
        self.sums = self.sums + count * torch.stack([mean, variance + mean.square()])
        self.count += count

    def fix(self) -> None:
        """Fix the normalisation to what was recorded."""
        self.mean, square = self.sums / self.count
        self.variance = (square - self.mean.square()).clamp(min=0)

    def finish(self, features: Tensor) -> Tensor:
        return self.layer.relu(normalise(features, self.layer.norm, self.mean, self.variance))

    def __call__(self, x: Tensor) -> Tensor:
        return self.finish(self.layer.convolve(x))


class _Features:
    """Features (1, C, rows, columns), channels last, in a temporary file, read and written by rows."""

    def __init__(self, file: BinaryIO, row: tuple[int, int], device: torch.device) -> None:
        self.file, self.row, self.device = file, row, device  # a row: columns, channels

    def read(self, top: int, bottom: int) -> Tensor:
        values = torch.empty(bottom - top, *self.row, dtype=_STORED)
        self._seek(top)
        self.file.readinto(values.numpy().data)  # type: ignore[attr-defined]
        return values.to(self.device).permute(2, 0, 1)[None].float()

    def write(self, top: int, features: Tensor) -> None:
        # Beyond the range of 16 bits only weights that were never trained lead.
        most = torch.finfo(_STORED).max
        values = features[0].permute(1, 2, 0).clamp(-most, most).to(_STORED).contiguous().cpu()
        self._seek(top)
        self.file.write(values.numpy().data)

    def _seek(self, top: int) -> None:
        self.file.seek(top * math.prod(self.row) * _STORED.itemsize)


class _Passes:
    """The passes over one picture's bands."""

    def __init__(
        self,
        network: TransformerNet,
        read_rows: ReadRows,
        bands: Sequence[_Band],
        *,
        height: int,
        width: int,
        files: tuple[BinaryIO, BinaryIO],
    ) -> None:
        self.read_rows, self.bands, self.height, self.width = read_rows, bands, height, width
        self.device = next(network.parameters()).device
        modules: list[Any] = [each[0] if isinstance(each, nn.Sequential) else each for each in network.layers]
        self.encoder = [_Layer(module) for module in modules[:3]]
        blocks = [module for module in modules if isinstance(module, ResidualBlock)]
        self.blocks = [(_Layer(block.first), _Layer(block.second)) for block in blocks]
        self.decoder = [_Layer(module) for module in modules[-3:]]
        self.trunk, self.branch = (
            _Features(file, (math.ceil(width / _QUARTER), 4 * network.width), self.device) for file in files
        )

    @torch.inference_mode()
    def paint(self) -> Iterator[tuple[int, Tensor]]:
        """Yield ``top`` and the painted rows from there."""
        self._encode()
        for first, second in self.blocks:
            self._add(first, second)
        for depth in (1, 2):
            self._measure(self.decoder[:depth], self._trunk, scale=2**depth)
        for band in self.bands:
            painted = band.core(_convolve(self.decoder, self._trunk(band)), _QUARTER) + 0.5
            top = band.top * _QUARTER
            yield top, painted[..., : self.height - top, : self.width]

    def _encode(self) -> None:
        self._measure(self.encoder[:1], self._photo, scale=4)
        self._measure(self.encoder[:2], self._photo, scale=2)
        self._measure(self.encoder, self._photo, scale=1, target=self.trunk)
        for band in self.bands:
            self.trunk.write(band.top, self.encoder[-1].finish(self.trunk.read(band.top, band.bottom)))

    def _add(self, first: _Layer, second: _Layer) -> None:
        """Add a residual block to the trunk."""
        self._measure([first], self._trunk, scale=1, target=self.branch)
        normalised = lambda band: first.finish(self.branch.read(band.start, band.end))  # noqa: E731
        self._measure([second], normalised, scale=1, target=self.branch)
        for band in self.bands:
            branch = second.finish(self.branch.read(band.top, band.bottom))
            self.trunk.write(band.top, self.trunk.read(band.top, band.bottom) + branch)

    def _measure(
        self,
        layers: Sequence[_Layer],
        source: Callable[[_Band], Tensor],
        *,
        scale: int,
        target: _Features | None = None,
    ) -> None:
        """Fix the statistics of the last layer, and write its features before normalisation to the target."""
        inputs = map(source, self.bands)
        x = next(inputs)
        for band in self.bands:
            features = band.core(_convolve(layers, x), scale)
            layers[-1].record(features)
            x = next(inputs, x)  # before this band is written: the next one looks back into it, maybe in the same file
            if target is not None:
                target.write(band.top, features)
        layers[-1].fix()

    def _photo(self, band: _Band) -> Tensor:
        return self.read_rows(band.start * _QUARTER, min(band.end * _QUARTER, self.height)) - 0.5

    def _trunk(self, band: _Band) -> Tensor:
        return self.trunk.read(band.start, band.end)


def _convolve(layers: Sequence[_Layer], x: Tensor) -> Tensor:
    """Return the features of the last layer before normalisation."""
    for layer in layers[:-1]:
        x = layer(x)
    return layers[-1].layer.convolve(x)
