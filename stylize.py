"""``python stylize.py --model runs/weeping_woman photo.jpg`` is ``impasto stylize`` with the same words."""

import sys

from impasto.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["stylize", *sys.argv[1:]]))
