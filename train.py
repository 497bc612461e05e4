"""``python train.py style=weeping_woman`` is ``impasto train`` with the same words."""

import sys

from impasto.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
