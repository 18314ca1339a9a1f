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

NamedParameter = tuple[str, nn.Parameter]


def build_optimizer(
    parts: Sequence[tuple[Iterable[NamedParameter], float]], options: Optimization
) -> Optimizer:
    """Build the optimiser over parts, each with a multiplier of the base learning rate.

    Biases and batch norms' affine parameters are not decayed.

    Args:
        parts: named parameters, as modules name them, and the multiplier.
        options: of the stage.
    """
    groups: list[dict[str, Any]] = []
    for named, multiplier in parts:
        trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        decayed = [parameter for name, parameter in trained if _is_decayed(name, parameter)]
        plain = [parameter for name, parameter in trained if not _is_decayed(name, parameter)]
        rate = options.learning_rate * multiplier
        groups += [
            {"params": decayed, "lr": rate, "weight_decay": options.weight_decay},
            {"params": plain, "lr": rate, "weight_decay": 0.0},
        ]
    if options.optimizer == "adamw":
        return AdamW(groups, lr=options.learning_rate)
    return SGD(groups, lr=options.learning_rate, momentum=0.9)


def _is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """False for biases, of one axis or more (the fusion head's are [T, L]), and for batch norms' weights."""
    return parameter.ndim > 1 and "bias" not in name.rpartition(".")[2]


def body_and_classifier(backbone: Backbone) -> tuple[list[NamedParameter], list[NamedParameter]]:
    """Return a network's named parameters but for its classifier's, and its classifier's."""
    prefix = backbone.classifier_name + "."
    named = list(backbone.named_parameters())
    body = [pair for pair in named if not pair[0].startswith(prefix)]
    return body, [pair for pair in named if pair[0].startswith(prefix)]


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
