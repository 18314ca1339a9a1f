"""Optimisers, learning rates and precision, from a recipe's `Optimization`."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, AdamW, Optimizer

from sdcom.models.slimmable import Backbone
from training.recipes import Optimization

NamedParameter = tuple[str, nn.Parameter]
Part = tuple[Iterable[NamedParameter], float]
"""Named parameters, and a multiplier of their learning rate."""

Precision = Literal["bf16", "fp16", "fp32"]


def build_optimizer(parts: Sequence[Part], options: Optimization) -> Optimizer:
    """Build the optimiser over parts, each with a multiplier of the base learning rate.

    Biases and batch norms' affine parameters are not decayed. `set_learning_rates` moves the rates.

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
            {"params": decayed, "lr": rate, "full_lr": rate, "weight_decay": options.weight_decay},
            {"params": plain, "lr": rate, "full_lr": rate, "weight_decay": 0.0},
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


def mixed_precision(device: torch.device, precision: Precision = "bf16") -> torch.autocast:
    """Return the context that runs networks in a precision on CUDA, and changes nothing elsewhere."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=device.type == "cuda" and precision != "fp32")


def build_scaler(device: torch.device, precision: Precision) -> GradScaler:
    """Build what keeps float16 gradients from vanishing; in other precisions it does nothing."""
    return GradScaler(device.type, enabled=device.type == "cuda" and precision == "fp16")


def set_learning_rates(optimizer: Optimizer, epoch: float, options: Optimization) -> None:
    """Set every part's rate to what it is at a point of the run, in epochs from its start."""
    factor = learning_rate_factor(epoch, options)
    for group in optimizer.param_groups:
        group["lr"] = factor * group["full_lr"]


def learning_rate_factor(epoch: float, options: Optimization) -> float:
    """Return the share of the base learning rate at a point of the run, in epochs from its start."""
    if epoch < options.warmup_epochs:
        return 0.1 + 0.9 * epoch / options.warmup_epochs
    if options.milestones:
        return float(0.1 ** sum(epoch >= milestone for milestone in options.milestones))
    progress = (epoch - options.warmup_epochs) / max(options.epochs - options.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def update(optimizer: Optimizer, scaler: GradScaler, max_gradient_norm: float) -> Tensor:
    """Take one step with the gradients at hand, and clear them; return their norm before clipping.

    Nothing waits for the device, but for the scaler's own check in float16, which then leaves the step out.
    """
    scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_gradient_norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm
