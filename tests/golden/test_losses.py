"""Ten losses of each stage, pinned: a refactoring must not move them.

The networks, clips and noise are seeded and need no decoder. The learning rate is too small to move
weights: at random ones and small batches training is chaotic (1e-7 of noise in them is 1e-2 of the loss three
steps later), so what is pinned is ten batches, not a path; `tests/training` holds the gradients by hand.

To pin new ones after a change that is meant to move them, say why in the commit and run:

    SDCOM_WRITE_GOLDEN=1 python -m pytest -n 0 tests/golden
"""

import json
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdcom.models.composition import SDCOM
from tests.training.conftest import LABELS, batches_of, patterned_store
from training.loop import LoopOptions
from training.policy import Course, train_policy
from training.records import EpochReport, Journal
from training.small import tiny
from training.supernet import train_supernet

GOLDEN = Path(__file__).parent / "losses.json"
NUM_STEPS, BATCH_SIZE = 10, 4
TOLERANCE = {"supernet": 1e-4, "policy": 5e-4}  # batch norm over 16 values is less steady

Losses = dict[str, dict[str, list[float]]]


@pytest.fixture(scope="module")
def losses() -> Losses:
    return first_losses()


@pytest.mark.parametrize("stage", ["supernet", "policy"])
def test_ten_losses_are_those_pinned(losses: Losses, stage: str) -> None:
    if os.environ.get("SDCOM_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
    pinned = json.loads(GOLDEN.read_text())
    assert losses[stage].keys() == pinned[stage].keys()
    for name, values in losses[stage].items():
        assert len(values) == NUM_STEPS
        np.testing.assert_allclose(values, pinned[stage][name], rtol=TOLERANCE[stage], err_msg=name)


def first_losses() -> Losses:
    """Run both stages of the tiny recipe for ten steps: epochs of one batch, so that each is reported."""
    recipe = tiny(LABELS)
    quick = [
        replace(stage.optimization, learning_rate=1e-30, epochs=NUM_STEPS, batch_size=BATCH_SIZE)
        for stage in (recipe.supernet, recipe.policy)
    ]
    batches = batches_of(patterned_store(BATCH_SIZE), recipe.model.clip, recipe.augmentation)
    reported: Losses = defaultdict(lambda: defaultdict(list))

    def report(stage: str, _epoch: int, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            reported[stage][name].append(round(value, 7))

    loop = LoopOptions(journal=Journal([EpochReport(report)]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = SDCOM(recipe.model)
        networks.dynamic = train_supernet(
            networks.dynamic,
            widths=recipe.model.widths,
            batches=replace(batches, stage=1),
            recipe=replace(recipe.supernet, optimization=quick[0]),
            loop=loop,
        )
        policy = replace(recipe.policy, optimization=quick[1])
        train_policy(networks, [Course("policy", policy, replace(batches, stage=2))], loop)
    return {stage: dict(terms) for stage, terms in reported.items()}
