"""A step moves the transformer and its average, nothing else, and a checkpoint is a style."""

import copy
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from impasto.learning.faults import find_broken_layer
from impasto.learning.losses import LossOptions, PerceptualLoss, Scaling, gram_matrix
from impasto.learning.module import StyleModule
from impasto.learning.muon import Muon
from impasto.style_file import load_style
from impasto.transformer import TransformerNet
from tests import processes
from tests.conftest import random_judge

CONTENT, STYLE = "relu2_1", "relu1_1"

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def loader(batches: list[Tensor]) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type] # a list will do


def make_module(
    metadata: dict[str, Any] | None = None, *, steps: int = 20, scaling: Scaling = "balanced", **options: Any
) -> StyleModule:
    loss_network = random_judge(((4,), (6,), (8,)))
    style = (torch.arange(32) // 4 % 2).float().expand(1, 3, 32, 32)
    loss = PerceptualLoss(
        {STYLE: gram_matrix(loss_network(style, [STYLE])[STYLE])},
        LossOptions(
            {CONTENT: 1.0}, {STYLE: 1.0}, content_weight=0.5, style_weight=2.0, tv_weight=0.25, scaling=scaling
        ),
    )
    torch.manual_seed(0)
    options = {"learning_rate": 3e-3, "decay": False, **options}
    return StyleModule(TransformerNet(4), loss_network, loss, steps=steps, metadata=metadata, **options)


@pytest.fixture
def batch() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def fit(module: StyleModule, batches: list[Tensor], *callbacks: Callback) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    trainer.fit(module, loader(batches), loader([torch.zeros(1, 3, 32, 32)]))
    return trainer


class Watch(Callback):
    """Keeps what was logged, and the weights, after every step."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.weights: list[list[Tensor]] = []
        self.averages: list[list[Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.weights.append(copied(pl_module.transformer))
        self.averages.append(copied(pl_module.average))


def copied(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


class TestStep:
    def test_it_moves_every_weight_of_the_transformer_and_none_of_the_loss_network(self, batch: Tensor) -> None:
        module = make_module()
        loss_network, loss = module.judge
        before, frozen, grams = copied(module.transformer), copied(loss_network), copy.deepcopy(loss.style_grams)
        fit(module, [batch] * 2)
        moved = zip(module.transformer.named_parameters(), before, strict=True)
        # A constant before an instance normalisation is taken away again: such biases have no gradient.
        still = [name for (name, parameter), old in moved if torch.equal(parameter, old)]
        assert all(name.endswith("conv.bias") for name in still)
        assert_same(copied(loss_network), frozen)
        assert torch.equal(loss.style_grams[STYLE], grams[STYLE])

    def test_the_loss_falls(self, batch: Tensor) -> None:
        watch = Watch()
        fit(make_module(), [batch] * 20, watch)
        losses = [logged["train/loss"] for logged in watch.logged]
        assert losses[-1] < 0.5 * losses[0]
        assert all(math.isfinite(loss) for loss in losses)

    def test_photos_are_looked_at_no_deeper_than_their_loss_needs(self, batch: Tensor) -> None:
        module = make_module()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.loss_terms(batch, batch)
        to_content = 2 * 9 * (3 * 4 * 32 * 32 + 4 * 6 * 16 * 16)  # conv1_1 and conv2_1; conv3_1 nobody asks for
        gram = 2 * 4 * 4 * 32 * 32
        assert counter.get_total_flops() == 2 * (2 * to_content + gram)  # two images, photo and result

    def test_no_gradient_is_kept_for_the_photos(self, batch: Tensor) -> None:
        stylized = torch.rand_like(batch).requires_grad_()
        photos = batch.clone().requires_grad_()
        total = make_module().loss_terms(photos, stylized).total
        of_photos, of_stylized = torch.autograd.grad(total, [photos, stylized], allow_unused=True)
        assert (of_photos is None, bool(of_stylized.abs().sum() > 0)) == (True, True)

    def test_what_is_logged(self, batch: Tensor) -> None:
        watch = Watch()
        fit(make_module(learning_rate=0.001, warm_up=3), [batch], watch)
        logged = watch.logged[0]
        assert logged.keys() == {
            *("train/loss", "train/content", "train/style", "train/tv"),
            *("train/content_unweighted", "train/style_unweighted", "train/tv_unweighted"),
            *("train/gradient_norm", "train/learning_rate"),
        }
        for name, weight in (("content", 0.5), ("style", 2.0), ("tv", 0.25)):
            assert logged[f"train/{name}"] == pytest.approx(weight * logged[f"train/{name}_unweighted"])
        terms = (logged[f"train/{name}"] for name in ("content", "style", "tv"))
        assert logged["train/loss"] == pytest.approx(sum(terms))
        assert logged["train/learning_rate"] == pytest.approx(0.001 / 4)
        assert logged["train/gradient_norm"] > 0

    def test_validation_judges_the_averaged_weights(self, batch: Tensor) -> None:
        module = make_module()
        with torch.no_grad():
            for parameter in module.transformer.parameters():
                parameter.zero_()
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        (logged,) = trainer.validate(module, loader([batch]), verbose=False)
        with torch.no_grad():
            terms = module.loss_terms(batch, module.average(batch))
        assert logged["val/loss"] == pytest.approx(terms.total.item())
        assert logged["val/style_unweighted"] == pytest.approx(terms.style.item())
        assert logged["val/content"] == pytest.approx(0.5 * terms.content.item())


def unlike_photos(count: int) -> Tensor:
    """Photos (N, 3, 32, 32), each darker than the one before: balanced content is divided by the size of them all."""
    images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return images * torch.linspace(1, 0.2, count)[:, None, None, None]


def losses_and_gradient(module: StyleModule, photos: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The terms of a step, and a third of its gradient."""
    terms = module.step_terms(photos)
    (terms.total / 3).backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in module.transformer.parameters() if parameter.grad is not None]
    return [value.detach() for value in vars(terms).values()], gradients


