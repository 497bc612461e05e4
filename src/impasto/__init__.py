"""impasto: train a small network per painting style, then paint any photo in one pass.

The one law: an image inside the code is a float32 tensor (N, 3, H, W), RGB, in [0, 1].

Read the house in this order. The hall: ``files`` (written whole or not at all), ``images`` (the only room that knows
picture files), ``photo_folder`` (which photos of a folder are trained on), ``transformer`` (the network that paints),
``style_file`` (what training leaves behind) and ``metadata`` (what it says of itself). Then the painting wing,
``painting``, and the learning wing, ``learning``; neither sees the other. ``cli`` starts each.

To paint from a program, with a Pillow image, an array or a tensor::

    from impasto import Stylizer

    paint = Stylizer.load("runs/weeping_woman")
    result = paint(image)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from impasto.painting.stylizer import Stylizer

    __version__: str


def __getattr__(name: str) -> object:
    """Return Stylizer or the version, found when they are asked for, so that a command begins at once."""
    if name == "Stylizer":
        from impasto.painting.stylizer import Stylizer

        return Stylizer
    if name == "__version__":
        from importlib.metadata import version

        return version("impasto")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Stylizer", "__version__"]
