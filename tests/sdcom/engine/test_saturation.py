"""The yardstick of the scheduler does the same work as the scheduler."""

import numpy as np
import pytest

from sdcom.budget import WidthPlan
from sdcom.checkpoint import ModelInfo
from sdcom.engine.costs import MACHINES
from sdcom.engine.limits import Limits
from sdcom.engine.on_host import HostRoom
from sdcom.engine.saturation import (
    budget_plans,
    drive,
    full_width_plans,
    ideal_speedup,
    random_plans,
    time_saturation,
)
from sdcom.engine.simulate import MIX
from sdcom.errors import FlopsBelowFloorError, InvalidParameterError
from tests.conftest import TINY_CONFIG
from tests.sdcom.engine.alone import BACKEND, WAIT_S, scheduling
from tests.sdcom.engine.numpy_backend import CONFIG, MACS, T, frames

LIMITS = Limits(max_batch_frames=8, max_batch_videos=3)


def test_stages_driven_directly_answer_as_the_scheduler_does() -> None:
    clips = [frames(seed) for seed in range(7)]
    plans = [WidthPlan(tuple((seed + i) % 5 for i in range(T)), 0.0, 0) for seed in range(7)]
    room = HostRoom(BACKEND, CONFIG)
    direct_BTL = drive(room, CONFIG, LIMITS, [room.hold(clip) for clip in clips], plans)
    with scheduling(BACKEND, LIMITS) as scheduler:
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


def test_frames_at_full_width_are_counted_and_cannot_be_more_than_there_are() -> None:
    plans = full_width_plans(CONFIG, 2, 3)
    assert [sorted(plan.choices, reverse=True) for plan in plans] == [[4, 4, *[0] * (T - 2)]] * 3
    assert {plan.macs for plan in plans} == {2 * MACS.dynamic[1.0]}
    with pytest.raises(InvalidParameterError, match=f"a video has {T} frames, got {T + 1}"):
        full_width_plans(CONFIG, T + 1, 1)


def test_each_turn_times_all_ways() -> None:
    begun: list[None] = []
    turns = time_saturation(
        HostRoom(BACKEND, CONFIG),
        CONFIG,
        LIMITS,
        MACHINES["cpu"],
        plans=random_plans(CONFIG, MIX, 5),
        num_turns=2,
        num_uploading=2,
        initializer=lambda: begun.append(None),
    )
    assert len(turns) == 2
    assert all(min(turn) > 0 for turn in turns)
    assert len(begun) == 3, "this thread and both schedulers'"
