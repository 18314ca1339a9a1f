"""The yardstick of the scheduler does the same work as the scheduler."""

import numpy as np
import pytest

from sdcom.budget import WidthPlan
from sdcom.checkpoint import ModelInfo
from sdcom.engine.costs import MACHINES
from sdcom.engine.limits import Limits
from sdcom.engine.saturation import budget_plans, drive, ideal_speedup, random_plans, time_saturation
from sdcom.engine.scheduler import Scheduler
from sdcom.engine.simulate import MIX
from sdcom.errors import FlopsBelowFloorError
from tests.conftest import TINY_CONFIG
from tests.sdcom.engine.alone import BACKEND, WAIT_S
from tests.sdcom.engine.numpy_backend import CONFIG, T, frames

LIMITS = Limits(max_batch_frames=8, max_batch_videos=3)


def test_stages_driven_directly_answer_as_the_scheduler_does() -> None:
    clips = [frames(seed) for seed in range(7)]
    plans = [WidthPlan(tuple((seed + i) % 5 for i in range(T)), 0.0, 0) for seed in range(7)]
    direct_BTL = drive(BACKEND, CONFIG, LIMITS, [BACKEND.hold(clip) for clip in clips], plans)
    with Scheduler(BACKEND, CONFIG, LIMITS) as scheduler:
        for clip, plan, direct_TL in zip(clips, plans, direct_BTL, strict=True):
            answer = scheduler.submit(clip, lambda _, plan=plan: plan).result(WAIT_S)  # type: ignore[misc]
            np.testing.assert_allclose(answer.logits_TL, direct_TL, rtol=1e-4, atol=1e-5)


def test_budgets_leave_each_video_within_its_share_and_the_ideal_counts_all_parts() -> None:
    info = ModelInfo(name="tiny", version="0", config=TINY_CONFIG)
    plans, macs, length = budget_plans(info, 0.5, 4), info.macs, TINY_CONFIG.clip.num_frames
    spent = [macs.floor(length) + plan.macs for plan in plans]
    assert all(each <= 0.5 * macs.baseline(length) for each in spent)
    assert len({plan.choices for plan in plans}) > 1
    assert ideal_speedup(TINY_CONFIG, plans) == pytest.approx(4 * macs.baseline(length) / sum(spent))
    with pytest.raises(FlopsBelowFloorError):
        budget_plans(info, 0.01, 1)


def test_each_turn_times_all_ways() -> None:
    begun: list[None] = []
    turns = time_saturation(
        BACKEND,
        CONFIG,
        LIMITS,
        MACHINES["cpu"],
        plans=random_plans(CONFIG, MIX, 5),
        num_turns=2,
        initializer=lambda: begun.append(None),
    )
    assert len(turns) == 2
    assert all(min(turn) > 0 for turn in turns)
    assert len(begun) == 2, "this thread and the scheduler's"
