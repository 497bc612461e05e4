"""A model of PyTorch's fast_neural_style example, once imported, paints what it painted there.

The network here is written from that example's published design, and shares nothing with impasto's.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from impasto.cli import main
from impasto.metadata import StyleFileError
from impasto.painting.import_model import import_model
from impasto.style_file import load_style


class PaddedConv(nn.Module):
    def __init__(self, channels: tuple[int, int], kernel: int, stride: int = 1, scale: int = 1) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Upsample(scale_factor=scale), nn.ReflectionPad2d(kernel // 2))
        self.conv2d = nn.Conv2d(*channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2d(self.before(x))
        return y


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = PaddedConv((channels, channels), 3), PaddedConv((channels, channels), 3)
        self.in1, self.in2 = nn.InstanceNorm2d(channels, affine=True), nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.in2(self.conv2(torch.relu(self.in1(self.conv1(x)))))
        return y


class Example(nn.Module):
    """Images from 0 to 255 in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.conv1, self.conv2 = PaddedConv((3, width), 9), PaddedConv((width, widths[1]), 3, 2)
        self.conv3 = PaddedConv((widths[1], widths[2]), 3, 2)
        for number, channels in enumerate([*widths, widths[1], width], start=1):
            self.add_module(f"in{number}", nn.InstanceNorm2d(channels, affine=True))
        for number in range(1, 6):
            self.add_module(f"res{number}", Residual(widths[2]))
        self.deconv1 = PaddedConv((widths[2], widths[1]), 3, scale=2)
        self.deconv2 = PaddedConv((widths[1], width), 3, scale=2)
        self.deconv3 = PaddedConv((width, 3), 9)

    def forward(self, x: Tensor) -> Tensor:
        for number in (1, 2, 3):
            x = self._step(x, f"conv{number}", f"in{number}")
        for number in range(1, 6):
            x = self.get_submodule(f"res{number}")(x)
        x = self._step(self._step(x, "deconv1", "in4"), "deconv2", "in5")
        y: Tensor = self.deconv3(x)
        return y

    def _step(self, x: Tensor, conv: str, norm: str) -> Tensor:
        return torch.relu(self.get_submodule(norm)(self.get_submodule(conv)(x)))


@pytest.fixture
def example() -> Example:
    torch.manual_seed(0)
    example = Example(4).requires_grad_(False)
    for name, value in example.named_parameters():
        if "in" in name.split(".")[-2]:
            value.uniform_(0.5, 1.5)
    # As in a trained one, the picture fills 0 to 255.
    example.deconv3.conv2d.get_parameter("weight").mul_(100)
    example.deconv3.conv2d.get_parameter("bias").fill_(127)
    return example


@pytest.fixture
def state(example: Example) -> dict[str, Any]:
    return dict(example.state_dict())


@pytest.mark.parametrize("is_old", [False, True])
def test_the_same_pixels_come_out(tmp_path: Path, example: Example, state: dict[str, Any], *, is_old: bool) -> None:
    if is_old:  # files of 2017: statistics that nobody used, in the format before zip
        state |= {f"in{number}.running_mean": torch.zeros(4) for number in range(1, 6)}
        state |= {"res3.in2.running_var": torch.ones(16), "in1.num_batches_tracked": torch.tensor(1)}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=not is_old)
    import_model(tmp_path / "old.pth", tmp_path / "new.safetensors")
    style = load_style(tmp_path / "new.safetensors")
    pixels = torch.randint(256, (2, 3, 36, 44), generator=torch.Generator().manual_seed(1)).float()
    theirs, ours = example(pixels), style.network(pixels / 255) * 255
    assert theirs.std() > 20
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)
    assert style.metadata == {"format_version": 1, "style": "new", "width": 4, "imported_from": "old.pth"}


def fail(path: Path, message: str, *, error: type[Exception] = StyleFileError) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        import_model(path, path.with_name("new.safetensors"))
    assert not path.with_name("new.safetensors").exists()


OTHER = "expected the weights of PyTorch's fast_neural_style example, got "


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"conv1.conv2d.bias": torch.zeros(300)}, "no weight 'conv1.conv2d.bias' of one to 256 channels"),
        ({"conv1.conv2d.bias": "x"}, "no weight 'conv1.conv2d.bias' of one to 256 channels"),
        ({"conv2.conv2d.weight": torch.zeros(8, 4, 5, 5)}, "'layers.1.conv.weight' of shape (8, 4, 5, 5)"),
        ({"in5.bias": 3}, "'layers.9.layer.norm.bias' of shape None"),
        ({"fc.weight": torch.zeros(1)}, "'fc.weight' of shape (1,)"),
    ],
)
def test_another_network(tmp_path: Path, state: dict[str, Any], change: dict[str, Any], what: str) -> None:
    torch.save(state | change, tmp_path / "a.pth")
    fail(tmp_path / "a.pth", f"{OTHER}{what} in {str(tmp_path / 'a.pth')!r}: other networks cannot be imported")


def test_no_weights_at_all(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "a.pth")
    fail(tmp_path / "a.pth", f"{OTHER}a list in {str(tmp_path / 'a.pth')!r}: other networks cannot be imported")


def test_weights_that_are_no_numbers(tmp_path: Path, state: dict[str, Any]) -> None:
    torch.save(state | {"in2.weight": torch.full((8,), torch.nan)}, tmp_path / "a.pth")
    target = str(tmp_path / "new.safetensors")
    fail(
        tmp_path / "a.pth",
        f"expected finite weights in {target!r}, got NaN or infinity in 'layers.1.norm.weight': train the style again",
    )


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


def test_a_file_that_could_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pth"
    for is_zip in (True, False):
        torch.save({"conv1.conv2d.bias": Hostile()}, path, _use_new_zipfile_serialization=is_zip)
        fail(
            path,
            "expected a whole file of plain values and tensors, got a damaged one, another kind, or one that could run "
            f"code: {str(path)!r} was not used; copy it again, or save the network's state_dict()",
        )
    assert not Path("pwned").exists()


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_cut_file(tmp_path: Path, state: dict[str, Any], *, is_zip: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:length])
        with pytest.raises(StyleFileError, match=r"^expected a whole file of plain values and tensors, got a damaged"):
            import_model(path, tmp_path / "new.safetensors")


class TestCommand:
    def test_it_prints_where_the_style_is(
        self, tmp_path: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        torch.save(state, tmp_path / "a.pth")
        assert main(["import", str(tmp_path / "a.pth"), str(tmp_path / "b.safetensors")]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'b.safetensors'}\n"
        assert load_style(tmp_path / "b.safetensors").name == "b"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["a.pth", "b.safetensors"], "expected a model file, found none at 'a.pth': check the path"),
            (
                ["a.pth", "b.pth"],
                "expected a file ending in .safetensors to write, got 'b.pth': choose another name",
            ),
            (["a.pth", "b", "--half"], "expected an option (--help), got '--half': did you mean '--help'?"),
        ],
    )
    def test_bad_input(
        self,
        tmp_path: Path,
        words: list[str],
        message: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["import", *words]) == 2
        assert capsys.readouterr().err == f"error: {message}\n"
