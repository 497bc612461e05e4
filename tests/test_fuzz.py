"""Every reader of files, fed with damaged and malicious ones: each is read to the right size or ends in our own error.

Sound files of every kind are changed by Hypothesis: bytes anywhere, and, so that more than the first check is met,
inside what is wrapped: the JSON header of style files, the members of checkpoints, the chunks of PNG files with their
checksums right. 2,000 inputs, the same in every run; ``pytest -m slow tests/test_fuzz.py`` tries 50,000 others.
"""

import faulthandler
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from impasto.images import limit_pixels, read_image, read_pixels
from impasto.learning.features import read_weights
from impasto.learning.photos import coco_photos
from impasto.learning.run_folder import earlier_run
from impasto.painting.clips import ClipReader, Frame
from impasto.painting.export import build_model
from impasto.painting.import_model import import_model
from impasto.painting.onnx_runtime import OnnxPainter
from impasto.painting.painter import Look
from impasto.painting.pictures import read_picture
from impasto.style_file import Style, load_style, save_style
from impasto.transformer import TransformerNet
from tests.clip_files import Clip, write_clip
from tests.test_import_model import Example

INPUTS, MORE_INPUTS = 2_000, 50_000
PATIENCE = 120
"""Seconds after which a reader hangs, however busy the machine."""
OURS = (ValueError, FileNotFoundError)
"""What the library may raise of a bad file."""

Edit = tuple[str, int, bytes]


# ---- how files are changed --------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    0,
    -1,
    1,
    4,
    8,
    2**31,
    2**63,
    10**30,
    1e308,
    "",
    "../x",
    "F32",
    "é\0",
    None,
    True,
    [],
    {},
    [0, 10**12],
    [[[]]],
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "overwrite", "remove", "repeat", "odd"]),
        st.integers(0, 2**20),
        st.one_of(st.sampled_from([b"\xff" * 8, bytes(8), b"../../x", b"\x7f\xff\xff\xff"]), st.binary(max_size=12)),
    ),
    min_size=1,
    max_size=4,
)


def change_bytes(data: bytes, edit: Edit) -> bytes:
    kind, place, piece = edit
    at = place % (len(data) + 1)
    if kind == "flip" and at < len(data):
        return data[:at] + bytes([data[at] ^ (1 << place % 8)]) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    if kind == "remove":
        return data[:at] + data[at + len(piece) :]
    if kind == "repeat":
        return data[:at] + data[at : at + 64] * 2 + data[at + 64 :]
    return data[:at] + piece + data[at if kind == "insert" else at + len(piece) :]


def change_json(value: Any, edit: Edit) -> Any:
    """The same with one value, somewhere inside, replaced by an odd one or taken away."""
    kind, place, piece = edit
    places = [(value, key) for value in _containers(value) for key in _keys(value)]
    if not places:
        return ODD[place % len(ODD)]
    inside, key = places[place % len(places)]
    if kind in {"cut", "remove"}:
        del inside[key]
    else:
        inside[key] = piece.hex() if kind == "overwrite" else ODD[(place // 7 + len(piece)) % len(ODD)]
    return value


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for each in value.values() if isinstance(value, dict) else value:
            yield from _containers(each)


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def change_header(data: bytes, edit: Edit) -> bytes:
    """A safetensors file with another header of the right length."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    facts = header.get("__metadata__")
    if isinstance(facts, dict) and isinstance(facts.get("impasto"), str) and edit[1] % 2:
        facts["impasto"] = json.dumps(change_json(json.loads(facts["impasto"]), edit))
    else:
        header = change_json(header, edit)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def change_member(data: bytes, edit: Edit) -> bytes:
    """A zip file with right checksums and one part changed, mostly the first, which says what the others are."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        names = old.namelist()
        chosen = names[0] if edit[1] % 4 else names[edit[1] % len(names)]
        for name in names:
            content = old.read(name)
            new.writestr(name, change_bytes(content, edit) if name == chosen else content)
    return changed.getvalue()


def change_chunk(data: bytes, edit: Edit) -> bytes:
    """A PNG file with right checksums and one chunk changed."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    chosen = edit[1] // 64 % max(1, len(chunks))
    parts = [(name, change_bytes(body, edit) if i == chosen else body) for i, (name, body) in enumerate(chunks)]
    whole = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in parts)
    return data[:8] + b"".join(whole)


def change_text(data: bytes, edit: Edit) -> bytes:
    return json.dumps(change_json(json.loads(data), edit)).encode()


# ---- what reads them --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A file that is sound, what reads one and checks what it got, and how its inside is changed."""

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], None]
    inside: Callable[[bytes, Edit], bytes] = change_bytes


