"""Gate logits and a budget in, a width for every frame out (pure).

The gate's choice under a price lam is `argmax_k (log softmax(g)_k - lam * cost_k)`. As lam grows, a frame
walks down the upper envelope of K straight lines, from the trained choice at lam = 0 to the cheapest
width, and its cost never rises. So a video's total cost is a falling staircase over the breakpoints of its
own frames, and the smallest lam that fits a budget is found exactly, by bisection over those breakpoints.

Shapes: T frames, K widths.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Step(NamedTuple):
    """From `lam` on (inclusive), the frame takes the width with index `choice`."""

    lam: float
    choice: int


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
        walks = _walks(gate_logits_TK, self.currency.costs_K)
        return _first_plan(walks, self.currency.macs_K, _checked_price(lam), self.covers)

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
    return _plan_at(_checked_price(lam), _walks(gate_logits_TK, macs_K), macs_K)


def fit_widths(gate_logits_TK: npt.ArrayLike, macs_K: Sequence[int], max_macs: int) -> WidthPlan:
    """Return the plan of the smallest lam whose dynamic work is at most `max_macs`.

    Args:
        gate_logits_TK: the gate's logits.
        macs_K: MACs of the dynamic network at each width, the cheapest of them 0.
        max_macs: what the dynamic network may execute for this video, at least 0.

    Raises:
        ValueError: a shape does not fit, a logit is not finite, or nothing fits `max_macs`.
    """
    walks = _walks(gate_logits_TK, macs_K)
    if max_macs < len(walks) * min(macs_K):
        raise ValueError(f"{max_macs=} is below the cheapest plan, {len(walks) * min(macs_K)}")
    return _first_plan(walks, macs_K, 0.0, lambda plan: plan.macs <= max_macs)


def _checked_price(lam: float) -> float:
    if not lam >= 0:
        raise ValueError(f"lam must be at least 0, got {lam}")
    return lam


def _first_plan(
    walks: Sequence[Sequence[Step]],
    macs_K: Sequence[int],
    lam: float,
    fits: Callable[[WidthPlan], bool],
) -> WidthPlan:
    """Return the plan of the smallest price, at least `lam`, that fits; once one does, all dearer ones do."""
    plan = _plan_at(lam, walks, macs_K)
    if fits(plan):
        return plan
    prices = sorted({step.lam for walk in walks for step in walk if step.lam > lam})
    first_fit = bisect_left(prices, True, key=lambda price: fits(_plan_at(price, walks, macs_K)))
    return _plan_at(prices[first_fit], walks, macs_K)


def _plan_at(lam: float, walks: Sequence[Sequence[Step]], macs_K: Sequence[int]) -> WidthPlan:
    choices = tuple(max(step for step in walk if step.lam <= lam).choice for walk in walks)
    return WidthPlan(choices, lam, sum(macs_K[choice] for choice in choices))


def _walks(gate_logits_TK: npt.ArrayLike, macs_K: Sequence[int]) -> list[list[Step]]:
    logits_TK = np.asarray(gate_logits_TK, dtype=np.float64)
    if logits_TK.ndim != 2 or logits_TK.shape[1] != len(macs_K):
        raise ValueError(f"gate logits of shape {logits_TK.shape} do not fit {len(macs_K)} widths")
    if not np.isfinite(logits_TK).all():
        raise ValueError("gate logits are not finite")
    cost_K = np.asarray(macs_K, dtype=np.float64) / macs_K[-1]
    return [_walk(logits_K, cost_K) for logits_K in logits_TK]


def _walk(logits_K: npt.NDArray[np.float64], cost_K: npt.NDArray[np.float64]) -> list[Step]:
    """Return the upper envelope of the lines `logits_k - lam * cost_k` over lam >= 0.

    Softmax's normaliser is the same for every width, so logits serve as well as log-probabilities. Among
    equals the cheaper width wins. Each step's lam is above the last one's, each cost below the last one's.
    """
    by_cost = [int(k) for k in np.argsort(cost_K, kind="stable")]
    steps = [Step(0.0, max(by_cost, key=lambda k: logits_K[k]))]
    while cheaper := [k for k in by_cost if cost_K[k] < cost_K[steps[-1].choice]]:
        now = steps[-1].choice
        crossings = [(logits_K[now] - logits_K[k]) / (cost_K[now] - cost_K[k]) for k in cheaper]
        nearest = min(range(len(cheaper)), key=lambda i: crossings[i])
        lam = max(float(crossings[nearest]), float(np.nextafter(steps[-1].lam, np.inf)))
        steps.append(Step(lam, cheaper[nearest]))
    return steps
