"""The program that makes the starting weights: many styles at once, and that it goes on where it was stopped."""

import copy
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from impasto.learning.config import Precision
from impasto.learning.module import StyleModule
from impasto.style_file import load_style
from impasto.transformer import InstanceNorm, TransformerNet
from scripts import train_base

TINY = ("budget.image_size=32", "data.generated=1", "precision=fp32")


def run(monkeypatch: pytest.MonkeyPatch, *words: str, status: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["train_base.py", *words, "--width=4", "--styles=3", "--device=cpu", *TINY])
    assert train_base.main() == status


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_base, "SAVE_EVERY", 4)
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    run(monkeypatch, f"--work={tmp_path / 'whole'}", f"--output={whole}", "--steps=7")

    def stop(*arguments: Any, **named: Any) -> None:
        save(*arguments, **named)
        raise KeyboardInterrupt

    save = train_base.save_state
    monkeypatch.setattr(train_base, "save_state", stop)
    run(monkeypatch, f"--work={tmp_path / 'parts'}", f"--output={parts}", "--steps=7", status=130)
    assert not parts.exists()
    monkeypatch.setattr(train_base, "save_state", save)
    run(monkeypatch, f"--work={tmp_path / 'parts'}", f"--output={parts}", "--steps=8", status=2)
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"^error: expected the arguments of the run in .*'7'.*, got .*'8'.* --work$", said)
    run(monkeypatch, f"--work={tmp_path / 'parts'}", f"--output={parts}", "--steps=7")
    ours, theirs = (load_style(path).network.state_dict() for path in (parts, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[StyleModule]:
    monkeypatch.setattr(sys, "argv", ["train_base.py", "--width=4", "--styles=3", *TINY])
    arguments = train_base.parse_arguments()
    config = train_base.read_config(arguments)
    pictures = [torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(number)) for number in range(2)]
    return train_base.make_lessons(config, TransformerNet(4), train_base.draw_styles(pictures, arguments))


def test_every_style_is_another_one(lessons: list[StyleModule]) -> None:
    grams = [lesson.judge[1].style_grams["relu1_2"] for lesson in lessons]
    assert not any(torch.equal(one, other) for one, other in zip(grams, grams[1:] + grams[:1], strict=True))


def test_a_step_moves_the_shared_convolutions_and_the_norms_of_the_style_drawn(
    lessons: list[StyleModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = train_base.read_config(train_base.parse_arguments())
    optimizer = train_base.make_optimizer(config, lessons[0].transformer, lessons)
    before = [[each.clone() for each in train_base.norms_of(lesson.transformer)] for lesson in lessons]
    first = lessons[0].transformer.get_parameter("layers.0.conv.weight").clone()
    loss = train_base.learn(lessons, optimizer, torch.rand(1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    assert loss > 0
    convolutions = [[m.weight for m in lesson.transformer.modules() if isinstance(m, nn.Conv2d)] for lesson in lessons]
    assert all(one is other for one, other in zip(convolutions[0], convolutions[2], strict=True))
    assert not torch.equal(convolutions[1][0], first)
    drawn = int(torch.randint(3, (), generator=torch.Generator().manual_seed(0)))
    for number, (lesson, old) in enumerate(zip(lessons, before, strict=True)):
        moved = [not torch.equal(a, b) for a, b in zip(train_base.norms_of(lesson.transformer), old, strict=True)]
        assert all(moved) if number == drawn else not any(moved)


def test_in_bf16_the_loss_is_nearly_the_same(lessons: list[StyleModule]) -> None:
    config = train_base.read_config(train_base.parse_arguments())
    photos, losses = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), []
    for precision in (Precision.fp32, Precision.bf16):
        copies = copy.deepcopy(lessons)
        optimizer = train_base.make_optimizer(config, copies[0].transformer, copies)
        generator = torch.Generator().manual_seed(0)
        losses.append(train_base.learn(copies, optimizer, photos, generator=generator, precision=precision))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_no_path_of_the_machine_is_in_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train_base.py", "data=folder", "data.root=/home/me/coco", "--pictures", "/home/me/art/", "--work=/tmp/w"]
    words += ["--seed=1", "--output", "/tmp/b.safetensors"]
    monkeypatch.setattr(sys, "argv", words)
    facts = train_base.describe(train_base.parse_arguments())
    assert (facts["pictures"], facts["options"], facts["seed"]) == (["art"], ["data=folder", "data.root=coco"], 1)
    assert "/home" not in str(facts)
    assert "/tmp" not in str(facts)


def test_a_step_whose_numbers_break_is_left_out(lessons: list[StyleModule]) -> None:
    config = train_base.read_config(train_base.parse_arguments())
    optimizer = train_base.make_optimizer(config, lessons[0].transformer, lessons)
    before = {name: value.clone() for name, value in lessons[0].transformer.state_dict().items()}
    broken = torch.full((1, 3, 32, 32), torch.inf)
    train_base.learn(lessons, optimizer, broken, generator=torch.Generator().manual_seed(0))
    for name, value in lessons[0].transformer.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_base_has_the_shared_convolutions_and_the_mean_of_the_norms(
    lessons: list[StyleModule],
) -> None:
    for number, lesson in enumerate(lessons):
        for each in train_base.norms_of(lesson.transformer):
            each.data.fill_(number)
    base = train_base.mean_of(lessons)
    for layer in base.modules():
        if isinstance(layer, InstanceNorm):
            assert torch.equal(layer.weight, torch.ones_like(layer.weight))
    shared = lessons[0].transformer.get_parameter("layers.1.conv.weight")
    assert torch.equal(base.get_parameter("layers.1.conv.weight"), shared)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    factors = [train_base.rate_factor(step, 1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 30)
    assert max(factors) > 0.99
    assert factors[30:] == sorted(factors[30:], reverse=True)
    assert factors[-1] == 0


def test_an_unknown_style_to_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_base.py", "--leave-out", "mosaik"])
    with pytest.raises(ValueError, match=r"^expected styles to leave out of .*mosaic.*, got mosaik$"):
        train_base.read_pictures(train_base.parse_arguments())
