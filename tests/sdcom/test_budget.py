"""A budget is never exceeded, and more of it never means less width."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcom.budget import Allowance, Currency, choose_widths, fit_widths

MACS_K = (0, 28, 105, 232, 409)
IN_TIME = Currency((0, 90, 90, 250, 300), MACS_K)  # a narrow width takes as long as one twice as wide
logits = st.lists(
    st.lists(st.floats(-30, 30), min_size=5, max_size=5),
    min_size=1,
    max_size=20,
)


@given(logits, st.integers(0, 9000))
def test_a_budget_is_never_exceeded(logits_TK: list[list[float]], max_macs: int) -> None:
    plan = fit_widths(logits_TK, MACS_K, max_macs)
    assert plan.macs <= max_macs
    assert plan.macs == sum(MACS_K[choice] for choice in plan.choices)


@given(logits, st.integers(0, 9000), st.integers(0, 9000))
def test_more_budget_never_means_less_width_for_any_frame(
    logits_TK: list[list[float]], one: int, other: int
) -> None:
    small = fit_widths(logits_TK, MACS_K, min(one, other))
    large = fit_widths(logits_TK, MACS_K, max(one, other))
    assert all(a <= b for a, b in zip(small.choices, large.choices, strict=True))
    assert small.lam >= large.lam


@given(logits)
def test_an_unlimited_budget_is_the_trained_policy(logits_TK: list[list[float]]) -> None:
    plan = fit_widths(logits_TK, MACS_K, len(logits_TK) * MACS_K[-1])
    assert plan.choices == tuple(np.argmax(logits_TK, axis=1))
    assert plan.lam == 0


@given(logits, st.integers(0, 9000))
def test_no_smaller_price_would_fit(logits_TK: list[list[float]], max_macs: int) -> None:
    plan = fit_widths(logits_TK, MACS_K, max_macs)
    if plan.lam > 0:
        assert choose_widths(logits_TK, MACS_K, np.nextafter(plan.lam, 0)).macs > max_macs


@given(logits, st.integers(0, 9000))
def test_a_plan_is_the_choice_at_its_own_price(logits_TK: list[list[float]], max_macs: int) -> None:
    plan = fit_widths(logits_TK, MACS_K, max_macs)
    assert choose_widths(logits_TK, MACS_K, plan.lam) == plan


@given(logits, st.floats(0, 50))
def test_a_choice_maximises_the_priced_score(logits_TK: list[list[float]], lam: float) -> None:
    plan = choose_widths(logits_TK, MACS_K, lam)
    scores_TK = np.asarray(logits_TK) - lam * np.asarray(MACS_K) / MACS_K[-1]
    chosen_T = scores_TK[np.arange(len(logits_TK)), list(plan.choices)]
    np.testing.assert_allclose(chosen_T, scores_TK.max(axis=1), atol=1e-9)


@given(logits, st.floats(-20, 20))
def test_adding_a_constant_to_the_logits_changes_no_choice(
    logits_TK: list[list[float]], shift: float
) -> None:
    rounded_TK = np.round(logits_TK, 3)
    before = choose_widths(rounded_TK, MACS_K, 1.0)
    after = choose_widths(rounded_TK + np.round(shift), MACS_K, 1.0)
    chosen = [rounded_TK[np.arange(len(rounded_TK)), list(plan.choices)] for plan in (before, after)]
    cost_K = np.asarray(MACS_K) / MACS_K[-1]
    prices = [cost_K[list(plan.choices)] for plan in (before, after)]
    np.testing.assert_allclose(chosen[0] - prices[0], chosen[1] - prices[1], atol=1e-9)


def test_a_choice_that_no_finite_price_changes_is_left() -> None:
    logits_TK = [[-1e308, 1e308]]
    assert choose_widths(logits_TK, (0, 1), 1e300).choices == (1,)
    assert fit_widths(logits_TK, (0, 1), 0).choices == (0,)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        fit_widths([[0, np.nan, 0, 0, 0]], MACS_K, 100)
    with pytest.raises(ValueError, match="do not fit 5 widths"):
        fit_widths([[0, 0]], MACS_K, 100)
    with pytest.raises(ValueError, match="below the cheapest plan"):
        fit_widths([[0, 0]], (5, 10), 4)
    with pytest.raises(ValueError, match="at least 0"):
        choose_widths([[0, 0]], (0, 10), -1)


@given(logits, st.integers(0, 6000), st.integers(0, 9000), st.sampled_from([0.0, 0.7]))
def test_of_two_limits_both_hold_and_no_smaller_price_would_do(
    logits_TK: list[list[float]], left: int, macs_left: int, lam: float
) -> None:
    allowance = Allowance(IN_TIME, left, macs_left)
    plan = allowance.plan(logits_TK, lam)
    assert IN_TIME.cost(plan) <= left
    assert sum(MACS_K[choice] for choice in plan.choices) == plan.macs <= macs_left
    assert plan.lam >= lam
    if plan.lam > lam:
        assert not allowance.covers(Allowance(IN_TIME).plan(logits_TK, np.nextafter(plan.lam, 0)))


@given(logits, st.integers(0, 6000), st.integers(0, 9000))
def test_frame_by_frame_no_more_is_spent_than_was_left(
    logits_TK: list[list[float]], left: int, macs_left: int
) -> None:
    allowance = Allowance(IN_TIME, left, macs_left)
    plans = []
    for logits_K in logits_TK:
        plans.append(allowance.plan([logits_K]))
        allowance = allowance.after(plans[-1])
    assert allowance.left == left - sum(IN_TIME.cost(plan) for plan in plans) >= 0
    assert allowance.macs_left == macs_left - sum(plan.macs for plan in plans) >= 0
