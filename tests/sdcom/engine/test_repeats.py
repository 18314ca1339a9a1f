"""A picture that a video repeats is computed once, in every way of composing it, and nothing else changes."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.budget import choose_widths
from sdcom.checkpoint import ModelInfo
from sdcom.config import ClipConfig
from sdcom.engine.backend import Backend, UInt8Array
from sdcom.engine.composed import Composed
from sdcom.engine.composition import compose_video
from sdcom.engine.dense_backend import DenseBackend
from sdcom.engine.early_exit import compose_until_confident
from sdcom.engine.ledger import Part
from sdcom.engine.limits import Limits
from sdcom.engine.metered import Metered
from sdcom.engine.repeats import first_positions, repeats_of
from sdcom.engine.scheduler import Scheduler
from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import Model
from tests.conftest import TINY_CONFIG, lively_networks
from tests.sdcom.conftest import always, patterned_frames

T, K = TINY_CONFIG.clip.num_frames, TINY_CONFIG.num_widths

pictures = st.lists(st.integers(0, T - 1), min_size=T, max_size=T)
choices = st.lists(st.integers(0, K - 1), min_size=T, max_size=T)
PATTERNED_THWC = patterned_frames(T, 5)


@given(st.lists(st.integers(0, 6), max_size=12))
def test_repeats_come_after_the_first_frame_of_their_picture(pictures_T: list[int]) -> None:
    repeats, first_T = repeats_of(pictures_T), [pictures_T.index(picture) for picture in pictures_T]
    assert repeats == [(first, each) for each, first in enumerate(first_T) if first < each]
    assert first_positions(len(pictures_T), repeats) == first_T


@pytest.fixture(scope="module", params=["reference", "dense"])
def backend(request: pytest.FixtureRequest, tiny_model: Model) -> Backend:
    if request.param == "reference":
        return TorchBackend(tiny_model)
    return DenseBackend(tiny_model, device="cpu", precision="fp32")


@settings(deadline=None, max_examples=15)
@given(pictures, choices)
def test_a_picture_is_computed_once_at_each_width(
    backend: Backend, pictures_T: list[int], chosen_T: list[int]
) -> None:
    metered, planner, frames_THWC = Metered(backend), always(backend, chosen_T), _shown(pictures_T)
    composed = compose_video(metered, frames_THWC, planner, pictures_T)
    _assert_same_answer(composed, compose_video(backend, frames_THWC, planner))
    _assert_computed_once(composed, backend, pictures_T)
    if not backend.buckets:  # else what runs is padded
        assert metered.executed() == composed.ledger.macs


@settings(deadline=None, max_examples=10)
@given(st.lists(st.tuples(pictures, choices), min_size=1, max_size=4), st.integers(1, 2 * T + 1))
def test_so_it_is_in_batches_with_others(
    backend: Backend, wishes: list[tuple[list[int], list[int]]], max_batch_frames: int
) -> None:
    limits = Limits(max_batch_frames=max_batch_frames, max_batch_videos=2)
    with Scheduler(backend.open_room(len(wishes)), backend.info.config, limits) as scheduler:
        futures = [
            scheduler.submit(_shown(pictures_T), always(backend, chosen_T), pictures_T)
            for pictures_T, chosen_T in wishes
        ]
        answers = [future.result(60) for future in futures]
    for (pictures_T, chosen_T), answer in zip(wishes, answers, strict=True):
        _assert_same_answer(answer, compose_video(backend, _shown(pictures_T), always(backend, chosen_T)))
        _assert_computed_once(answer, backend, pictures_T)


@settings(deadline=None, max_examples=10)
@given(pictures, st.sampled_from([0.0, 0.3, 2.0]))
def test_so_it_is_frame_by_frame(backend: Backend, pictures_T: list[int], lam: float) -> None:
    metered, frames_THWC, macs_K = Metered(backend), _shown(pictures_T), backend.info.macs.dynamic_by_choice
    whole = compose_video(backend, frames_THWC, partial(choose_widths, macs_K=macs_K, lam=lam), pictures_T)
    fed = compose_until_confident(metered, frames_THWC, confidence=1.0, pictures_T=pictures_T, lam=lam)
    _assert_same_answer(fed, whole)
    assert fed.ledger == whole.ledger
    if not backend.buckets:
        assert metered.executed() == fed.ledger.macs


def test_frames_that_read_those_before_them_are_filled_each() -> None:
    clip = ClipConfig(num_frames=T, short_side=72, crop=64, order="time")
    config = TINY_CONFIG.model_copy(update={"clip": clip, "dynamic": "resnet18", "temporal_shift": True})
    info = ModelInfo(name="shifting", version="0", config=config)
    backend, pictures_T = TorchBackend(Model(info, lively_networks(config))), [0] * T
    macs, frames_THWC = info.macs, _shown(pictures_T)
    chosen = partial(choose_widths, macs_K=macs.dynamic_by_choice, lam=0.0)
    whole = compose_video(backend, frames_THWC, chosen, pictures_T)
    assert max(Counter(choice for choice in whole.plan.choices if choice > 0).values()) > 1, "one width twice"
    _assert_same_answer(whole, compose_video(backend, frames_THWC, chosen))
    fed = compose_until_confident(backend, frames_THWC, confidence=1.0, pictures_T=pictures_T)
    _assert_same_answer(fed, whole)
    for each in (whole, fed):
        assert each.ledger.macs[Part.STATIC] == macs.static
        assert each.ledger.macs[Part.DYNAMIC] == each.plan.macs


def _shown(pictures_T: Sequence[int]) -> UInt8Array:
    return PATTERNED_THWC[pictures_T]


def _assert_same_answer(answer: Composed, expected: Composed) -> None:
    np.testing.assert_allclose(answer.logits_TL, expected.logits_TL, rtol=1e-4, atol=1e-5)
    assert answer.plan == expected.plan
    assert answer.ledger.width_counts == expected.ledger.width_counts
    assert answer.ledger.baseline_macs == expected.ledger.baseline_macs


def _assert_computed_once(answer: Composed, backend: Backend, pictures_T: Sequence[int]) -> None:
    macs, widths = backend.info.macs, backend.info.config.widths
    num_shown = len(set(pictures_T))
    filled = set(zip(pictures_T, answer.plan.choices, strict=True))
    assert answer.ledger.macs == Counter(
        {
            Part.STATIC: num_shown * macs.static,
            Part.GATE: num_shown * macs.gate_embedding + T * macs.gate_step,
            Part.DYNAMIC: sum(macs.dynamic[widths[choice]] for _, choice in filled),
            Part.FUSION: T * macs.fusion,
        }
    )
