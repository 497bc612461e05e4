"""The laws of the house that the source itself shows: what may see what, how long a function is, how files are read."""

import ast
import re
import subprocess
import sys
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

HALL = {"files", "images", "memory", "photo_folder", "metadata", "torch_files", "transformer", "style_file"}
LEARNING = {room for room in ROOMS if room.startswith("learning.")}
MAY_SEE = {
    "files": set[str](),
    "images": {"files"},
    "photo_folder": {"files", "images"},
    "memory": set[str](),
    "transformer": set[str](),
    "metadata": set[str](),
    "torch_files": set[str](),
    "style_file": {"files", "metadata", "torch_files", "transformer"},
    "learning.features": {"torch_files"},
    "learning.losses": set[str](),
    "learning.allocator": set[str](),
    "learning.stability": set[str](),
    "learning.replays": set[str](),
    "learning.muon": {"learning.replays"},
    "learning.module": {
        "transformer",
        "learning.features",
        "learning.losses",
        "learning.muon",
        "learning.replays",
        "learning.stability",
    },
    "learning.generated_photos": set[str](),
    "learning.photo_cache": {"files"},
    "learning.photos": {"images", "photo_folder", "learning.generated_photos", "learning.photo_cache"},
    "learning.callbacks": {"images"},
    "learning.snapshot": {"learning.module"},
    "learning.faults": {"learning.module", "learning.snapshot", "learning.stopping"},
    "learning.run_folder": {"files", "photo_folder", "style_file", "learning.module", "learning.snapshot"},
    "learning.provenance": HALL | {f"learning.{room}" for room in ("config", "module", "photos", "run_folder")},
    "learning.memory": {"memory", "learning.module"},
    "learning.stopping": {"memory", "photo_folder"},
    "learning.config": set[str](),
    "learning.optimization": {"images", "learning.features", "learning.losses", "learning.replays"},
    "learning.inspection": {"files", "images", "learning.features", "learning.losses", "learning.optimization"},
    "learning.command": {"learning.config", "learning.stopping", "learning.training"},
    "learning.training": HALL | LEARNING,
    "painting.pictures": {"files", "images"},
    "painting.painter": {"memory", "painting.blending", "painting.pictures"},
    "painting.blending": {"painting.pictures"},
    "painting.arithmetic": {"transformer"},
    "painting.tiles": {"files", "transformer", "painting.arithmetic"},
    "painting.stylizer": HALL | {f"painting.{room}" for room in ("arithmetic", "painter", "pictures", "tiles")},
    "painting.outputs": {"files", "images", "painting.painter"},
    "painting.smoothing": {"painting.pictures"},
    "painting.animations": {
        "files",
        "images",
        "painting.outputs",
        "painting.pictures",
        "painting.smoothing",
        "painting.painter",
    },
    "painting.clips": {"images", "painting.pictures"},
    "painting.camera": {"painting.painter", "painting.pictures", "painting.smoothing"},
    "painting.video": {"files"}
    | {"painting.clips", "painting.outputs", "painting.pictures", "painting.smoothing", "painting.painter"},
    "painting.batch": {
        *(
            "images",
            "memory",
            "painting.animations",
            "painting.outputs",
            "painting.pictures",
            "painting.painter",
            "painting.video",
        ),
    },
    "painting.onnx_runtime": {"metadata", "painting.painter", "painting.pictures"},
    "painting.export": {"files", "metadata", "style_file", "transformer"},
    "painting.import_model": {"metadata", "style_file", "torch_files", "transformer"},
    "commands.words": {"files"},
    "commands.stopping": set[str](),
    "commands.judging": {
        *("commands.words", "images", "memory", "transformer"),
        *("learning.allocator", "learning.features"),
    },
    "commands.record": {
        *("commands.stopping", "files", "images", "painting.blending"),
        *("learning.losses", "learning.optimization"),
    },
    "commands.optimize": ROOMS.keys() - {"cli"},
    "commands.export": {"style_file", "commands.words", "painting.export"},
    "commands.import_model": {"commands.words", "painting.import_model"},
    "commands.check": {"photo_folder", "commands.words"},
    "commands.stylize": {
        *("images", "commands.stopping", "commands.words", "painting.batch", "painting.outputs", "painting.painter"),
        *("painting.camera", "painting.onnx_runtime", "painting.stylizer"),
    },
    "commands.features": ROOMS.keys() - {"cli"},
    "cli": {
        *("learning.command", "commands.stylize", "commands.optimize", "commands.features", "commands.export"),
        *("commands.import_model", "commands.check", "commands.words"),
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
    assert seen_rooms("learning.snapshot") == {"learning.module"}
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
        assert called(node) not in {"eval", "exec", "hydra.utils.instantiate"}
        if called(node) == "torch.load":
            assert {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}["weights_only"] == "True"
        assert ast.unparse(node).count("weights_only=False") == 0


RUN_CODE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
LISTEN = {"socketserver", "http.server", "asyncio", "xmlrpc.server", "wsgiref", "flask", "tornado", "aiohttp"}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_nor_loads_yaml_nor_listens(path: Path) -> None:
    tree = ast.parse(path.read_text())
    seen = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    seen |= {f"{node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert seen & (RUN_CODE | LISTEN) == set()
    calls = [called(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not any(name.startswith("yaml.") or name.endswith((".listen", ".bind", "socket.socket")) for name in calls)


def test_no_option_makes_an_object() -> None:
    """Hydra's ``_target_`` runs what a config names."""
    configs = list((ROOT / "configs").rglob("*.yaml"))
    assert len(configs) > 10
    assert not any(re.search(r"\b_target_\b", path.read_text()) for path in [*configs, *SOURCE.rglob("*.py")])


def writes(node: ast.Call) -> bool:
    """Whether a call writes a file by itself, in one of the ways that are used."""
    name = called(node).rpartition(".")[2]
    if name == "open":
        modes = [each.value for each in node.args if isinstance(each, ast.Constant)]
        return any(isinstance(mode, str) and set(mode) & set("wax+") and len(mode) <= 3 for mode in modes)
    return name in {"write_text", "write_bytes", "save", "save_file", "savefig", "imwrite", "tofile", "save_checkpoint"}


APART = {
    "_open_locked": "the lock, which says who holds it, or nothing",
    "__init__": "a clip under its partial name, renamed when it is whole",
    "flush_to_disk": "what is written already",
    "_encode_deep_tiff": "into memory",
}
"""Functions that open or write a file otherwise, and why that is in order."""


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_file_is_written_whole_or_not_at_all(path: Path) -> None:
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef) and function.name not in APART:
            whole = {
                id(inside)
                for block in ast.walk(function)
                if isinstance(block, ast.With) and "written_whole(" in ast.unparse(block.items[0])
                for inside in ast.walk(block)
            }
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and writes(node):
                    assert id(node) in whole or called(node) in {"logger.save", "save"}, ast.unparse(node)


def test_tensorboard_listens_to_this_machine_alone(tmp_path: Path) -> None:
    code = """
import sys, psutil
from tensorboard import program
board = program.TensorBoard()
board.configure(argv=["tensorboard", "--logdir", sys.argv[1], "--port", "0"])
board.launch()
print({each.laddr.ip for each in psutil.Process().net_connections() if each.status == psutil.CONN_LISTEN})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout in ("{'127.0.0.1'}\n", "{'::1'}\n")