class TestMicroBatches:
    @pytest.mark.parametrize("scaling", ["balanced", "paper", "gatys"])
    @pytest.mark.parametrize("size", [1, 2, 3, 4])
    @pytest.mark.parametrize("stability", [0.0, 5.0])
    def test_losses_and_gradient_are_those_of_the_whole_batch(
        self, scaling: Scaling, size: int, stability: float
    ) -> None:
        photos = unlike_photos(5)
        whole = losses_and_gradient(make_module(scaling=scaling, stability=stability), photos)
        parts = losses_and_gradient(make_module(scaling=scaling, stability=stability, micro_batch_size=size), photos)
        assert len(parts[1]) == len(list(TransformerNet(4).parameters()))
        torch.testing.assert_close(parts[0], whole[0], rtol=1e-5, atol=0)
        # Where there is no gradient, as of a bias before a normalisation, there is rounding.
        rounding = 1e-6 * float(torch.nn.utils.get_total_norm(whole[1]))
        torch.testing.assert_close(parts[1], whole[1], rtol=1e-4, atol=rounding)

    def test_the_mean_of_the_parts_own_losses_would_be_another(self) -> None:
        photos = unlike_photos(4)
        module = make_module()
        with torch.no_grad():
            whole = module.step_terms(photos).content
            parts = torch.stack([module.step_terms(part).content for part in torch.split(photos, 1)])
        assert abs(parts.mean() - whole) > 0.005 * whole

    @pytest.mark.parametrize("size", [5, 6, None])
    def test_a_batch_that_is_no_larger_is_one(self, size: int | None) -> None:
        photos = unlike_photos(5)
        ours = losses_and_gradient(make_module(micro_batch_size=size), photos)
        theirs = losses_and_gradient(make_module(), photos)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    def test_in_bfloat16_too(self) -> None:
        photos = unlike_photos(4)
        with torch.autocast("cpu", torch.bfloat16):
            whole = losses_and_gradient(make_module(), photos)
            parts = losses_and_gradient(make_module(micro_batch_size=1), photos)
        ours, theirs = (torch.cat([each.flatten() for each in gradients]) for _, gradients in (parts, whole))
        assert (ours.dtype, theirs.dtype) == (torch.float32, torch.float32)
        torch.testing.assert_close(parts[0], whole[0], rtol=1e-2, atol=0)
        assert nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.999

    def test_a_training_logs_and_learns_the_same(self) -> None:
        photos = unlike_photos(5)
        whole, parts = Watch(), Watch()
        fit(make_module(), [photos] * 5, whole)
        fit(make_module(micro_batch_size=2), [photos] * 5, parts)
        # Adam makes steps of a gradient that is only rounding as long as of any other: they part slowly.
        for rounding, ours, theirs in zip([1e-5, 0.01, 0.01, 0.01, 0.01], parts.logged, whole.logged, strict=True):
            assert ours == pytest.approx(theirs, rel=rounding)

    def test_a_broken_photo_breaks_the_whole_step(self) -> None:
        broken = unlike_photos(3)
        broken[2, 0, 3, 3] = math.nan
        module = make_module(micro_batch_size=1)
        before = copied(module.transformer)
        fit(module, [broken])
        assert module.broken == "the content loss is nan and the style loss is nan and the tv loss is nan"
        assert_same(copied(module.transformer), before)
        assert find_broken_layer(module, broken) == "the photos themselves"
        with torch.no_grad():
            module.transformer.get_parameter("layers.4.first.conv.weight")[0] = math.nan
        assert find_broken_layer(module, unlike_photos(3)) == "layers.4.first.conv of the transformer"

    @pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
    def test_memory_is_that_of_a_few_photos(self) -> None:
        least, one, two, whole = peaks_mib((1, None), (12, 1), (12, 2), (12, None))
        assert one < two < whole
        # Of twelve photos one is held, and of the others what they show to the loss network.
        assert one - least < 0.3 * (whole - least)


