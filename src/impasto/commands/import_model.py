"""``impasto import``: a model of another project made a style file. Nothing heavy is imported before it is used."""

import argparse
from pathlib import Path

from impasto.commands.words import Options

SUMMARY = "read a model of PyTorch's fast_neural_style example, for example: impasto import old.pth old.safetensors"
DESCRIPTION = """Write a style file from a model of PyTorch's fast_neural_style example; it paints as that model does.
Nothing in the model file is executed."""

OPTIONS: Options = {
    "model": {"type": Path, "metavar": "MODEL", "help": "for example mosaic.pth"},
    "target": {"type": Path, "metavar": "OUT", "help": "for example mosaic.safetensors; the name of the style"},
}


def run(arguments: argparse.Namespace) -> int:
    """Write the style file, print where it is, and return the exit status."""
    from impasto.painting.import_model import import_model

    import_model(arguments.model, arguments.target)
    print(arguments.target)
    return 0