FACTS = {"format_version": 1, "style": "zigzag", "width": 4, "losses": {"content": 0.25}, "commit": None, "steps": 2}


def network() -> TransformerNet:
    torch.manual_seed(0)
    return TransformerNet(4).requires_grad_(False)


def make_style(path: Path) -> None:
    save_style(path, network(), metadata=FACTS, dtype=torch.float16)


def make_checkpoint(path: Path) -> None:
    state = {f"average.{key}": value for key, value in network().state_dict().items()}
    more = {"optimizer_states": [{"state": {0: {"step": torch.zeros(())}}}], "facts": {"seed": 0}, "good": []}
    torch.save({"state_dict": state, "impasto": FACTS, "global_step": 2, "faults": {"skipped": 0}, **more}, path)


def read_style(path: Path) -> None:
    style = load_style(path)
    assert style.network(torch.zeros(1, 3, 9, 11)).shape == (1, 3, 9, 11)
    assert Path(f"a_{style.name}.png").parent == Path()


def read_run(path: Path) -> None:
    with earlier_run(path.parent) as earlier:
        assert isinstance(earlier["facts"], dict)


def make_example(path: Path, *, new: bool = True) -> None:
    torch.manual_seed(0)
    torch.save(Example(1).state_dict(), path, _use_new_zipfile_serialization=new)


def read_example(path: Path) -> None:
    import_model(path, path.with_name("imported.safetensors"))
    read_style(path.with_name("imported.safetensors"))


def make_weights(path: Path) -> None:
    weights = {"features.0.weight": torch.ones(4, 3, 3, 3), "features.0.bias": torch.zeros(4)}
    if path.suffix == ".safetensors":
        path.write_bytes(save(weights))
    else:
        torch.save(weights, path)


def read_tensors(path: Path) -> None:
    assert all(value.numel() <= path.stat().st_size for value in read_weights(path).values())


def make_onnx(path: Path) -> None:
    path.write_bytes(build_model(Style(network(), FACTS), half=False).SerializeToString())


def read_onnx(path: Path) -> None:
    painted = OnnxPainter(path).paint(np.zeros((9, 11, 3), np.uint8), Look())
    assert painted.shape == (9, 11, 3)
    assert painted.dtype == np.uint8


def make_picture(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    Image.fromarray(pixels).save(path, exif=exif)


def make_deep(path: Path) -> None:
    Image.fromarray(np.arange(63, dtype=np.uint16).reshape(7, 9) * 900).save(path)


def make_animation(path: Path) -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)


def read_photo(path: Path) -> None:
    picture, image, pixels = read_picture(path), read_image(path), read_pixels(path, at_least=8)
    assert picture.pixels.shape[:2] == image.shape[-2:] == pixels.shape[-2:]
    assert picture.pixels.size <= 3 * MOST_PIXELS


def make_clip(path: Path) -> None:
    write_clip(path, Clip(has_sound=True))


def read_clip(path: Path) -> None:
    with ClipReader(path) as clip:
        sizes = {item.pixels.shape for item in clip.read() if isinstance(item, Frame)}
    assert len(sizes) <= 1


def make_annotations(path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 5} for number in range(3)]
    path.write_text(json.dumps({"info": {"year": 2017}, "images": images, "annotations": [{"id": 1, "bbox": [0, 1]}]}))


def read_annotations(path: Path) -> None:
    coco = path.parent / "coco"
    for folder in ("val2017", "annotations"):
        (coco / folder).mkdir(parents=True, exist_ok=True)
    (coco / "val2017" / "1.jpg").touch()
    (coco / "annotations" / "instances_val2017.json").write_bytes(path.read_bytes())
    assert coco_photos(coco) == [coco / "val2017" / "1.jpg"]


