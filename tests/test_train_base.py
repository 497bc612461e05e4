"""The program that makes the starting weights: its steps, and that it goes on where it was stopped."""

import sys
from pathlib import Path

import pytest
import torch

from impasto.learning.config import Precision
from impasto.learning.features import load_loss_network
from impasto.style_file import load_style
from impasto.transformer import TransformerNet
from scripts import train_base

TINY = ("budget.image_size=32", "budget.batch_size=1", "data.generated=1")


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train_base.py", *words, "--width=4", "--inner=2", "--device=cpu", *TINY])
    assert train_base.main() == 0


def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precision").write_text("fp32")
    run(monkeypatch, f"--work={tmp_path / 'whole'}", f"--output={whole}", "--outer=11")

    def stop(work: Path, base: TransformerNet, *, task: int, loss: float) -> None:
        save(work, base, task=task, loss=loss)
        raise KeyboardInterrupt

    save = train_base.save_state
    monkeypatch.setattr(train_base, "save_state", stop)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, f"--work={tmp_path / 'parts'}", f"--output={parts}", "--outer=11")
    assert not parts.exists()
    monkeypatch.setattr(train_base, "save_state", save)
    run(monkeypatch, f"--work={tmp_path / 'parts'}", f"--output={parts}", "--outer=11")
    ours, theirs = (load_style(path).network.state_dict() for path in (parts, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_style_is_drawn_by_its_seed_and_begins_at_the_base(
    slim_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_base.py", "--width=4", *TINY])
    config = train_base.read_config(train_base.parse_arguments())
    base, network = TransformerNet(4), load_loss_network(weights=slim_weights)
    pictures = [torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))]
    first, again, other = (train_base.new_task(config, base, pictures, network, seed=seed) for seed in (1, 1, 2))
    grams = [module.judge[1].style_grams["relu1_2"] for module in (first, again, other)]
    assert torch.equal(grams[0], grams[1])
    assert not torch.equal(grams[0], grams[2])
    batch = [torch.rand(1, 3, 32, 32)] * 2
    train_base.learn(first, batch, rate=1e-3, precision=Precision.fp32)
    learned = first.transformer.state_dict()
    assert not torch.equal(learned["layers.0.conv.weight"], base.state_dict()["layers.0.conv.weight"])
    for name, value in again.transformer.state_dict().items():
        assert torch.equal(value, base.state_dict()[name])


def test_the_base_moves_a_part_of_the_way() -> None:
    base, learned = TransformerNet(4), TransformerNet(4)
    before = [value.detach().clone() for value in base.parameters()]
    train_base.move(base, learned, part=0.25)
    for moved, old, new in zip(base.parameters(), before, learned.parameters(), strict=True):
        torch.testing.assert_close(moved, 0.75 * old + 0.25 * new)


def test_it_moves_all_the_way_at_first_and_a_tenth_in_the_end() -> None:
    parts = [train_base.part_of_the_way(task, 30) for task in range(31)]
    assert parts[:11] == [1.0] * 11
    assert parts == sorted(parts, reverse=True)
    assert parts[-1] == pytest.approx(0.1)


def test_an_unknown_style_to_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_base.py", "--leave-out", "mosaik"])
    with pytest.raises(ValueError, match=r"^expected styles to leave out of .*mosaic.*, got mosaik$"):
        train_base.read_pictures(train_base.parse_arguments())
