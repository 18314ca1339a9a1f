"""Batched with others, real networks say of each video what the reference composition says of it alone."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.budget import WidthPlan, choose_widths
from sdcom.checkpoint import ModelInfo
from sdcom.engine.backend import Backend, UInt8Array
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.composition import compose_video
from sdcom.engine.dense_backend import DenseBackend
from sdcom.engine.limits import Limits
from sdcom.engine.reference import compose
from sdcom.engine.scheduler import Scheduler
from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import Model
from tests.conftest import REPOSITORY, TINY_CONFIG
from tests.sdcom.conftest import patterned_frames

T, K = TINY_CONFIG.clip.num_frames, TINY_CONFIG.num_widths


choices = st.lists(st.integers(0, K - 1), min_size=T, max_size=T)
prices = st.sampled_from([0.0, 0.3, 2.0])


@pytest.fixture(scope="module")
def dense(tiny_model: Model) -> DenseBackend:
    return DenseBackend(tiny_model, device="cpu", precision="fp32")


videos = st.lists(choices | prices, min_size=1, max_size=6)
batch_sizes = st.integers(1, 2 * T + 1), st.sampled_from([(), (3, 8)])


@settings(deadline=None, max_examples=12)
@given(videos, *batch_sizes)
def test_whatever_is_in_flight_with_it_a_video_gets_the_references_answer_and_ledger(
    tiny_model: Model, wishes: list[list[int] | float], max_batch_frames: int, buckets: tuple[int, ...]
) -> None:
    limits = Limits(max_batch_frames=max_batch_frames, max_batch_videos=3, buckets=buckets)
    _answers_as_alone(TorchBackend(tiny_model), partial(compose, tiny_model), wishes, limits)


@settings(deadline=None, max_examples=12)
@given(videos, *batch_sizes)
def test_in_the_memory_of_a_device_it_gets_what_its_backend_says_of_it_alone(
    dense: DenseBackend, wishes: list[list[int] | float], max_batch_frames: int, buckets: tuple[int, ...]
) -> None:
    limits = Limits(max_batch_frames=max_batch_frames, max_batch_videos=3, buckets=buckets)
    _answers_as_alone(dense, partial(compose_video, dense), wishes, limits)


def _answers_as_alone(
    backend: Backend,
    alone: Callable[[UInt8Array, Planner], Composed],
    wishes: list[list[int] | float],
    limits: Limits,
) -> None:
    planners = [_planner(backend.info, wish) for wish in wishes]
    clips = [patterned_frames(T, seed) for seed in range(len(wishes))]
    with Scheduler(backend.open_room(len(wishes)), backend.info.config, limits) as scheduler:
        futures = [scheduler.submit(*video) for video in zip(clips, planners, strict=True)]
        answers = [future.result(60) for future in futures]
    for clip, planner, answer in zip(clips, planners, answers, strict=True):
        expected = alone(clip, planner)
        np.testing.assert_allclose(answer.logits_TL, expected.logits_TL, rtol=1e-4, atol=1e-5)
        assert answer.plan == expected.plan
        assert answer.ledger == expected.ledger
        assert list(answer.stage_s) == list(expected.stage_s)


def _planner(info: ModelInfo, wish: list[int] | float) -> Planner:
    macs_K = info.macs.dynamic_by_choice
    if isinstance(wish, list):
        plan = WidthPlan(tuple(wish), 0.0, sum(macs_K[choice] for choice in wish))
        return lambda _: plan
    return lambda logits_TK: choose_widths(logits_TK, macs_K, wish)


def test_the_scheduler_and_its_simulation_load_no_torch() -> None:
    program = (
        "import sys, sdcom.engine.scheduler, sdcom.engine.simulate, sdcom.engine.measure;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