PEAKS = """
import gc, re, torch
from pathlib import Path
from tests.test_module import make_module
for photos, size in {cases}:
    gc.collect()
    module = make_module(micro_batch_size=size)
    for _ in range(2):
        module.step_terms(torch.rand(photos, 3, 256, 256)).total.backward()
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def peaks_mib(*cases: tuple[int, int | None]) -> list[float]:
    """The peak memory of a process after two steps of each (photos, micro-batch size): it never falls again."""
    code = PEAKS.format(cases=cases)
    done = processes.run("-c", code)
    assert done.returncode == 0, done.stderr
    return [int(line) / 2**10 for line in done.stdout.split()]


class TestAverage:
    def test_by_hand(self, batch: Tensor) -> None:
        module, watch = make_module(average=0.15), Watch()
        expected = copied(module.transformer)
        fit(module, [batch] * 3, watch)
        decays = [1 / 10, 0.15, 0.15]  # (1 + step) / (10 + step) is 2/11 already at the second step
        for decay, weights, average in zip(decays, watch.weights, watch.averages, strict=True):
            expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
            torch.testing.assert_close(average, expected)

    def test_a_long_memory_begins_short(self, batch: Tensor) -> None:
        module, watch = make_module(average=0.99), Watch()
        expected = copied(module.transformer)
        fit(module, [batch] * 3, watch)
        for decay, weights in zip([1 / 10, 2 / 11, 3 / 12], watch.weights, strict=True):
            expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
        torch.testing.assert_close(copied(module.average), expected)

    def test_none_is_the_last_weights(self, batch: Tensor) -> None:
        module = make_module(average=0.0)
        fit(module, [batch] * 3)
        assert_same(copied(module.average), copied(module.transformer))

    def test_it_paints(self, batch: Tensor) -> None:
        module = make_module(average=0.5)
        fit(module, [batch] * 3)
        with torch.no_grad():
            assert torch.equal(module(batch), module.average(batch))
            assert not torch.equal(module(batch), module.transformer(batch))

    def test_it_is_not_trained(self, batch: Tensor) -> None:
        module = make_module()
        trained = {
            id(parameter)
            for group in module.configure_optimizers()["optimizer"].param_groups
            for parameter in group["params"]
        }
        assert trained == {id(parameter) for parameter in module.transformer.parameters()}
        assert not any(parameter.requires_grad for parameter in module.average.parameters())


class TestLearningRate:
    def test_warm_up_and_cosine(self) -> None:
        module = make_module(steps=100, warm_up=4, decay=True)
        assert module.rate_factor(0) == pytest.approx(1 / 5)
        assert module.rate_factor(1) == pytest.approx(2 / 5 * 0.5 * (1 + math.cos(math.pi / 100)))
        assert module.rate_factor(4) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.04)))
        assert module.rate_factor(50) == pytest.approx(0.5)
        assert module.rate_factor(75) == pytest.approx(0.5 - math.sqrt(2) / 4)
        assert module.rate_factor(100) == pytest.approx(0)
        assert module.rate_factor(101) == pytest.approx(0)

    def test_after_the_small_crops_it_falls_once_more_from_half_the_height(self) -> None:
        module = make_module(steps=100, small_steps=80, warm_up=4, decay=True)
        assert module.rate_factor(0) == pytest.approx(1 / 5)
        assert module.rate_factor(40) == pytest.approx(0.5)
        assert module.rate_factor(79) == pytest.approx(0.5 * (1 + math.cos(math.pi * 79 / 80)))
        assert module.rate_factor(80) == pytest.approx(0.5)
        assert module.rate_factor(90) == pytest.approx(0.25)
        assert module.rate_factor(100) == pytest.approx(0)

    @pytest.mark.parametrize("small_steps", [0, 100])
    def test_one_size_of_crops_is_one_fall(self, small_steps: int) -> None:
        module = make_module(steps=100, small_steps=small_steps, decay=True)
        assert [module.rate_factor(step) for step in (0, 50)] == pytest.approx([1, 0.5])
        assert module.rate_factor(99) < 0.001

    def test_without_decay_it_stays(self) -> None:
        module = make_module(steps=100, warm_up=1, decay=False)
        assert [module.rate_factor(step) for step in (0, 1, 50, 100, 1000)] == [0.5, 1, 1, 1, 1]
        module = make_module(steps=100, small_steps=80, warm_up=1, decay=False)
        assert [module.rate_factor(step) for step in (0, 1, 79, 80, 100)] == [0.5, 1, 1, 1, 1]

    def test_it_is_what_the_optimizer_gets(self, batch: Tensor) -> None:
        watch = Watch()
        module = make_module(steps=4, learning_rate=0.002, warm_up=1, decay=True)
        fit(module, [batch] * 4, watch)
        rates = [logged["train/learning_rate"] for logged in watch.logged]
        assert rates == pytest.approx([0.002 * module.rate_factor(step) for step in range(4)])

    @pytest.mark.parametrize("optimizer", [Muon, torch.optim.Adam])
    def test_the_optimizer_is_the_one_asked_for(self, optimizer: type[torch.optim.Adam]) -> None:
        assert type(make_module(optimizer=optimizer).configure_optimizers()["optimizer"]) is optimizer


class Gradients(Callback):
    """Keeps the gradient's norm as the optimizer gets it."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        gradients = [parameter.grad for parameter in pl_module.transformer.parameters()]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))