MOST_PIXELS = 1_000_000
KINDS = [
    Kind("a.safetensors", make_style, read_style, change_header),
    Kind("a.ckpt", make_checkpoint, read_style, change_member),
    Kind("last.ckpt", make_checkpoint, read_run, change_member),
    Kind("new.pth", make_example, read_example, change_member),
    Kind("old.pth", lambda path: make_example(path, new=False), read_example),
    Kind("weights.pth", make_weights, read_tensors, change_member),
    Kind("weights.safetensors", make_weights, read_tensors, change_header),
    Kind("a.onnx", make_onnx, read_onnx),
    Kind("a.png", make_picture, read_photo, change_chunk),
    Kind("deep.png", make_deep, read_photo, change_chunk),
    Kind("a.jpg", make_picture, read_photo),
    Kind("a.webp", make_picture, read_photo),
    Kind("a.tif", make_picture, read_photo),
    Kind("a.gif", make_animation, read_photo),
    Kind("a.mp4", make_clip, read_clip),
    Kind("a.json", make_annotations, read_annotations, change_text),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    former = Image.MAX_IMAGE_PIXELS
    limit_pixels(MOST_PIXELS)
    yield tmp_path_factory.mktemp("fuzz")
    Image.MAX_IMAGE_PIXELS = former


def try_changed(kind: Kind, folder: Path, *, count: int, same: bool) -> None:
    """Read so many changed files; raises what is none of our errors, and exits where a reader hangs."""
    path = folder / kind.name
    kind.make(path)
    sound = path.read_bytes()
    kind.read(path)

    @settings(
        max_examples=count,
        derandomize=same,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inside=edits, outside=st.one_of(st.just([]), edits))
    def attempt(inside: list[Edit], outside: list[Edit]) -> None:
        data = sound
        for edit in inside[:1] if kind.inside is not change_bytes else inside:
            data = kind.inside(data, edit)
        for edit in outside:
            data = change_bytes(data, edit)
        path.write_bytes(data)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        said = "nothing"
        try:
            kind.read(path)
        except OURS as error:
            said = str(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        assert 0 < len(said) < 2000

    attempt()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_changed_file_is_read_or_refused(kind: Kind, folder: Path) -> None:
    try_changed(kind, folder, count=INPUTS // len(KINDS), same=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_many_more_changed_files(kind: Kind, folder: Path) -> None:
    try_changed(kind, folder, count=MORE_INPUTS // len(KINDS), same=False)


def make_note(path: Path) -> None:
    path.write_bytes(b"sound")


def read_note(path: Path) -> None:
    if path.read_bytes() != b"sound":
        raise KeyError(path.name)


def test_a_reader_that_fails_otherwise_is_found_out(folder: Path) -> None:
    with pytest.raises(KeyError, match=r"note\.txt"):
        try_changed(Kind("note.txt", make_note, read_note), folder, count=20, same=True)


# ---- what claims to be large ------------------------------------------------------------------------------------


def claim_in_header(path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [25 * 10**9], "data_offsets": [0, 10**11]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(99))


def claim_long_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 10**11) + b"{" + bytes(99))


def claim_width(path: Path) -> None:
    facts = {"impasto": json.dumps(FACTS | {"width": 100_000})}
    path.write_bytes(save({"a": torch.zeros(3)}, metadata=facts))


def claim_width_in_example(path: Path) -> None:
    torch.save(Example(1).state_dict() | {"conv1.conv2d.bias": torch.zeros(1).expand(100_000)}, path)


def claim_views(path: Path) -> None:
    """Tensors of one number each, which say they are the large ones of a network of width 256."""
    with torch.device("meta"):
        state = {f"average.{key}": value for key, value in TransformerNet(256).state_dict().items()}
    views = {key: torch.zeros(1).expand(value.shape) for key, value in state.items()}
    torch.save({"state_dict": views, "impasto": FACTS | {"width": 4}}, path)


def claim_packed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**9))


def claim_pixels(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    )


def claim_brackets(path: Path) -> None:
    path.write_bytes(save({"a": torch.zeros(3)}, metadata={"impasto": "[" * 10**6}))


def peak_memory(*, start_anew: bool = False) -> int:
    """The most bytes that the process has held, since the last time it was started anew."""
    if start_anew:
        Path("/proc/self/clear_refs").write_text("5")
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak anew")
@pytest.mark.parametrize(
    ("name", "claim", "read"),
    [
        ("a.safetensors", claim_in_header, read_style),
        ("b.safetensors", claim_long_header, read_style),
        ("c.safetensors", claim_width, read_style),
        ("d.safetensors", claim_brackets, read_style),
        ("e.safetensors", claim_in_header, read_tensors),
        ("a.ckpt", claim_views, read_style),
        ("b.ckpt", claim_packed, read_style),
        ("a.pth", claim_width_in_example, read_example),
        ("b.pth", claim_packed, read_example),
        ("c.pth", claim_packed, read_tensors),
        ("a.png", claim_pixels, read_photo),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_claims_to_be_large_is_refused_before_it_takes_memory(
    name: str, claim: Callable[[Path], None], read: Callable[[Path], None], folder: Path
) -> None:
    claim(folder / name)
    before = peak_memory(start_anew=True)
    with pytest.raises(ValueError, match=r"^expected "):
        read(folder / name)
    assert peak_memory() < before + 100 * 2**20
