"""``python train.py style=weeping_woman`` is ``impasto train`` with the same words."""

import sys

from impasto.__main__ import start

if __name__ == "__main__":
    start(["train", *sys.argv[1:]])
