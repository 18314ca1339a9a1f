"""Batched with others, real networks say of each video what the reference composition says of it alone."""

import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.budget import choose_widths
from sdcom.engine.composed import Planner
from sdcom.engine.limits import Limits
from sdcom.engine.reference import compose
from sdcom.engine.scheduler import Scheduler
from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import Model
from tests.conftest import REPOSITORY, TINY_CONFIG
from tests.sdcom.conftest import always, patterned_frames

T, K = TINY_CONFIG.clip.num_frames, TINY_CONFIG.num_widths


choices = st.lists(st.integers(0, K - 1), min_size=T, max_size=T)
prices = st.sampled_from([0.0, 0.3, 2.0])


@settings(deadline=None, max_examples=12)
@given(
    st.lists(choices | prices, min_size=1, max_size=6),
    st.integers(1, 2 * T + 1),
    st.sampled_from([(), (3, 8)]),
)
def test_whatever_is_in_flight_with_it_a_video_gets_the_references_answer_and_ledger(
    tiny_model: Model, wishes: list[list[int] | float], max_batch_frames: int, buckets: tuple[int, ...]
) -> None:
    limits = Limits(max_batch_frames=max_batch_frames, max_batch_videos=3, buckets=buckets)
    planners = [_planner(tiny_model, wish) for wish in wishes]
    clips = [patterned_frames(T, seed) for seed in range(len(wishes))]
    with Scheduler(TorchBackend(tiny_model), tiny_model.info.config, limits) as scheduler:
        futures = [scheduler.submit(*video) for video in zip(clips, planners, strict=True)]
        answers = [future.result(60) for future in futures]
    for clip, planner, answer in zip(clips, planners, answers, strict=True):
        expected = compose(tiny_model, clip, planner)
        np.testing.assert_allclose(answer.logits_TL, expected.logits_TL, rtol=1e-4, atol=1e-5)
        assert answer.plan == expected.plan
        assert answer.ledger == expected.ledger
        assert list(answer.stage_s) == list(expected.stage_s)


def _planner(model: Model, wish: list[int] | float) -> Planner:
    if isinstance(wish, list):
        return always(model, wish)
    return lambda logits_TK: choose_widths(logits_TK, model.info.macs.dynamic_by_choice, wish)


def test_the_scheduler_and_its_simulation_load_no_torch() -> None:
    program = (
        "import sys, sdcom.engine.scheduler, sdcom.engine.simulate, sdcom.engine.measure;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
