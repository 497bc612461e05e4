"""``python stylize.py --model runs/weeping_woman photo.jpg`` is ``impasto stylize`` with the same words."""

import sys

from impasto.__main__ import start

if __name__ == "__main__":
    start(["stylize", *sys.argv[1:]])
