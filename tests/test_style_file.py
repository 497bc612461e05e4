"""A style file gives back what was saved, and nothing else passes for one."""

import json
import os
import re
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from impasto.metadata import StyleFileError
from impasto.style_file import SHIPPED, load_style, save_style
from impasto.transformer import TransformerNet

Metadata = dict[str, Any]


def expect(path: Path, message: str, *, error: type[Exception] = StyleFileError) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        load_style(path)


def rewrite(path: Path, *, metadata: object, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a style file past the checks of save_style."""
    save_file(dict(weights or load_file(path)), path, metadata={"impasto": json.dumps(metadata)})


def save_checkpoint(path: Path, network: nn.Module, metadata: object) -> None:
    state = {f"average.{key}": value for key, value in network.state_dict().items()}
    state |= {f"network.{key}": torch.zeros_like(value) for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "impasto": metadata, "epoch": 0}, path)


class TestRoundTrip:
    def test_the_same_pictures_come_out(self, style_path: Path, network: TransformerNet) -> None:
        images = torch.rand(1, 3, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(load_style(style_path).network(images), network(images), atol=0, rtol=0)

    def test_the_network_is_ready_for_use(self, style_path: Path) -> None:
        network = load_style(style_path).network
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}

    def test_the_metadata_come_back(self, style_path: Path, metadata: Metadata) -> None:
        style = load_style(style_path)
        assert style.metadata == metadata
        assert style.name == "zigzag"

    def test_half_precision_and_channels_last_are_saved_as_float32(
        self, tmp_path: Path, network: TransformerNet, metadata: Metadata
    ) -> None:
        path = tmp_path / "a.safetensors"
        save_style(path, network.half().to(memory_format=torch.channels_last), metadata=metadata)
        assert {value.dtype for value in load_file(path).values()} == {torch.float32}
        assert load_style(path).network(torch.rand(1, 3, 8, 8)).dtype == torch.float32

    def test_loading_spends_no_random_numbers(self, style_path: Path) -> None:
        torch.manual_seed(1)
        expected = torch.rand(1)
        torch.manual_seed(1)
        load_style(style_path)
        assert torch.rand(1) == expected

    def test_a_run_folder_gives_its_style_file(self, style_path: Path, metadata: Metadata) -> None:
        (style_path.parent / "last.ckpt").write_text("not looked at")
        assert load_style(style_path.parent).metadata == metadata

    def test_a_checkpoint_gives_its_averaged_weights(
        self, tmp_path: Path, network: TransformerNet, metadata: Metadata
    ) -> None:
        save_checkpoint(tmp_path / "last.ckpt", network, metadata)
        images = torch.rand(1, 3, 16, 16)
        for path in (tmp_path / "last.ckpt", tmp_path):  # also a run folder that has no style file yet
            style = load_style(path)
            assert style.metadata == metadata
            with torch.no_grad():
                torch.testing.assert_close(style.network(images), network(images), atol=0, rtol=0)


NOTHING = "expected a style's name, a style file, a checkpoint or a run folder, found nothing"


class TestNotThere:
    def test_nothing_like_it(self, tmp_path: Path) -> None:
        path = tmp_path / "qqq"
        message = f"{NOTHING} at {str(path)!r}: check the path"
        expect(path, message, error=FileNotFoundError)

    @pytest.mark.parametrize(
        ("name", "closest"),
        [
            ("runs/zigzg", "runs/zigzag"),
            ("runs/zigzag/zigzg.safetensors", "runs/zigzag/zigzag.safetensors"),
            ("runs/zigzg/zigzag.safetensors", "runs/zigzag"),
            ("zig_zag", "runs/zigzag"),
            ("rums/zigzag", "runs"),
        ],
    )
    def test_the_closest_is_named(
        self, style_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, closest: str
    ) -> None:
        monkeypatch.chdir(style_path.parents[2])
        path, found = str(Path(name)), str(Path(closest))
        message = f"{NOTHING} at {path!r}: did you mean {found!r}?"
        expect(Path(name), message, error=FileNotFoundError)

    def test_an_empty_run_folder(self, tmp_path: Path) -> None:
        message = (
            f"expected a style file or last.ckpt in the run folder {str(tmp_path)!r}, found neither: "
            "name the folder of a run that was trained"
        )
        expect(tmp_path, message, error=FileNotFoundError)

    def test_several_style_files(self, style_path: Path) -> None:
        folder = style_path.parent
        (folder / "copy.safetensors").write_bytes(style_path.read_bytes())
        message = (
            f"expected one style file in {str(folder)!r}, got copy.safetensors, zigzag.safetensors: name the one to use"
        )
        expect(folder, message)


class TestShipped:
    """The trained styles that come with impasto, by their bare names."""

    @pytest.mark.parametrize("name", sorted(path.stem for path in (SHIPPED.parent / "styles").glob("*.jpg")))
    def test_each_picture_has_one(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        style = load_style(Path(name))
        assert (style.name, style.network.width) == (name, 16)
        assert (SHIPPED / f"{name}.safetensors").stat().st_size < 900_000
        grey = torch.full((1, 3, 16, 16), 0.5)
        assert style.network(grey).shape == grey.shape

    def test_a_misspelt_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        expect(Path("mosaik"), f"{NOTHING} at 'mosaik': did you mean 'mosaic'?", error=FileNotFoundError)

    def test_what_lies_in_the_folder_goes_first(
        self, style_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        style_path.parent.rename(tmp_path / "mosaic")
        monkeypatch.chdir(tmp_path)
        assert load_style(Path("mosaic")).name == "zigzag"


def refused(path: Path) -> str:
    return (
        "expected a whole file of plain values and tensors, got a damaged one, another kind, or one that could run "
        f"code: {str(path)!r} was not used; give an earlier checkpoint or train the style again"
    )


class TestDamaged:
    @pytest.mark.parametrize("content", [b"", b"a letter to a friend", b"PK\3\4 a zip"])
    def test_something_else(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.safetensors"
        path.write_bytes(content)
        message = (
            f"expected a style file, got something else in {str(path)!r}: "
            "give a .safetensors file that impasto has trained, a .ckpt checkpoint or a run folder"
        )
        expect(path, message)

    @pytest.mark.parametrize("kept", [20, 1000, -1])
    def test_truncated(self, style_path: Path, kept: int) -> None:
        style_path.write_bytes(style_path.read_bytes()[:kept])
        message = (
            f"expected a whole style file, got a damaged one in {str(style_path)!r}: "
            "copy it again or train the style again"
        )
        expect(style_path, message)

    def test_truncated_checkpoint(self, tmp_path: Path, network: TransformerNet, metadata: Metadata) -> None:
        path = tmp_path / "last.ckpt"
        save_checkpoint(path, network, metadata)
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"a letter", b"", whole[:2000] + bytes(2000) + whole[4000:]):
            path.write_bytes(content)
            expect(path, refused(path))

    def test_a_checkpoint_that_could_run_code(self, tmp_path: Path) -> None:
        path = tmp_path / "last.ckpt"
        torch.save({"state_dict": {}, "impasto": Path("a")}, path)
        expect(path, refused(path))


class TestForeign:
    def message(self, path: Path) -> str:
        return (
            f"expected a file that impasto has trained, got one without impasto's metadata: {str(path)!r}; "
            "train the style with impasto"
        )

    @pytest.mark.parametrize("fields", [None, {"format": "pt"}, {"impasto": "{"}, {"impasto": "[1]"}])
    def test_safetensors_of_others(self, tmp_path: Path, fields: dict[str, str] | None) -> None:
        path = tmp_path / "a.safetensors"
        save_file({"weight": torch.zeros(3)}, path, metadata=fields)
        expect(path, self.message(path))

    @pytest.mark.parametrize("content", [torch.zeros(3), {"weight": 1}, {"state_dict": {}}, {"impasto": {}}])
    def test_checkpoints_of_others(self, tmp_path: Path, content: object) -> None:
        path = tmp_path / "a.ckpt"
        torch.save(content, path)
        expect(path, self.message(path))


class TestUnsound:
    @pytest.mark.parametrize("version", [2, 0, None, "1", True, 1.0])
    def test_an_unknown_format_version(self, style_path: Path, metadata: Metadata, version: object) -> None:
        rewrite(style_path, metadata=metadata | {"format_version": version})
        message = (
            f"expected format_version 1, got {version!r} in {str(style_path)!r}: "
            "use the version of impasto that wrote it, or a newer one"
        )
        expect(style_path, message)

    @pytest.mark.parametrize("width", [0, 257, None, "4", True, 4.0])
    def test_a_width_that_is_none(self, style_path: Path, metadata: Metadata, width: object) -> None:
        rewrite(style_path, metadata=metadata | {"width": width})
        expect(style_path, f"expected a width of 1 to 256, got {width!r} in {str(style_path)!r}: train the style again")

    @pytest.mark.parametrize("size", [0, "448", True, 4.0])
    def test_a_size_of_the_picture_that_is_none(self, style_path: Path, metadata: Metadata, size: object) -> None:
        rewrite(style_path, metadata=metadata | {"style_size": size})
        where = f"{str(style_path)!r}: train the style again"
        expect(style_path, f"expected a style_size of 1 px or more, got {size!r} in {where}")

    @pytest.mark.parametrize("name", ["", None, "a/b", "..", "a\\b", "a\nb"])
    def test_a_name_that_leads_elsewhere(self, style_path: Path, metadata: Metadata, name: object) -> None:
        rewrite(style_path, metadata=metadata | {"style": name})
        message = (
            f"expected a style name that can be part of a file name, got {name!r} in {str(style_path)!r}: "
            "rename the style"
        )
        expect(style_path, message)

    def test_weights_of_another_width(self, style_path: Path, metadata: Metadata) -> None:
        rewrite(style_path, metadata=metadata | {"width": 8})
        message = (
            f"expected the weights of a network of width 8 in {str(style_path)!r}, got 61 that differ, "
            "the first 'layers.0.conv.bias' ((8,), got (4,)): train the style again"
        )
        expect(style_path, message)

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({"extra": torch.zeros(2)}, "'extra' (not expected, got (2,))"),
            ({"layers.0.conv.bias": None}, "'layers.0.conv.bias' ((4,), got none)"),
            ({"layers.0.conv.bias": torch.zeros(5)}, "'layers.0.conv.bias' ((4,), got (5,))"),
        ],
    )
    def test_other_keys_and_shapes(
        self, tmp_path: Path, network: TransformerNet, metadata: Metadata, changes: dict[str, Tensor], found: str
    ) -> None:
        changed = network.state_dict() | changes
        weights = {key: value for key, value in changed.items() if value is not None}
        style, checkpoint = tmp_path / "a.safetensors", tmp_path / "a.ckpt"
        rewrite(style, metadata=metadata, weights=weights)
        state = {f"average.{key}": value for key, value in weights.items()}
        torch.save({"state_dict": state, "impasto": metadata}, checkpoint)
        for path in (style, checkpoint):
            message = (
                f"expected the weights of a network of width 4 in {str(path)!r}, got 1 that differ, "
                f"the first {found}: train the style again"
            )
            expect(path, message)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, style_path: Path, metadata: Metadata, value: float) -> None:
        weights = load_file(style_path)
        weights["layers.0.conv.bias"][0] = value
        rewrite(style_path, metadata=metadata, weights=weights)
        message = (
            f"expected finite weights in {str(style_path)!r}, got NaN or infinity in 'layers.0.conv.bias': "
            "train the style again"
        )
        expect(style_path, message)


class TestSave:
    @pytest.mark.parametrize("change", [{"format_version": 7}, {"width": 8}, {"style": "../a"}])
    def test_nothing_is_written_that_could_not_be_loaded(
        self, style_path: Path, network: TransformerNet, metadata: Metadata, change: Metadata
    ) -> None:
        earlier = style_path.read_bytes()
        with pytest.raises(StyleFileError):
            save_style(style_path, network, metadata=metadata | change)
        assert style_path.read_bytes() == earlier

    def test_a_diverged_network_is_not_saved(self, tmp_path: Path, network: TransformerNet, metadata: Metadata) -> None:
        network.get_parameter("layers.0.conv.bias").data.fill_(torch.nan)
        with pytest.raises(StyleFileError, match=r"^expected finite weights in .*bias': train the style again$"):
            save_style(tmp_path / "a.safetensors", network, metadata=metadata)
        assert os.listdir(tmp_path) == []

    def test_metadata_that_are_not_plain(self, tmp_path: Path, network: TransformerNet, metadata: Metadata) -> None:
        with pytest.raises(TypeError, match="not JSON serializable"):
            save_style(tmp_path / "a.safetensors", network, metadata=metadata | {"commit": Path("a")})
        assert os.listdir(tmp_path) == []

    def test_a_full_disk_leaves_the_earlier_file(
        self, style_path: Path, network: TransformerNet, metadata: Metadata
    ) -> None:
        earlier = style_path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                save_style(style_path, network, metadata=metadata)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert style_path.read_bytes() == earlier
        assert os.listdir(style_path.parent) == [style_path.name]
