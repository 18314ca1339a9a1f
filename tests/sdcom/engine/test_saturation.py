"""The yardstick of the scheduler does the same work as the scheduler."""

import numpy as np

from sdcom.budget import WidthPlan
from sdcom.engine.costs import MACHINES
from sdcom.engine.limits import Limits
from sdcom.engine.saturation import drive, time_saturation
from sdcom.engine.scheduler import Scheduler
from sdcom.engine.simulate import MIX
from tests.sdcom.engine.alone import BACKEND, WAIT_S
from tests.sdcom.engine.numpy_backend import CONFIG, T, frames

LIMITS = Limits(max_batch_frames=8, max_batch_videos=3)


def test_stages_driven_directly_answer_as_the_scheduler_does() -> None:
    clips = [frames(seed) for seed in range(7)]
    plans = [WidthPlan(tuple((seed + i) % 5 for i in range(T)), 0.0, 0) for seed in range(7)]
    direct_BTL = drive(BACKEND, CONFIG, LIMITS, clips, plans)
    with Scheduler(BACKEND, CONFIG, LIMITS) as scheduler:
        for clip, plan, direct_TL in zip(clips, plans, direct_BTL, strict=True):
            answer = scheduler.submit(clip, lambda _, plan=plan: plan).result(WAIT_S)  # type: ignore[misc]
            np.testing.assert_allclose(answer.logits_TL, direct_TL, rtol=1e-4, atol=1e-5)


def test_each_turn_times_both() -> None:
    begun: list[None] = []
    turns = time_saturation(
        BACKEND,
        CONFIG,
        LIMITS,
        MACHINES["cpu"],
        mix=MIX,
        num_videos=5,
        num_turns=2,
        initializer=lambda: begun.append(None),
    )
    assert len(turns) == 2
    assert all(turn.direct_s > 0 and turn.scheduled_s > 0 for turn in turns)
    assert len(begun) == 2, "this thread and the scheduler's"