class TestClipping:
    @pytest.mark.parametrize("clip", [1e-3, 1e6, None])
    def test_the_gradient_is_limited_and_its_own_norm_logged(self, batch: Tensor, clip: float | None) -> None:
        watch, gradients = Watch(), Gradients()
        fit(make_module(clip=clip), [batch], watch, gradients)
        norm = watch.logged[0]["train/gradient_norm"]
        assert norm > 0.01
        assert gradients.norms == pytest.approx([clip if clip == 1e-3 else norm], rel=1e-4)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_broken_step_changes_nothing(self, batch: Tensor, value: float) -> None:
        broken = batch.clone()
        broken[0, 0, 3, 3] = value
        module, twin, watch = make_module(), make_module(), Watch()
        trainer = fit(module, [batch, batch, broken], watch)
        assert module.broken == "the content loss is nan and the style loss is nan and the tv loss is nan"
        twins = fit(twin, [batch, batch])
        assert twin.broken is None
        assert_same(copied(module.transformer), copied(twin.transformer))
        assert_same(copied(module.average), copied(twin.average))
        ours, theirs = (each.optimizers[0].state_dict()["state"] for each in (trainer, twins))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    def test_the_step_after_a_broken_one_is_taken(self, batch: Tensor) -> None:
        module, watch = make_module(), Watch()
        fit(module, [torch.full_like(batch, math.nan), batch, batch], watch)
        assert module.broken is None
        assert not torch.equal(watch.weights[0][0], watch.weights[1][0])
        assert all(torch.isfinite(weight).all() for weight in watch.weights[2] + watch.averages[2])

    def test_a_gradient_too_long_to_measure_is_broken(self, batch: Tensor) -> None:
        module = make_module()
        module.judge[1].content_weight = 3e38
        before = copied(module.transformer)
        fit(module, [batch])
        assert module.broken is not None
        assert_same(copied(module.transformer), before)


