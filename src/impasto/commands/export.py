"""``impasto export``: a style for other runtimes. Nothing heavy is imported before it is used."""

import argparse
import sys
from pathlib import Path

from impasto.commands.words import Options

SUMMARY = "write a style for other runtimes, for example: impasto export thick_oil --to onnx"
DESCRIPTION = """Write a style as one ONNX file for pictures of any size. What onnxruntime paints with it is compared
with what torch paints, and a file that does otherwise is not kept."""

OPTIONS: Options = {
    "model": {"metavar": "STYLE", "help": "name of a style that comes along, style file or run folder"},
    "--to": {"choices": ("onnx",), "required": True, "help": "the kind of file"},
    "--half": {"action": "store_true", "help": "weights and convolutions in float16: half the size"},
    "--output": {"type": Path, "metavar": "PATH", "help": "default: STYLE.onnx, in the current folder"},
}


def run(arguments: argparse.Namespace) -> int:
    """Write the file, print where it is, and return the exit status."""
    from impasto.painting.export import export_onnx
    from impasto.style_file import load_style

    style = load_style(Path(arguments.model))
    path = arguments.output if arguments.output is not None else Path(f"{style.name}.onnx")
    difference = export_onnx(style, path, half=arguments.half)
    print(f"onnxruntime paints as torch does, within {difference * 255:.3f}/255", file=sys.stderr)
    print(path)
    return 0
