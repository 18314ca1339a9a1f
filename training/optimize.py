"""Optimisers and learning-rate schedules, from a recipe's `Optimization`."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sdcom.models.slimmable import Backbone
from training.recipes import Optimization


def build_optimizer(
    parts: Sequence[tuple[Iterable[nn.Parameter], float]], options: Optimization
) -> Optimizer:
    """Build the optimiser over parts, each with a multiplier of the base learning rate.

    Biases and batch norm's affine parameters (one axis) are not decayed.
    """
    groups: list[dict[str, Any]] = []
    for parameters, multiplier in parts:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        rate = options.learning_rate * multiplier
        groups += [
            {"params": [p for p in trained if p.ndim > 1], "lr": rate, "weight_decay": options.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
        ]
    if options.optimizer == "adamw":
        return AdamW(groups, lr=options.learning_rate)
    return SGD(groups, lr=options.learning_rate, momentum=0.9)


def body_and_classifier(backbone: Backbone) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return a network's parameters but for its classifier's, and its classifier's."""
    prefix = backbone.classifier_name + "."
    named = list(backbone.named_parameters())
    body = [parameter for name, parameter in named if not name.startswith(prefix)]
    return body, [parameter for name, parameter in named if name.startswith(prefix)]


def mixed_precision(device: torch.device) -> torch.autocast:
    """Return the context that runs networks in bfloat16 on CUDA, and changes nothing elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def build_schedule(optimizer: Optimizer, options: Optimization, steps_per_epoch: int) -> LambdaLR:
    """Build the schedule; it steps once a batch."""
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step / steps_per_epoch, options))


def learning_rate_factor(epoch: float, options: Optimization) -> float:
    """Return the share of the base learning rate at a point of the run, in epochs from its start."""
    if epoch < options.warmup_epochs:
        return 0.1 + 0.9 * epoch / options.warmup_epochs
    if options.milestones:
        return float(0.1 ** sum(epoch >= milestone for milestone in options.milestones))
    progress = (epoch - options.warmup_epochs) / max(options.epochs - options.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def update(optimizer: Optimizer, schedule: LambdaLR, max_gradient_norm: float) -> Tensor:
    """Take one step with the gradients at hand, and clear them; return their norm before clipping.

    Gradients that are not finite are dropped: one bad batch must not spoil the weights.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_gradient_norm)
    if norm.isfinite():
        optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
