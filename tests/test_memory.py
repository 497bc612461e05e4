"""Too little memory is one line, before the start where it is certain; what might work is never refused."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.cli import main
from impasto.learning import memory as room
from impasto.learning.memory import check_memory
from impasto.learning.training import describe_lack
from impasto.memory import is_out_of_memory
from tests.test_config import compose_config
from tests.test_module import make_module


class TestRecognition:
    def test_what_the_allocator_of_the_cpu_raises(self) -> None:
        with pytest.raises(RuntimeError) as caught:
            torch.empty(2**46)
        assert is_out_of_memory(caught.value)

    @pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")])
    def test_what_has_a_type_of_its_own(self, error: Exception) -> None:
        assert is_out_of_memory(error)

    def test_a_size_beyond_all_counting(self) -> None:
        with pytest.raises(RuntimeError) as caught:
            torch.empty(3, 2**62)
        assert is_out_of_memory(caught.value)

    @pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("std::bad_alloc"), OSError()])
    def test_nothing_else(self, error: Exception) -> None:
        assert not is_out_of_memory(error)


class TestBound:
    @pytest.mark.parametrize("bf16", [False, True])
    @pytest.mark.parametrize("stability", [0.0, 1.0])
    def test_it_is_less_than_what_a_larger_photo_keeps_and_not_by_much(self, bf16: bool, stability: float) -> None:
        module = make_module(stability=stability)
        small, large = (room._kept_bytes(module, size, bf16=bf16) for size in room._SIZES)
        bound = room._CERTAIN * (large - small) / (128**2 - 64**2) * 320**2
        kept = room._kept_bytes(module, 320, bf16=bf16)
        assert 0.8 * kept < bound < kept

    def test_what_fits_passes(self) -> None:
        check_memory(make_module(), photos=1, size=256, bf16=False)

    def test_what_cannot_fit_is_told(self) -> None:
        with pytest.raises(MemoryError, match=r"^a step takes more than \d+\.\d GB, and \d+\.\d GB are free$"):
            check_memory(make_module(), photos=1_000, size=4_096, bf16=False)


def test_a_training_is_refused_before_it_begins(
    tmp_path: Path, slim_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # given back at the end
    Path("photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (36, 36, 3), np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    tiny = [
        *("style=custom", "style.name=mine", "style.image=photos/0.png", "style.size=32", "network.width=4"),
        *("data=folder", "data.root=photos", "precision=fp32", "device=cpu", "run_dir=run"),
        *("budget.steps=2", "budget.image_size=2048", "budget.batch_size=1000", f"loss_network.weights={slim_weights}"),
    ]
    assert main(["train", *tiny]) == 2
    assert capsys.readouterr().err == (
        "error: expected memory for 1000 of 1000 photos of 2048 px at a time and a style picture of 32 px, got too "
        "little: lower budget.micro_batch_size (which changes no result), budget.batch_size, budget.image_size or "
        "style.size\n"
    )
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("batch_size", "micro_batch_size", "options"),
    [(1, None, "budget.image_size"), (4, 1, "budget.batch_size, budget.image_size")],
)
def test_what_is_one_already_cannot_be_lowered(batch_size: int, micro_batch_size: int | None, options: str) -> None:
    config = compose_config(f"budget.batch_size={batch_size}", "budget.image_size=1024")
    config.budget.micro_batch_size = micro_batch_size
    assert describe_lack(config) == (
        f"expected memory for 1 of {batch_size} photos of 1024 px at a time and a style picture of 384 px, got too "
        f"little: lower {options} or style.size"
    )
