"""Stage 1: the slimmable dynamic network, by the sandwich rule with in-place ensemble distillation.

The network is a TSN here: a video's logits are the mean over its frames. Shapes: B videos, T frames,
N = B * T frames, D features, L labels.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from sdcom.models.slimmable import Backbone, batch_norms
from sdcom.models.temporal_shift import Earlier, earlier_rows, rows_before
from training.batches import Batch, Batches
from training.checkpoints import Stateful
from training.distributed import global_batch_norm
from training.loop import Backward, LoopOptions, fit
from training.losses import feature_distance, soft_cross_entropy
from training.moving_average import MovingAverage
from training.optimize import Part, body_and_classifier, mixed_precision
from training.recipes import SupernetRecipe


def train_supernet(
    backbone: Backbone,
    *,
    widths: Sequence[float],
    batches: Batches,
    recipe: SupernetRecipe,
    loop: LoopOptions,
    teacher: Backbone | None = None,
) -> Backbone:
    """Train a network at all its widths; return its moving average, statistics recalibrated.

    Args:
        backbone: on the batches' device; trained in place.
        widths: W, ascending from 0 to 1.
        batches: of the model's clip; this stage sees `recipe.num_frames` of it.
        recipe: this stage's.
        loop: who is told, and where the state is kept.
        teacher: a trained network of the same classes, to distil from at full width.
    """
    fewer_frames = batches.clip.model_copy(update={"num_frames": recipe.num_frames})
    stage = SupernetStage(
        backbone,
        widths=widths,
        batches=replace(batches, clip=fewer_frames),
        recipe=recipe,
        teacher=teacher,
    )
    fit(stage, recipe.optimization, loop)
    trained = stage.average.module
    narrow = [width for width in widths if 0 < width < 1 or (width == 1 and not recipe.frozen_statistics)]
    seen = stage.batches.epoch(recipe.optimization.epochs)
    with global_batch_norm():
        frames = (batch.frames_BTCHW.flatten(0, 1) for batch in seen)
        recalibrate_statistics(trained, narrow, frames, recipe.num_frames)
    return trained.requires_grad_().eval()


class SupernetStage:
    """The stage as the loop sees it.

    Args:
        backbone: the network that learns.
        widths: W, ascending from 0 to 1.
        batches: of as many frames as this stage sees.
        recipe: this stage's.
        teacher: to distil from besides the moving average; None is the network that the stage starts from,
            and that only where the recipe gives its features a weight.

    Attributes:
        name: in records and checkpoints.
        batches: those.
        average: the moving average of the network: the teacher of the narrower widths, and the result.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        widths: Sequence[float],
        batches: Batches,
        recipe: SupernetRecipe,
        teacher: Backbone | None = None,
    ) -> None:
        self.name = "supernet"
        self.batches = batches
        self.average = MovingAverage(backbone, recipe.ema_decay)
        self._backbone = backbone
        self._widths = [width for width in reversed(widths) if width > 0 or recipe.pseudo_width]
        self._recipe = recipe
        self._teacher = None if teacher is None else teacher.eval()
        starts_from_itself = teacher is None and recipe.anchor_weight > 0
        self._start = copy.deepcopy(backbone).eval() if starts_from_itself else None

    def parts(self) -> Sequence[Part]:
        """Return the network but for its classifier, and its classifier."""
        body, classifier = body_and_classifier(self._backbone)
        return [(body, 1.0), (classifier, self._recipe.classifier_multiplier)]

    def kept(self) -> Mapping[str, Stateful]:
        """Return the network, its moving average, and what it started from if that is still needed."""
        started = {} if self._start is None else {"start": self._start}
        return {"backbone": self._backbone, "average": self.average, **started}

    def begin_epoch(self, epoch: int) -> None:
        """Nothing: modes are set for every width."""

    def draw(self, epoch: int, start_step: int) -> Iterator[Batch]:
        """Yield the epoch's batches from a step on."""
        return self.batches.epoch(epoch, start_step)

    def split(self, batch: Batch, num_parts: int, _epoch: int) -> Sequence[Batch]:
        """Return equal parts of a batch."""
        return batch.split(num_parts)

    def before_step(self, micro_batches: Sequence[Batch], optimizer: Optimizer, epoch: int) -> None:
        """Nothing."""

    def accumulate(self, micro_batch: Batch, _epoch: int, backward: Backward) -> dict[str, Tensor]:
        """Add up every width's gradients on one batch, wide to narrow; return the sums of the loss terms."""
        lessons = self._lessons(micro_batch)
        sums: dict[str, Tensor] = {}
        for width in self._widths:
            self._backbone.train(not (width == 1 and self._recipe.frozen_statistics))
            with self._mixed_precision():
                terms = self._width_terms(_view(self._backbone, micro_batch, width), width, lessons)
                loss = torch.stack(list(terms.values())).sum()
            backward(loss)
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, 0) + value.detach()
        return sums

    def after_step(self) -> None:
        """Let the moving average follow."""
        self.average.update(self._backbone)

    def _mixed_precision(self) -> torch.autocast:
        return mixed_precision(self.batches.source.device, self._recipe.optimization.precision)

    @torch.no_grad()
    def _lessons(self, batch: Batch) -> "Lessons":
        taught = [width for width in self._widths if width > 0][:-1] if self._recipe.learns_classes else []
        anchor = self._teacher or self._start
        with self._mixed_precision():
            averages = {width: _view(self.average.module, batch, width).probabilities() for width in taught}
            return Lessons(batch.targets_BL, averages, None if anchor is None else _view(anchor, batch, 1.0))

    def _width_terms(self, view: "View", width: float, lessons: "Lessons") -> dict[str, Tensor]:
        """Return the weighted loss terms of one width."""
        recipe = self._recipe
        terms = {}
        if recipe.learns_classes:
            logits_BL = view.logits_BL
            if recipe.label_weight != 1:
                shielded_ND = torch.lerp(view.features_ND.detach(), view.features_ND, recipe.label_weight)
                logits_BL = _video_logits(self._backbone, shielded_ND, len(logits_BL))
            terms["classes"] = class_loss(logits_BL.float(), width, lessons, recipe.label_smoothing)
        if lessons.anchor is not None and recipe.anchor_weight > 0:
            weight = recipe.anchor_weight * (recipe.full_width_anchor if width == 1 else 1)
            terms["features"] = weight * feature_distance(view.features_ND, lessons.anchor.features_ND)
        if self._teacher is not None and lessons.anchor is not None and width > 0:
            told = soft_cross_entropy(view.logits_BL.float(), lessons.anchor.probabilities())
            terms["teacher"] = recipe.teacher_weight * told
        return terms


