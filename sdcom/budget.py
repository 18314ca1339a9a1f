"""Gate logits and a budget in, a width for every frame out (pure).

The gate's choice under a price lam is `argmax_k (log softmax(g)_k - lam * cost_k)`. As lam grows, a frame
walks down the upper envelope of K straight lines, from the trained choice at lam = 0 to the cheapest
width, and its cost never rises. So a video's total cost is a falling staircase over the breakpoints of its
own frames, and the smallest lam that fits a budget is found exactly, among those breakpoints. Many videos are
planned at once, each as it would be alone.

Shapes: B videos, T frames, K widths, S steps of a walk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

_NO_LIMIT = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class WidthPlan:
    """The widths chosen for one video.

    Attributes:
        choices: T indices into the model's widths, in feeding order.
        lam: the price at which the gate makes these choices; 0 is the trained policy.
        macs: what the dynamic network will execute.
    """

    choices: tuple[int, ...]
    lam: float
    macs: int


@dataclass(frozen=True, slots=True)
class Currency:
    """What the widths are priced in: MACs, or the microseconds that a machine takes.

    Attributes:
        costs_K: whole units of a frame at each width, the first 0, and no wider one below a narrower; the
            last is the unit of lam.
        macs_K: MACs of a frame at each width, which a plan counts whatever it was priced in.
    """

    costs_K: tuple[int, ...]
    macs_K: tuple[int, ...]

    @classmethod
    def of_macs(cls, macs_K: tuple[int, ...]) -> "Currency":
        """Return the currency that MACs are."""
        return cls(macs_K, macs_K)

    def cost(self, plan: WidthPlan) -> int:
        """Return the units that a plan costs."""
        return sum(self.costs_K[choice] for choice in plan.choices)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the dynamic network may spend on one video, in the currency of its budget and in MACs.

    Attributes:
        currency: that widths are priced in.
        left: units of it that may be spent, at least 0; None is no limit.
        macs_left: MACs that may be spent, at least 0; None is no limit.
    """

    currency: Currency
    left: int | None = None
    macs_left: int | None = None

    def plan(self, gate_logits_TK: npt.ArrayLike, lam: float = 0.0) -> WidthPlan:
        """Return the plan of the smallest price, at least `lam`, that spends no more than is left.

        What a plan costs falls with the price in both: what is cheaper in the currency is narrower.

        Raises:
            ValueError: a shape does not fit, a logit is not finite, or lam is negative.
        """
        return plan_together([self], [gate_logits_TK], lam)[0]

    def __call__(self, gate_logits_TK: npt.ArrayLike) -> WidthPlan:
        """Return the plan of the smallest price that spends no more than is left, as `plan` does."""
        return self.plan(gate_logits_TK)

    def covers(self, plan: WidthPlan) -> bool:
        """Return whether a plan spends no more than is left."""
        return (self.left is None or self.currency.cost(plan) <= self.left) and (
            self.macs_left is None or plan.macs <= self.macs_left
        )

    def after(self, plan: WidthPlan) -> "Allowance":
        """Return what is left once a plan that it covers has been run."""
        return replace(
            self,
            left=None if self.left is None else self.left - self.currency.cost(plan),
            macs_left=None if self.macs_left is None else self.macs_left - plan.macs,
        )


def choose_widths(gate_logits_TK: npt.ArrayLike, macs_K: Sequence[int], lam: float) -> WidthPlan:
    """Return the gate's choice for every frame at the price `lam`.

    Args:
        gate_logits_TK: the gate's logits.
        macs_K: MACs of the dynamic network at each width; the last, the full width's, is the unit.
        lam: price of one full-width frame in nats, at least 0.

    Raises:
        ValueError: a shape does not fit, a logit is not finite, or lam is negative.
    """
    logits_BTK, lam_B = _checked([gate_logits_TK], macs_K), np.array([_checked_price(lam)])
    return _plans(_walks(logits_BTK, macs_K), lam_B, macs_K)[0]


def fit_widths(gate_logits_TK: npt.ArrayLike, macs_K: Sequence[int], max_macs: int) -> WidthPlan:
    """Return the plan of the smallest lam whose dynamic work is at most `max_macs`.

    Args:
        gate_logits_TK: the gate's logits.
        macs_K: MACs of the dynamic network at each width, the cheapest of them 0.
        max_macs: what the dynamic network may execute for this video, at least 0.

    Raises:
        ValueError: a shape does not fit, a logit is not finite, or nothing fits `max_macs`.
    """
    logits_BTK = _checked([gate_logits_TK], macs_K)
    cheapest = logits_BTK.shape[1] * min(macs_K)
    if max_macs < cheapest:
        raise ValueError(f"{max_macs=} is below the cheapest plan, {cheapest}")
    return Allowance(Currency.of_macs(tuple(macs_K)), max_macs).plan(logits_BTK[0])


def plan_together(
    allowances: Sequence[Allowance], gate_logits: Sequence[npt.ArrayLike], lam: float = 0.0
) -> list[WidthPlan]:
    """Return what `Allowance.plan` says of each of several videos.

    Args:
        allowances: in one currency.
        gate_logits: of each video, [T, K], all of one length.
        lam: the least price of each.

    Raises:
        ValueError: a shape does not fit, a logit is not finite, or lam is negative.
    """
    currency, lam = allowances[0].currency, _checked_price(lam)
    walks = _walks(_checked(gate_logits, currency.costs_K), currency.costs_K)
    lam_B = np.full(len(allowances), lam)
    for price_K, limits in (
        (currency.costs_K, [each.left for each in allowances]),
        (currency.macs_K, [each.macs_left for each in allowances]),
    ):
        if any(limit is not None for limit in limits):
            left_B = np.array([_NO_LIMIT if limit is None else min(limit, _NO_LIMIT) for limit in limits])
            lam_B = np.maximum(lam_B, _least_lam(walks, price_K, left_B))
    return _plans(walks, lam_B, currency.macs_K)


