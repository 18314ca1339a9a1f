"""A ceiling on what a video may cost holds besides its own budget; without one nothing changes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sdcom.budget import WidthPlan, choose_widths, fit_widths
from sdcom.checkpoint import ModelInfo
from sdcom.engine.planning import plan_each, video_planner
from sdcom.errors import FlopsBelowFloorError
from sdcom.recognition import GIGA, Budget
from tests.conftest import TINY_CONFIG

INFO = ModelInfo(name="tiny", version="0", config=TINY_CONFIG)
FRUGAL = INFO.model_copy(update={"default_budget": 0.5})
T = TINY_CONFIG.clip.num_frames
FLOOR, BASELINE = INFO.macs.floor(T), INFO.macs.baseline(T)
MACS_K = INFO.macs.dynamic_by_choice

logits = st.lists(st.lists(st.floats(-30, 30), min_size=5, max_size=5), min_size=T, max_size=T)
infos = st.sampled_from([INFO, FRUGAL])
budgets = st.one_of(
    st.none(),
    st.floats(FLOOR / BASELINE, 1).map(lambda share: Budget(share=share)),
    st.floats(FLOOR / GIGA, 2 * BASELINE / GIGA).map(lambda gflops: Budget(gflops=gflops)),
)
ceilings = st.floats(0, 1, exclude_max=True)


def planned(
    logits_TK: list[list[float]], budget: Budget | None, max_budget: float, info: ModelInfo = INFO
) -> WidthPlan:
    return video_planner(info, budget, max_budget=max_budget)(np.array(logits_TK, dtype=np.float32))


@settings(deadline=None)
@given(logits, budgets, ceilings, infos)
@example([[0.0, 0.0, 0.0, 0.0, 1.0]] * T, None, FLOOR / BASELINE, INFO)
def test_a_video_never_costs_more_than_the_ceiling_where_the_floor_allows_it(
    logits_TK: list[list[float]], budget: Budget | None, max_budget: float, info: ModelInfo
) -> None:
    cost = FLOOR + planned(logits_TK, budget, max_budget, info).macs
    assert cost <= max(max_budget * BASELINE, FLOOR)
    assert cost <= FLOOR + planned(logits_TK, budget, 1.0, info).macs


@settings(deadline=None)
@given(logits, budgets, ceilings)
def test_of_a_budget_and_a_ceiling_the_smaller_counts(
    logits_TK: list[list[float]], budget: Budget | None, max_budget: float
) -> None:
    allowed = BASELINE * 2 if budget is None else budget.macs(BASELINE)
    ceiling = max(Budget(share=max_budget).macs(BASELINE), FLOOR)
    alone = fit_widths(np.array(logits_TK, dtype=np.float32), MACS_K, min(allowed, ceiling) - FLOOR)
    assert planned(logits_TK, budget, max_budget) == alone


@settings(deadline=None)
@given(logits, budgets, ceilings, ceilings)
def test_a_lower_ceiling_never_means_more_width_for_any_frame(
    logits_TK: list[list[float]], budget: Budget | None, one: float, other: float
) -> None:
    low, high = (planned(logits_TK, budget, each) for each in sorted((one, other)))
    assert all(a <= b for a, b in zip(low.choices, high.choices, strict=True))
    assert low.lam >= high.lam


@settings(deadline=None)
@given(logits, budgets)
def test_without_a_ceiling_a_plan_is_the_budgets_alone(
    logits_TK: list[list[float]], budget: Budget | None
) -> None:
    plan = planned(logits_TK, budget, 1.0)
    logits_f32_TK = np.array(logits_TK, dtype=np.float32)
    if budget is None:
        assert plan == choose_widths(logits_f32_TK, MACS_K, 0.0)
    else:
        assert plan == fit_widths(logits_f32_TK, MACS_K, budget.macs(BASELINE) - FLOOR)


def test_a_budget_below_the_floor_is_refused_whatever_the_ceiling() -> None:
    for max_budget in (0.0, 0.5, 1.0):
        with pytest.raises(FlopsBelowFloorError):
            video_planner(INFO, Budget(share=0.1), max_budget=max_budget)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), budgets, ceilings, st.booleans()), max_size=8), st.integers(0, 9)
)
def test_videos_planned_together_get_what_each_would_alone(
    videos: list[tuple[int, Budget | None, float, bool]], seed: int
) -> None:
    """Of all lengths, some with a planner of their own, some with a gate that lost its mind."""
    random = np.random.default_rng(0)
    asked = []
    for num_frames, budget, max_budget, is_sane in videos:
        logits_TK = random.normal(scale=3, size=(num_frames, 5)).astype(np.float32)
        logits_TK[0, 0] = logits_TK[0, 0] if is_sane else np.nan
        asked.append((video_planner(INFO, budget, max_budget=max_budget), logits_TK))
        asked.append((lambda logits_TK: choose_widths(logits_TK, MACS_K, 1.0), logits_TK))
    for (planner, logits_TK), plan in zip(asked, plan_each(asked), strict=True):
        if isinstance(plan, Exception):
            with pytest.raises(type(plan), match=str(plan)):
                planner(logits_TK)
        else:
            assert planner(logits_TK) == plan
