"""One training step: the transformer paints a batch of photos, the loss network judges it, Muon moves the weights."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from impasto.learning.features import LossNetwork
from impasto.learning.losses import LossTerms, PerceptualLoss
from impasto.learning.muon import Muon
from impasto.learning.replays import Replays
from impasto.learning.stability import Disturbance
from impasto.transformer import TransformerNet


@dataclass(frozen=True)
class Faults:
    """Steps skipped in all and in a row, because their numbers broke, and returns to an earlier state."""

    skipped: int = 0
    in_a_row: int = 0
    returns: int = 0


@dataclass(frozen=True)
class StepTerms(LossTerms):
    """The terms of a training step; ``total`` is with ``stability``."""

    stability: Tensor


@dataclass(frozen=True)
class ContentTarget:
    """The features of photos by layer, and what each layer's content loss is divided by."""

    features: Mapping[str, Tensor]
    sizes: Mapping[str, Tensor | float]


@dataclass(frozen=True)
class Learned:
    """The losses of a step, the gradients of the weights, shortened, and the norm that they had before."""

    terms: StepTerms
    gradients: Sequence[Tensor]
    norm: Tensor


class _WithGradients(torch.autograd.Function):
    """A total whose gradients by the weights are computed already: its backward hands them out."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: list[Tensor], *_weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient * each for each in ctx.gradients)


class StyleModule(LightningModule):
    """Trains ``transformer``; ``average`` is the running mean of its weights, which becomes the style file.

    Batches are images (N, 3, H, W) in [0, 1]. A step whose loss or gradient is not finite changes nothing; ``broken``
    then says what was wrong with it, and ``faults``, counted by others, lower the learning rate. A checkpoint holds the
    two networks, the optimizer's state, the faults and ``metadata``, but never the loss network.
    """

    def __init__(
        self,
        transformer: TransformerNet,
        loss_network: LossNetwork,
        loss: PerceptualLoss,
        *,
        steps: int,
        learning_rate: float,
        small_steps: int = 0,
        warm_up: int = 0,
        decay: bool = True,
        average: float = 0.99,
        optimizer: type[torch.optim.Adam] = Muon,
        clip: float | None = 1.0,
        micro_batch_size: int | None = None,
        stability: float = 0.0,
        seed: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.average = copy.deepcopy(transformer).requires_grad_(False)
        # As lists: to look for them in the networks takes longer than to use them.
        self.weights: list[Tensor] = list(self.transformer.parameters())
        self.averages: list[Tensor] = list(self.average.parameters())
        # In a tuple, so that Lightning neither saves, averages nor trains them.
        self.judge = (loss_network, loss)
        self.steps, self.learning_rate, self.warm_up, self.decay = steps, learning_rate, warm_up, decay
        self.small_steps = small_steps
        self.average_decay, self.optimizer = average, optimizer
        self.longest_gradient = clip if clip is not None else math.inf
        self.micro_batch_size = micro_batch_size
        self.stability, self.seed = stability, seed
        self.metadata = metadata if metadata is not None else {}
        self.faults = Faults()
        self.broken: str | None = None
        self._learned: Learned
        self._replays = Replays()
        self.steps_before, self._optimizer_before = 0, dict[str, Any]()

    def forward(self, images: Tensor) -> Tensor:
        """Return the images painted with the averaged weights, about [0, 1]."""
        painted: Tensor = self.average(images)
        return painted

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        """Return the total loss of a batch; what Lightning takes for its backward is done here as well."""
        self._learned = self.learn_from(batch)
        if self._is_logged:
            self._log_terms("train", self._learned.terms, batch_size=len(batch))
        return self._learned.terms.total

    @property
    def _is_logged(self) -> bool:
        """Whether Lightning writes what is logged in this step; to log for nothing takes it several milliseconds."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined] # Lightning sets it late
        return (self.global_step + 1) % every == 0

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Hand out the gradients."""
        self.hand_out(self._learned)

    def hand_out(self, learned: Learned) -> None:
        """Give the weights their gradients."""
        for weight, gradient in zip(self.weights, learned.gradients, strict=True):
            weight.grad = gradient

    def learn_from(self, photos: Tensor) -> Learned:
        """Return what photos teach; on a GPU the next call overwrites it."""
        if photos.is_cuda and self.stability == 0:
            learned: Learned = self._replays(self._learn_from, photos, uses=self.weights)
            return learned
        return self._learn_from(photos)

    def _learn_from(self, photos: Tensor) -> Learned:
        terms = self.step_terms(photos)
        with torch.autocast(photos.device.type, enabled=False):
            # As the weights are in memory: of others many cannot be worked on at once.
            gradients = [each.contiguous() for each in torch.autograd.grad(terms.total, self.weights)]
            norm = torch.nn.utils.get_total_norm(gradients)
            # As torch.nn.utils.clip_grads_with_norm_ does.
            shortened = torch._foreach_mul(gradients, (self.longest_gradient / (norm + 1e-6)).clamp(max=1.0))
        terms = StepTerms(*(getattr(terms, each.name).detach() for each in fields(StepTerms)))
        return Learned(terms, shortened, norm)

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Log the losses of the averaged weights on held-out photos."""
        self._log_terms("val", self.loss_terms(batch, self(batch)), batch_size=len(batch))

    def step_terms(self, photos: Tensor) -> StepTerms:
        """Return the losses of a step: with ``stability``, photos are painted beside a disturbed copy of them.

        Of more than ``micro_batch_size`` photos, as many at a time: the gradient of ``total`` is then computed here.
        """
        disturbance = Disturbance.draw(photos, seed=self.seed + self.global_step) if self.stability > 0 else None
        if self.micro_batch_size is None or len(photos) <= self.micro_batch_size:
            return self._terms_at_once(photos, disturbance)
        sums, gradients = dict[str, Tensor](), [torch.zeros_like(weight) for weight in self.weights]
        with torch.enable_grad():  # a diagnosis takes no gradients
            for share, terms in self._micro_batches(photos, disturbance, size=self.micro_batch_size):
                torch._foreach_add_(gradients, torch.autograd.grad(share * terms.total, self.weights))
                sums = {name: sums.get(name, 0) + share * value.detach() for name, value in vars(terms).items()}
        return StepTerms(**sums | {"total": _WithGradients.apply(sums["total"], gradients, *self.weights)})

    def _micro_batches(
        self, photos: Tensor, disturbance: Disturbance | None, *, size: int
    ) -> Iterator[tuple[float, StepTerms]]:
        """Yield the share of each part of a batch, and its losses: so weighted, they add up to those of the batch."""
        parts = torch.split(photos, size)
        disturbances: list[Disturbance | None] = [None] * len(parts)
        if disturbance is not None:
            disturbances = [replace(disturbance, noise=noise) for noise in torch.split(disturbance.noise, size)]
        shares = [len(part) / len(photos) for part in parts]
        targets = [self.content_target(part) for part in parts]
        # Balanced content is divided by the size of the whole batch's features, not by that of each part's.
        sizes = {
            name: sum(share * target.sizes[name] for share, target in zip(shares, targets, strict=True))
            for name in targets[0].sizes
        }
        for share, part, moved, target in zip(shares, parts, disturbances, targets, strict=True):
            yield share, self._terms_at_once(part, moved, replace(target, sizes=sizes))

    def _terms_at_once(
        self, photos: Tensor, disturbance: Disturbance | None, target: ContentTarget | None = None
    ) -> StepTerms:
        if disturbance is None:
            terms = vars(self.loss_terms(photos, self.transformer(photos), target))
            return StepTerms(**terms, stability=photos.new_zeros(()))
        stylized, disturbed = self.transformer(torch.cat([photos, disturbance(photos)])).chunk(2)
        terms = vars(self.loss_terms(photos, stylized, target))
        stability = disturbance.loss(stylized, disturbed)
        return StepTerms(**terms | {"total": terms["total"] + self.stability * stability}, stability=stability)

    def loss_terms(self, photos: Tensor, stylized: Tensor, target: ContentTarget | None = None) -> LossTerms:
        """Return the losses of stylized images against their photos, or the target seen in them, and the style."""
        loss_network, loss = self.judge
        target = self.content_target(photos) if target is None else target
        features = loss_network(stylized, loss.content_layers.keys() | loss.style_layers.keys())
        terms: LossTerms = loss(stylized, features, target.features, content_sizes=target.sizes)
        return terms

    def content_target(self, photos: Tensor) -> ContentTarget:
        """Return what the loss network sees in photos."""
        loss_network, loss = self.judge
        with torch.no_grad():
            features = loss_network(photos, loss.content_layers.keys())
            return ContentTarget(features, loss.content_sizes(features))

    def _log_terms(self, stage: str, terms: LossTerms, *, batch_size: int) -> None:
        values = {f"{stage}/loss": terms.total}
        for name, weight in self._weights(stage).items():
            values[f"{stage}/{name}"] = weight * getattr(terms, name)
            values[f"{stage}/{name}_unweighted"] = getattr(terms, name)
        self.log_dict(values, batch_size=batch_size)

    def _weights(self, stage: str) -> dict[str, float]:
        loss = self.judge[1]
        weights = {"content": loss.content_weight, "style": loss.style_weight, "tv": loss.tv_weight}
        return {**weights, "stability": self.stability} if stage == "train" and self.stability > 0 else weights

    def go_on_from(self, checkpoint: dict[str, Any]) -> None:
        """Take the state of a checkpoint, before the training begins."""
        self.load_state_dict(checkpoint["state_dict"])
        self.faults = Faults(**checkpoint["faults"])
        self.steps_before = checkpoint["global_step"]
        self._optimizer_before = checkpoint["optimizer_states"][0]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer and its schedule, stepped after every batch, as in the checkpoint to go on from."""
        optimizer = self.new_optimizer()
        if self._optimizer_before:
            optimizer.load_state_dict(self._optimizer_before)
        schedule = LambdaLR(optimizer, self.rate_factor, last_epoch=self.steps_before - 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def new_optimizer(self) -> torch.optim.Adam:
        """Return the optimizer of the transformer's weights, without a past."""
        return self.optimizer(self.weights, lr=self.learning_rate)

    def rate_factor(self, step: int) -> float:
        """Return what the learning rate is multiplied by: a linear warm-up, then with ``decay`` a cosine to 0.

        After the steps of small crops it falls to 0 a second time, from half the height. Every return to an earlier
        state halves it. A run that goes on to more steps has from there on the rate of one that was so long from its
        start: with ``decay`` it rises again.
        """
        is_second = self.decay and 0 < self.small_steps <= step
        begin, end = (self.small_steps, self.steps) if is_second else (0, self.small_steps or self.steps)
        height = (0.5 if is_second else 1.0) * 0.5**self.faults.returns
        warm_up = height * min(1.0, (step + 1) / (self.warm_up + 1))
        if not self.decay:
            return warm_up
        return warm_up * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - begin) / max(1, end - begin))))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Log the gradient's norm; take away a gradient that would break the weights."""
        learned = self._learned
        if self._is_logged:
            self.log("train/gradient_norm", learned.norm)
            self.log("train/learning_rate", optimizer.param_groups[0]["lr"])
        if torch.isfinite(learned.norm) & torch.isfinite(learned.terms.total):
            self.broken = None
        else:
            self.broken = self._describe_fault(learned)
            optimizer.zero_grad()  # what has no gradient is left alone

    def _describe_fault(self, learned: Learned) -> str:
        weights = self._weights("train")
        terms = {name: float(weight * getattr(learned.terms, name)) for name, weight in weights.items()}
        broken = [f"the {name} loss is {value}" for name, value in terms.items() if not math.isfinite(value)]
        if not broken and math.isfinite(learned.terms.total):
            broken = [f"the losses are finite, the norm of the gradient is {float(learned.norm)}"]
        return " and ".join(broken or ["the sum of the losses is infinite"])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, then let the average follow, unless the step was skipped."""
        super().optimizer_step(*args, **kwargs)
        if self.broken is None:
            self.move_average()

    def move_average(self) -> None:
        """Move the average towards the weights; early on faster: it forgets the random start."""
        decay = min(self.average_decay, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.weights, 1 - decay)

    def on_fit_start(self) -> None:
        """Move to the device what Lightning does not know of."""
        self.judge_to(self.device)

    def judge_to(self, device: torch.device) -> None:
        """Move the loss network and the loss, with its style Gram matrices, to a device."""
        for part in self.judge:
            part.to(device)
        self._replays = Replays()  # what was recorded is of where they were

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the faults, and the plain metadata that make a checkpoint usable as a style file."""
        checkpoint["impasto"] = self.describe()
        checkpoint["faults"] = asdict(self.faults)

    def describe(self) -> dict[str, Any]:
        """Return the metadata with the number of steps taken so far."""
        return {**self.metadata, "steps": max(self.global_step, self.steps_before)}
