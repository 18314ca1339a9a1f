"""The composition under budgets, prices and confidences: rows of what serving would answer.

Shapes: B clips, T frames in feeding order.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sdcom.checkpoint import ExitPoint, best_exits
from sdcom.recognition import Budget
from sdcom.sampling import Int64Array
from training.calibration import PRICES, exit_steps
from training.evaluation.case import Case, frame_counts
from training.evaluation.record import Method, Row
from training.evidence import fitted_choices, priced_choices

SHARES = (0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def priced_plans(case: Case, prices: Sequence[float] = PRICES) -> dict[float, Int64Array]:
    """Return the choices [B, T] at each price, prices that change nothing left out."""
    macs_K = case.model.info.macs.dynamic_by_choice
    plans: dict[float, Int64Array] = {}
    for lam in prices:
        choices_BT = priced_choices(case.evidence, macs_K, lam)
        if not any(np.array_equal(choices_BT, seen_BT) for seen_BT in plans.values()):
            plans[lam] = choices_BT
    return plans


def policy_rows(case: Case, plans: Mapping[float, Int64Array], shares: Sequence[float]) -> list[Row]:
    """Return rows of the composition.

    Args:
        case: what to score.
        plans: as `priced_plans` returns them, that of price 0 among them.
        shares: budgets, as shares of the baseline's FLOPs; those below the floor, which serving refuses, are
            left out.
    """
    default = case.model.info.default_budget
    return [
        _planned(case, Method.UNLIMITED, None, plans[0.0]),
        _planned(case, Method.DEFAULT, default, plans[0.0] if default is None else _fitted(case, default)),
        *(
            _planned(case, Method.BUDGET, share, _fitted(case, share))
            for share in sorted(set(shares))
            if _affordable(case, share)
        ),
        *(_planned(case, Method.PRICE, lam, choices_BT) for lam, choices_BT in plans.items()),
        *_anytime_rows(case, plans[0.0]),
        *_exit_rows(case, best_exits(case.model.info.exits)),
    ]


def _planned(case: Case, method: Method, setting: float | None, choices_BT: Int64Array) -> Row:
    scored = case.score(case.logits(choices_BT)[:, -1])
    return case.row(method, setting, scored, case.composed_frames(choices_BT))


def _fitted(case: Case, share: float) -> Int64Array:
    macs = case.model.info.macs
    allowed = Budget(share=share).macs(macs.baseline(case.num_frames)) - macs.floor(case.num_frames)
    return fitted_choices(case.evidence, macs.dynamic_by_choice, allowed)


def _affordable(case: Case, share: float) -> bool:
    macs = case.model.info.macs
    return Budget(share=share).macs(macs.baseline(case.num_frames)) >= macs.floor(case.num_frames)


def _anytime_rows(case: Case, choices_BT: Int64Array) -> list[Row]:
    logits_BTL = case.logits(choices_BT)
    rows = []
    for count in frame_counts(case.num_frames):
        frames = case.composed_frames(choices_BT, np.full(len(choices_BT), count))
        rows.append(case.row(Method.ANYTIME, count, case.score(logits_BTL[:, count - 1]), frames))
    return rows


def _exit_rows(case: Case, points: Sequence[ExitPoint]) -> list[Row]:
    macs_K = case.model.info.macs.dynamic_by_choice
    rows = []
    for lam in sorted({point.lam for point in points}):
        choices_BT = priced_choices(case.evidence, macs_K, lam)
        logits_BTL = case.logits(choices_BT)
        for point in (point for point in points if point.lam == lam):
            fed_B = exit_steps(torch.from_numpy(logits_BTL), point.confidence)
            scored = case.score(logits_BTL[np.arange(len(fed_B)), fed_B - 1])
            frames = case.composed_frames(choices_BT, fed_B)
            rows.append(case.row(Method.EXIT, point.confidence, scored, frames))
    return rows
