"""Stage 1: the slimmable dynamic network, by the sandwich rule with in-place ensemble distillation.

The network is a TSN here: a video's logits are the mean over its frames. Shapes: B videos, T frames,
N = B * T frames, D features, L labels.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sdcom.models.slimmable import Backbone, batch_norms
from training.batches import Batch, Batches
from training.losses import feature_distance, soft_cross_entropy
from training.optimize import (
    body_and_classifier,
    build_optimizer,
    build_schedule,
    mixed_precision,
    update,
)
from training.recipes import SupernetRecipe

Report = Callable[[str, int, dict[str, float]], None]
"""Told the stage, the epoch and its mean losses."""


class _View(NamedTuple):
    features_ND: Tensor
    logits_BL: Tensor


def train_supernet(
    backbone: Backbone,
    *,
    widths: Sequence[float],
    batches: Batches,
    recipe: SupernetRecipe,
    report: Report,
) -> Backbone:
    """Train a network at all its widths; return its moving average, statistics recalibrated.

    Args:
        backbone: on the batches' device; trained in place.
        widths: W, ascending from 0 to 1.
        batches: of the model's clip; this stage sees `recipe.num_frames` of it.
        recipe: this stage's.
        report: told every epoch's losses.
    """
    fewer_frames = batches.clip.model_copy(update={"num_frames": recipe.num_frames})
    batches = replace(batches, clip=fewer_frames)
    options = recipe.optimization
    body, classifier = body_and_classifier(backbone)
    optimizer = build_optimizer([(body, 1.0), (classifier, recipe.classifier_multiplier)], options)
    schedule = build_schedule(optimizer, options, max(batches.steps_per_epoch, 1))
    average = AveragedModel(
        backbone, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True
    ).eval()
    anchor = copy.deepcopy(backbone).eval() if recipe.anchor_weight > 0 else None
    trio = _Networks(backbone, cast("Backbone", average.module), anchor)
    for epoch in range(options.epochs):
        losses: list[Tensor] = []
        for batch in batches.epoch(epoch):
            losses.append(_sandwich(trio, batch, widths, recipe))
            update(optimizer, schedule, options.max_gradient_norm)
            average.update_parameters(backbone)
        report("supernet", epoch, {"loss": float(torch.stack(losses).mean())})
    trained = trio.teacher
    narrow = [width for width in widths if 0 < width < 1 or (width == 1 and not recipe.frozen_statistics)]
    seen = batches.epoch(options.epochs)
    recalibrate_statistics(trained, narrow, (batch.frames_BTCHW.flatten(0, 1) for batch in seen))
    return trained.eval()


class _Networks(NamedTuple):
    student: Backbone
    teacher: Backbone
    anchor: Backbone | None


def _sandwich(networks: _Networks, batch: Batch, widths: Sequence[float], recipe: SupernetRecipe) -> Tensor:
    """Add up every width's gradients on one batch, wide to narrow; return the sum of the losses."""
    positive = [width for width in reversed(widths) if width > 0]
    taught_BL = {width: _teacher_probabilities(networks.teacher, batch, width) for width in positive[:-1]}
    with torch.no_grad(), mixed_precision(batch.targets_BL.device):
        anchored = _view(networks.anchor, batch, 1.0) if networks.anchor is not None else None
    total = torch.zeros((), device=batch.targets_BL.device)
    for width in [*positive, 0.0] if recipe.pseudo_width else positive:
        networks.student.train(not (width == 1 and recipe.frozen_statistics))
        with mixed_precision(batch.targets_BL.device):
            view = _view(networks.student, batch, width)
            loss = _width_loss(
                view.logits_BL.float(), batch.targets_BL, width, taught_BL, recipe.label_smoothing
            )
            if anchored is not None:
                loss = loss + recipe.anchor_weight * feature_distance(view.features_ND, anchored.features_ND)
        loss.backward()
        total += loss.detach()
    return total


def _width_loss(
    logits_BL: Tensor,
    targets_BL: Tensor,
    width: float,
    taught_BL: dict[float, Tensor],
    label_smoothing: float,
) -> Tensor:
    """Return a width's loss; `taught_BL` holds the teacher's probabilities at all but the narrowest width."""
    if width == 1:
        return functional.cross_entropy(logits_BL, targets_BL, label_smoothing=label_smoothing)
    if width == 0:
        return functional.cross_entropy(logits_BL, targets_BL)
    if width in taught_BL:
        return soft_cross_entropy(logits_BL, taught_BL[1.0])
    return soft_cross_entropy(logits_BL, torch.stack(list(taught_BL.values())).mean(dim=0))


@torch.no_grad()
def _teacher_probabilities(teacher: Backbone, batch: Batch, width: float) -> Tensor:
    with mixed_precision(batch.targets_BL.device):
        return _view(teacher, batch, width).logits_BL.float().softmax(dim=-1)


def _view(network: Backbone, batch: Batch, width: float) -> _View:
    num_videos = len(batch.targets_BL)
    features_ND = network.pool(network.feature_map(batch.frames_BTCHW.flatten(0, 1), width))
    return _View(features_ND, network.classify(features_ND).unflatten(0, (num_videos, -1)).mean(dim=1))


@torch.no_grad()
def recalibrate_statistics(
    backbone: Backbone, widths: Sequence[float], batches_NCHW: Iterable[Tensor]
) -> None:
    """Set the batch norm statistics of each width to their plain average over the batches.

    The batches are gone through once, each by every width, so that no more than one need be in memory.
    """
    norms = batch_norms(backbone)
    momenta = [norm.momentum for norm in norms]
    backbone.train()
    for count, frames_NCHW in enumerate(batches_NCHW, start=1):
        for norm in norms:
            norm.momentum = 1 / count
        for width in widths:
            backbone.feature_map(frames_NCHW, width)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    backbone.eval()