def _checked_price(lam: float) -> float:
    if not lam >= 0:
        raise ValueError(f"lam must be at least 0, got {lam}")
    return lam


def _checked(gate_logits: Sequence[npt.ArrayLike], macs_K: Sequence[int]) -> Float64Array:
    """Return logits [B, T, K] of videos of one length."""
    logits_BTK = np.asarray(gate_logits, dtype=np.float64)
    if logits_BTK.ndim != 3 or logits_BTK.shape[2] != len(macs_K):
        raise ValueError(f"gate logits of shape {logits_BTK.shape[1:]} do not fit {len(macs_K)} widths")
    if not np.isfinite(logits_BTK).all():
        raise ValueError("gate logits are not finite")
    return logits_BTK


class _Walks(NamedTuple):
    """How frames step down as the price rises.

    Attributes:
        lam_BTS: from each of these on (inclusive), ascending, the first 0; infinity where a walk has ended.
        choice_BTS: the frame takes the width of this index.
    """

    lam_BTS: Float64Array
    choice_BTS: Int64Array


def _walks(logits_BTK: Float64Array, macs_K: Sequence[int]) -> _Walks:
    """Return the upper envelope of the lines `logits_k - lam * cost_k` over lam >= 0, for each frame.

    Softmax's normaliser is the same for every width, so logits serve as well as log-probabilities. Among
    equals the cheaper width wins. Each step's lam is above the last one's, each cost below the last one's.
    """
    cost_K = np.asarray(macs_K, dtype=np.float64) / macs_K[-1]
    by_cost_K = np.argsort(cost_K, kind="stable")
    cost_K = cost_K[by_cost_K]
    logits_BTK = logits_BTK[..., by_cost_K]
    choice_BT1 = logits_BTK.argmax(axis=-1, keepdims=True)
    lam_BT1 = np.zeros(choice_BT1.shape)
    lams, choices = [lam_BT1], [choice_BT1]
    while True:
        saved_BTK = cost_K[choice_BT1] - cost_K
        is_cheaper_BTK = saved_BTK > 0
        if not is_cheaper_BTK.any():
            break
        crossing_BTK = np.full(logits_BTK.shape, np.inf)
        with np.errstate(over="ignore"):  # a crossing beyond all finite prices is at infinity
            lost_BTK = np.take_along_axis(logits_BTK, choice_BT1, axis=-1) - logits_BTK
            np.divide(lost_BTK, saved_BTK, out=crossing_BTK, where=is_cheaper_BTK)
        nearest_BT1 = crossing_BTK.argmin(axis=-1, keepdims=True)
        crossed_BT1 = np.take_along_axis(crossing_BTK, nearest_BT1, axis=-1)
        lam_BT1 = np.maximum(crossed_BT1, np.nextafter(lam_BT1, np.inf))
        choice_BT1 = np.where(is_cheaper_BTK.any(axis=-1, keepdims=True), nearest_BT1, choice_BT1)
        lams.append(lam_BT1)
        choices.append(choice_BT1)
    return _Walks(np.concatenate(lams, axis=-1), by_cost_K[np.concatenate(choices, axis=-1)])


def _least_lam(walks: _Walks, price_K: Sequence[int], left_B: Int64Array) -> Float64Array:
    """Return the smallest lam at which each video spends no more than it may.

    Args:
        walks: of all frames.
        price_K: what widths cost; no step of a walk leads to a dearer one.
        left_B: that may be spent.
    """
    price_BTS = np.asarray(price_K, dtype=np.int64)[walks.choice_BTS]
    most_B1 = price_BTS[..., 0].sum(axis=1, keepdims=True)
    saved_BTS = -np.diff(price_BTS, prepend=price_BTS[..., :1])  # the first step, at 0, saves nothing
    lam_BN, saved_BN = (each_BTS.reshape(len(left_B), -1) for each_BTS in (walks.lam_BTS, saved_BTS))
    ascending_BN = lam_BN.argsort(axis=1)
    spent_BN = most_B1 - np.take_along_axis(saved_BN, ascending_BN, axis=1).cumsum(axis=1)
    fits_BN = spent_BN <= left_B[:, None]
    assert fits_BN[:, -1].all(), "the cheapest plan costs nothing"
    first_B1 = fits_BN.argmax(axis=1, keepdims=True)
    least_B1 = np.take_along_axis(lam_BN, np.take_along_axis(ascending_BN, first_B1, axis=1), axis=1)
    return least_B1[:, 0]


def _plans(walks: _Walks, lam_B: Float64Array, macs_K: Sequence[int]) -> list[WidthPlan]:
    """Return the choices of each video at its price."""
    step_BT1 = (walks.lam_BTS <= lam_B[:, None, None]).sum(axis=-1, keepdims=True) - 1
    choice_BT = np.take_along_axis(walks.choice_BTS, step_BT1, axis=-1)[..., 0]
    macs_B = np.asarray(macs_K, dtype=np.int64)[choice_BT].sum(axis=1)
    each = zip(choice_BT.tolist(), lam_B.tolist(), macs_B.tolist(), strict=True)
    return [WidthPlan(tuple(choices), lam, macs) for choices, lam, macs in each]
