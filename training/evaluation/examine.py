"""A model examined on clips: every way of answering, in one record."""

from collections.abc import Sequence

import numpy as np

from sdcom.recognition import GIGA
from training.evaluation.case import Case
from training.evaluation.controls import control_rows
from training.evaluation.policies import SHARES, policy_rows, priced_plans
from training.evaluation.record import Record, Row, Timing, describe_machine, describe_versions


def examine(
    case: Case, *, shares: Sequence[float] = SHARES, num_repeats: int = 5, seed: int = 0
) -> tuple[Row, ...]:
    """Return the rows of the composition and of its controls.

    Args:
        case: what to score.
        shares: budgets to score at, as shares of the baseline's FLOPs.
        num_repeats: draws of each random control.
        seed: of those.
    """
    plans = priced_plans(case)
    controls = control_rows(case, plans, np.random.default_rng(seed), num_repeats=num_repeats)
    return (*policy_rows(case, plans, shares), *controls)


def make_record(
    case: Case, rows: Sequence[Row], timing: Timing, *, name: str, data: str, split: str, command: str
) -> Record:
    """Return the record of an evaluation that was made on this machine."""
    info = case.model.info
    recipe = info.provenance.get("recipe")
    return Record(
        name=name,
        model=info.full_name,
        data=data,
        split=split,
        seed=recipe.get("seed") if isinstance(recipe, dict) else None,
        num_clips=len(case.evidence.labels),
        num_frames=case.num_frames,
        calibrated_on=str(info.provenance.get("calibrated_on", "nothing")),
        command=command,
        machine=describe_machine(next(case.model.networks.parameters()).device),
        versions=describe_versions(),
        baseline_gflops=info.macs.baseline(case.num_frames) / GIGA,
        timing=timing,
        rows=tuple(rows),
    )
