"""The laws of the house that the source itself shows: what may see what, how long a function is, how files are read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "impasto"
ROOMS = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
    for path in SOURCE.rglob("*.py")
    if path.name != "__init__.py"
}
PROGRAMS = [*SOURCE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py"), ROOT / "train.py", ROOT / "stylize.py"]

HALL = {"files", "images", "metadata", "transformer", "style_file"}
LEARNING = {room for room in ROOMS if room.startswith("learning.")}
MAY_SEE = {
    "files": set[str](),
    "images": {"files"},
    "transformer": set[str](),
    "metadata": set[str](),
    "style_file": {"files", "metadata", "transformer"},
    "learning.features": set[str](),
    "learning.losses": set[str](),
    "learning.module": {"transformer", "learning.features", "learning.losses"},
    "learning.generated_photos": set[str](),
    "learning.photos": {"images", "learning.generated_photos"},
    "learning.callbacks": {"images"},
    "learning.snapshot": {"learning.module"},
    "learning.faults": {"learning.module", "learning.snapshot", "learning.stopping"},
    "learning.run_folder": {"files", "style_file", "learning.module", "learning.snapshot"},
    "learning.provenance": HALL | {f"learning.{room}" for room in ("config", "module", "photos", "run_folder")},
    "learning.stopping": {"learning.photos"},
    "learning.config": set[str](),
    "learning.optimization": {"images", "learning.features", "learning.losses"},
    "learning.inspection": {"files", "images", "learning.features", "learning.losses", "learning.optimization"},
    "learning.command": {"learning.config", "learning.training"},
    "learning.training": HALL | LEARNING,
    "painting.pictures": {"files", "images"},
    "painting.painter": {"painting.blending", "painting.pictures"},
    "painting.blending": {"painting.pictures"},
    "painting.arithmetic": {"transformer"},
    "painting.tiles": {"transformer", "painting.arithmetic"},
    "painting.stylizer": HALL | {f"painting.{room}" for room in ("arithmetic", "painter", "pictures", "tiles")},
    "painting.outputs": {"images"},
    "painting.smoothing": {"painting.pictures"},
    "painting.animations": {
        "files",
        "images",
        "painting.outputs",
        "painting.pictures",
        "painting.smoothing",
        "painting.painter",
    },
    "painting.clips": {"painting.pictures"},
    "painting.video": {"files"}
    | {"painting.clips", "painting.outputs", "painting.pictures", "painting.smoothing", "painting.painter"},
    "painting.batch": {
        *(
            "images",
            "painting.animations",
            "painting.outputs",
            "painting.pictures",
            "painting.painter",
            "painting.video",
        ),
    },
    "painting.onnx_runtime": {"metadata", "painting.painter", "painting.pictures"},
    "painting.export": {"files", "metadata", "style_file", "transformer"},
    "painting.import_model": {"style_file", "transformer"},
    "commands.judging": {"images", "transformer", "learning.features"},
    "commands.record": {"images", "learning.optimization", "painting.blending"},
    "commands.optimize": ROOMS.keys() - {"cli"},
    "commands.export": {"style_file", "commands.judging", "painting.export"},
    "commands.import_model": {"commands.judging", "painting.import_model"},
    "commands.features": ROOMS.keys() - {"cli"},
    "cli": {
        *("images", "learning.command", "painting.batch", "painting.outputs", "painting.painter"),
        *("painting.onnx_runtime", "painting.stylizer"),
        *("commands.optimize", "commands.features", "commands.export", "commands.import_model"),
    },
    "__main__": {"cli"},
}
HEAVY = {"torch", "torchvision", "pytorch_lightning", "numpy", "PIL", "skimage", "tensorboard", "safetensors"}


def imports(node: ast.AST, *, inside_functions: bool = True) -> Iterator[str]:
    """The dotted names of what a module imports."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports name the whole path"
            yield f"{child.module}"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif inside_functions or not (isinstance(child, ast.FunctionDef) or only_for_types(child)):
            yield from imports(child, inside_functions=inside_functions)


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def seen_rooms(room: str) -> set[str]:
    names = {name.removeprefix("impasto.") for name in imports(ast.parse(ROOMS[room].read_text()))}
    return names & ROOMS.keys()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_sees_only_what_it_may(room: str) -> None:
    assert seen_rooms(room) <= MAY_SEE[room]


def test_what_a_room_sees_is_found() -> None:
    assert seen_rooms("learning.module") == {"transformer", "learning.features", "learning.losses"}
    assert "learning.training" in seen_rooms("learning.command")  # an import inside a function


def test_the_wings_do_not_see_each_other() -> None:
    for room in ROOMS:
        wing = room.partition(".")[0]
        other = {"painting": "learning", "learning": "painting"}.get(wing)
        assert not any(seen.partition(".")[0] == other for seen in seen_rooms(room)), room


LIGHT = ["cli", "__main__", *(room for room in ROOMS if room.startswith("commands.") and room != "commands.record")]


@pytest.mark.parametrize("room", [*LIGHT, "learning.config", "learning.command"])
def test_what_answers_at_once_imports_nothing_heavy(room: str) -> None:
    names = imports(ast.parse(ROOMS[room].read_text()), inside_functions=False)
    assert {name.partition(".")[0] for name in names} & HEAVY == set()


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_is_over_45_lines(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body and node.end_lineno is not None else 0
            assert lines <= 45, node.name


def test_every_module_is_named_for_what_it_is() -> None:
    names = {part.lower() for path in PROGRAMS for part in path.relative_to(ROOT).with_suffix("").parts}
    assert {"src", "impasto", "features"} <= names
    assert not any(
        vague in name.split("_") for name in names for vague in ("utils", "util", "helpers", "misc", "common")
    )


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_can_run_code(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        assert called(node) not in {"eval", "exec", "pickle.load", "pickle.loads", "hydra.utils.instantiate"}
        if called(node) == "torch.load":
            assert {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}["weights_only"] == "True"
        assert ast.unparse(node).count("weights_only=False") == 0