class TestCheckpoint:
    @pytest.fixture
    def checkpoint(self, tmp_path: Path, batch: Tensor, metadata: dict[str, Any]) -> Path:
        self.module = make_module(metadata)
        fit(self.module, [batch] * 2).save_checkpoint(tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    def test_it_is_plain_data(self, checkpoint: Path, metadata: dict[str, Any]) -> None:
        content = torch.load(checkpoint, weights_only=True)
        assert content["impasto"] == {**metadata, "steps": 2}
        assert content["global_step"] == 2

    def test_it_holds_the_two_networks_and_never_the_loss_network(self, checkpoint: Path) -> None:
        keys = TransformerNet(4).state_dict().keys()
        expected = {f"{name}.{key}" for name in ("transformer", "average") for key in keys}
        assert torch.load(checkpoint, weights_only=True)["state_dict"].keys() == expected
        assert self.module.state_dict().keys() == expected

    def test_it_is_a_style_of_the_averaged_weights(self, checkpoint: Path, batch: Tensor) -> None:
        style = load_style(checkpoint)
        assert style.name == "zigzag"
        assert_same(copied(style.network), copied(self.module.average))
        with torch.no_grad():
            torch.testing.assert_close(style.network(batch), self.module(batch))

    def test_training_can_go_on_from_it(self, checkpoint: Path, batch: Tensor, metadata: dict[str, Any]) -> None:
        module = make_module(metadata)
        content = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(content["state_dict"])
        module.configure_optimizers()["optimizer"].load_state_dict(content["optimizer_states"][0])
        assert_same(copied(module.transformer), copied(self.module.transformer))
        assert_same(copied(module.average), copied(self.module.average))


class TestLossNetwork:
    def test_it_is_no_part_of_the_module(self) -> None:
        module = make_module()
        loss_network, _ = module.judge
        ours = {id(parameter) for parameter in module.parameters()}
        assert not any(id(parameter) in ours for parameter in loss_network.parameters())
        assert loss_network not in set(module.modules())

    def test_it_stays_in_evaluation_mode(self, batch: Tensor) -> None:
        module = make_module()
        module.train()
        fit(module, [batch])
        assert not any(part.training for part in module.judge[0].modules())


def test_the_same_start_and_photos_give_the_same_weights(batch: Tensor) -> None:
    first, second = make_module(), make_module()
    for module in (first, second):
        fit(module, [batch] * 3)
    assert_same(copied(first.average), copied(second.average))
