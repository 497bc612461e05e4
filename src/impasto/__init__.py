"""impasto: train a small network per painting style, then paint any photo in one pass.

The one law: an image inside the code is a float32 tensor (N, 3, H, W), RGB, in [0, 1].

Read the house in this order. The hall: ``files`` (written whole or not at all), ``images`` (the only room that knows
picture files), ``transformer`` (the network that paints), ``style_file`` (what training leaves behind). Then the
painting wing, ``painting``, and the learning wing, ``learning``; neither sees the other. ``cli`` starts each.
"""

from importlib.metadata import version

__version__ = version("impasto")

__all__ = ["__version__"]