class View(NamedTuple):
    """What a network says of a batch: features of the frames, class logits of the videos."""

    features_ND: Tensor
    logits_BL: Tensor

    def probabilities(self) -> Tensor:
        """Return the class probabilities [B, L] in float32."""
        return self.logits_BL.float().softmax(dim=-1)


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a batch is to teach.

    Attributes:
        targets_BL: its classes.
        averages: the moving average's class probabilities [B, L] at every width but the narrowest.
        anchor: what the teacher, or the network that the stage started from, says at full width.
    """

    targets_BL: Tensor
    averages: Mapping[float, Tensor]
    anchor: View | None


def class_loss(logits_BL: Tensor, width: float, lessons: Lessons, label_smoothing: float) -> Tensor:
    """Return the class loss of one width: from the labels at width 1 and 0, from wider averages between."""
    if width == 1:
        return functional.cross_entropy(logits_BL, lessons.targets_BL, label_smoothing=label_smoothing)
    if width == 0:
        return functional.cross_entropy(logits_BL, lessons.targets_BL)
    if width in lessons.averages:
        return soft_cross_entropy(logits_BL, lessons.averages[1.0])
    return soft_cross_entropy(logits_BL, torch.stack(list(lessons.averages.values())).mean(dim=0))


def _view(network: Backbone, batch: Batch, width: float) -> View:
    frames_NCHW = batch.frames_BTCHW.flatten(0, 1)
    num_videos, num_frames = batch.frames_BTCHW.shape[:2]
    earlier = _one_width(num_videos, num_frames, frames_NCHW.device)
    features_ND = network.pool(network.feature_map(frames_NCHW, width, earlier))
    return View(features_ND, _video_logits(network, features_ND, num_videos))


def _video_logits(network: Backbone, features_ND: Tensor, num_videos: int) -> Tensor:
    logits_BTL: Tensor = network.classify(features_ND).unflatten(0, (num_videos, -1))
    return logits_BTL.mean(dim=1)


def _one_width(num_videos: int, num_frames: int, device: torch.device) -> Earlier:
    """Return the shift between the frames of videos that run at one width throughout."""
    return earlier_rows(rows_before(torch.ones(num_videos, num_frames, dtype=torch.bool, device=device)))


@torch.no_grad()
def recalibrate_statistics(
    backbone: Backbone, widths: Sequence[float], batches_NCHW: Iterable[Tensor], num_frames: int = 1
) -> None:
    """Set the batch norm statistics of each width to their plain average over the batches.

    The batches are gone through once, each by every width, so that no more than one need be in memory.

    Args:
        backbone: left in evaluation mode.
        widths: whose statistics to set.
        batches_NCHW: normalised frames.
        num_frames: that lie together, of one video in time order, for a network with temporal shift.
    """
    norms = batch_norms(backbone)
    momenta = [norm.momentum for norm in norms]
    backbone.train()
    for count, frames_NCHW in enumerate(batches_NCHW, start=1):
        for norm in norms:
            norm.momentum = 1 / count
        earlier = _one_width(len(frames_NCHW) // num_frames, num_frames, frames_NCHW.device)
        for width in widths:
            backbone.feature_map(frames_NCHW, width, earlier)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    backbone.eval()
