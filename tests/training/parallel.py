"""Both stages on clips that need no decoder, alone or as one of several processes.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python -m tests.training.parallel OUTPUT

writes what each stage said and became to OUTPUT/RANK.pt.
"""

import copy
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdcom.config import ClipConfig
from sdcom.models.backbone import build_backbone
from sdcom.models.composition import SDCOM
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import LABELS, batches_of, patterned_store
from training.distributed import (
    gather_lists,
    global_batch_norm,
    mean_over_ranks,
    means_over_ranks,
    process_group,
    rank,
    world_size,
)
from training.loop import LoopOptions
from training.meter import NotFiniteError
from training.policy import Course, train_policy
from training.recipes import MetaRecipe, Optimization, PolicyRecipe, SupernetRecipe
from training.records import EpochStart, Journal, StepRecord
from training.supernet import recalibrate_statistics, train_supernet

WIDTHS = (0.0, 0.5, 1.0)
QUICK = Optimization(learning_rate=1e-3, epochs=2, batch_size=4, warmup_epochs=0, milestones=(9,))
CONFIG = TINY_CONFIG.model_copy(update={"dropout": 0.0})


class Steps:
    """Keeps every step's terms and gradient norm."""

    def __init__(self) -> None:
        self.terms: list[dict[str, float]] = []

    def on_step(self, record: StepRecord) -> None:
        self.terms.append({**record.losses, "gradient_norm": record.gradient_norm})

    def on_start(self, _start: EpochStart) -> None:
        pass

    def on_epoch(self, *_: object) -> None:
        pass


def supernet() -> dict[str, Any]:
    """Train and recalibrate a small network; return its steps and its state."""
    clip = ClipConfig(num_frames=2, short_side=32, crop=32)
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", WIDTHS, len(LABELS))
    recalibrate_statistics(backbone, WIDTHS, [torch.randn(16, 3, 32, 32)])
    steps = Steps()
    trained = train_supernet(
        backbone,
        widths=WIDTHS,
        batches=batches_of(patterned_store(4), clip, rank=rank(), world_size=world_size()),
        recipe=SupernetRecipe(
            optimization=replace(QUICK, epochs=1), num_frames=2, ema_decay=0.5, anchor_weight=0.1
        ),
        loop=LoopOptions(journal=Journal([steps])),
    )
    return {"steps": steps.terms, "state": trained.state_dict()}


def policy(pristine: SDCOM, **recipe: Any) -> dict[str, Any]:
    """Train a small policy; return its steps and its state."""
    networks = copy.deepcopy(pristine)
    steps = Steps()
    batches = batches_of(patterned_store(4), CONFIG.clip, stage=2, rank=rank(), world_size=world_size())
    course = Course("policy", PolicyRecipe(**({"optimization": QUICK} | recipe)), batches)
    train_policy(networks, [course], LoopOptions(journal=Journal([steps])))
    return {"steps": steps.terms, "state": networks.state_dict()}


def gate(pristine: SDCOM) -> dict[str, Any]:
    """Train a small policy, then its gate alone; return the steps and the state."""
    networks = copy.deepcopy(pristine)
    steps = Steps()
    batches = batches_of(patterned_store(4), CONFIG.clip, stage=2, rank=rank(), world_size=world_size())
    first = PolicyRecipe(QUICK, num_views=1, static_multiplier=0.0, frozen_statistics=True)
    alone = replace(
        first, classifier_multiplier=0.0, fusion_multiplier=0.0, highest_price=10.0, price_growth=0.3
    )
    courses = [Course("policy", first, batches), Course("gate", alone, replace(batches, stage=5))]
    train_policy(networks, courses, LoopOptions(journal=Journal([steps])))
    return {"steps": steps.terms, "state": networks.state_dict()}


def norms(inputs_NC: Tensor) -> dict[str, Tensor]:
    """Run a batch norm on this process's rows, and differentiate it twice."""
    share = len(inputs_NC) // world_size()
    own_NC = inputs_NC[rank() * share : (rank() + 1) * share].clone().requires_grad_()
    norm = nn.BatchNorm1d(inputs_NC.shape[1]).double()
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 1 + inputs_NC.shape[1]))
    with global_batch_norm():
        y_NC = norm(own_NC)
        (first_NC,) = torch.autograd.grad(y_NC.pow(3).sum(), own_NC, create_graph=True)
        (second_NC,) = torch.autograd.grad(first_NC.pow(2).sum(), own_NC)
    return {
        "output": y_NC.detach(),
        "first": first_NC.detach(),
        "second": second_NC,
        "mean": norm.running_mean,
        "variance": norm.running_var,
    }


def diverged(pristine: SDCOM) -> str:
    """Train on weights of which one is no number in the last process alone; return what is said."""
    networks = copy.deepcopy(pristine)
    batches = batches_of(patterned_store(4), CONFIG.clip, stage=2, rank=rank(), world_size=world_size())
    if rank() == world_size() - 1:
        with torch.no_grad():
            networks.gate.choice.bias.fill_(float("nan"))
    try:
        train_policy(networks, [Course("policy", PolicyRecipe(optimization=QUICK), batches)], LoopOptions())
    except NotFiniteError as error:
        return str(error)
    return ""


def everything() -> dict[str, Any]:
    """Return what every part says."""
    torch.manual_seed(1)
    inputs_NC = torch.randn(8, 3, dtype=torch.float64) * 2 + 5
    pristine = lively_networks(CONFIG)
    for module in pristine.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # drawn anew in each process
    return {
        "norms": norms(inputs_NC),
        "supernet": supernet(),
        "meta": policy(
            pristine,
            optimization=replace(QUICK, learning_rate=1e-6),  # at more, batches this small are chaotic
            weighting="meta",
            meta=MetaRecipe(hidden=8, plain_decay=1.0),
        ),
        "remembered": policy(pristine, num_views=1, static_multiplier=0.0, frozen_statistics=True),
        "gate": gate(pristine),
        "mean": mean_over_ranks(torch.tensor([1.0, 2.0]) * (rank() + 1)),
        "means": means_over_ranks([torch.full((2, 2), float(rank())), torch.tensor(3.0)]),
        "gathered": gather_lists([rank()] * rank()),
        "diverged": diverged(pristine),
    }


def main() -> None:
    """Write what this process says."""
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        torch.save(everything(), Path(sys.argv[1]) / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
