"""Live streams through the front door: budgets, floors, frames that stand still and what is no frame."""

import time
from pathlib import Path

import numpy as np
import pytest

from sdcom.engine.ledger import Part
from sdcom.engine.stream import CausalStream
from sdcom.engine.torch_backend import TorchBackend
from sdcom.errors import (
    BudgetBelowFloorError,
    DeadlineExceededError,
    FlopsBelowFloorError,
    InvalidParameterError,
    UndecodableVideoError,
)
from sdcom.model import Model
from sdcom.recognition import GIGA, Budget, softmax
from sdcom.recognizer import Recognizer
from sdcom.video import TrustedVideo, resize_and_crop
from tests.conftest import TINY_CONFIG


@pytest.mark.parametrize(
    ("budget", "lam"),
    [
        (None, 0),
        (Budget(share=1), 0),
        (Budget(gflops=0.0701), 0),
        (Budget(gflops=0.07), 2),  # the gate of a sliding window takes 0.00002
        (Budget(gflops=0.0501), 2),
        (Budget(gflops=0.05), 50),
        (Budget(gflops=0.02485), 50),  # above a stream's floor, below every calibrated cost
    ],
)
def test_a_streams_budget_becomes_the_smallest_calibrated_price_within_it(
    recognizer: Recognizer, budget: Budget | None, lam: float
) -> None:
    answer = recognizer.open_stream(budget=budget).push(np.zeros((64, 64, 3), np.uint8))
    assert answer.ledger.lam == lam


def test_a_streams_budget_below_the_floor_is_refused(recognizer: Recognizer) -> None:
    with pytest.raises(BudgetBelowFloorError):
        recognizer.open_stream(budget=Budget(share=0.1))


def test_a_streams_floor_counts_the_gate_of_a_sliding_window(recognizer: Recognizer) -> None:
    macs = recognizer.info.macs
    floor = macs.stream_floor(4)
    assert floor == macs.floor(4) + 4 * 3 * macs.gate_step
    stream = recognizer.open_stream(budget=Budget(gflops=floor / GIGA))
    costs = [stream.push(np.full((64, 64, 3), level, np.uint8)).ledger for level in range(8)][4:]
    assert sum(cost.total_macs - cost.macs[Part.DYNAMIC] for cost in costs) == floor
    with pytest.raises(FlopsBelowFloorError, match="a stream's floor") as refused:
        recognizer.open_stream(budget=Budget(gflops=(floor - 1) / GIGA))
    assert round(refused.value.floor_gmacs * GIGA) == floor


def test_a_models_default_budget_always_opens_a_stream(tiny_model: Model, recognizer: Recognizer) -> None:
    macs = tiny_model.info.macs
    share = (macs.floor(4) + 1) / macs.baseline(4)  # enough for a video, not for a sliding window
    info = tiny_model.info.model_copy(update={"default_budget": share})
    frugal = Recognizer(TorchBackend(Model(info, tiny_model.networks)), recognizer.decoders)
    assert frugal.open_stream().push(np.zeros((64, 64, 3), np.uint8)).ledger.lam == 50
    with pytest.raises(BudgetBelowFloorError):
        frugal.open_stream(budget=Budget(share=share))


def test_a_streams_budget_needs_a_calibrated_model(tiny_model: Model, recognizer: Recognizer) -> None:
    info = tiny_model.info.model_copy(update={"calibration": ()})
    uncalibrated = Recognizer(TorchBackend(Model(info, tiny_model.networks)), recognizer.decoders)
    with pytest.raises(InvalidParameterError, match=r"tiny@0 has no calibration table"):
        uncalibrated.open_stream(budget=Budget(share=0.5))
    assert uncalibrated.open_stream().push(np.zeros((64, 64, 3), np.uint8)).ledger.lam == 0


def test_frames_of_any_size_make_a_stream(recognizer: Recognizer, clip: Path) -> None:
    video = TrustedVideo(clip)
    frames_NHWC = video.read(np.arange(video.num_frames), 120)
    stream = recognizer.open_stream()
    answers = [stream.push(frame_HWC) for frame_HWC in frames_NHWC[:6]]
    answers.append(stream.push(frames_NHWC[6][::2, ::3].copy()))
    for answer in answers:
        assert 0 < answer.prediction.score <= 1
        assert answer.prediction.label == TINY_CONFIG.labels[answer.prediction.index]
        assert answer.width in TINY_CONFIG.widths


def test_a_frame_that_stands_still_costs_a_stream_the_gate_and_fusion_alone(
    recognizer: Recognizer, clip: Path
) -> None:
    macs, num_frames = recognizer.info.macs, TINY_CONFIG.clip.num_frames
    video, shown = TrustedVideo(clip), [0, 1, 1, 1, 2, 2, 1]
    frames_NHWC = video.read(np.arange(3), 120)[shown]
    stream, alone = recognizer.open_stream(), CausalStream(recognizer.backend, 0.0)
    again, widths = 0, set[float]()
    for place, frame_HWC in enumerate(frames_NHWC):
        step = stream.push(frame_HWC)
        expected = alone.push(resize_and_crop(frame_HWC, TINY_CONFIG.clip))
        assert (step.width, step.prediction.score) == (
            expected.width,
            float(softmax(expected.logits_L).max()),
        )
        stands_still = place > 0 and shown[place] == shown[place - 1]
        again += stands_still
        assert step.ledger.macs[Part.STATIC] == (0 if stands_still else macs.static)
        num_steps = 1 if place < num_frames else num_frames
        embedding = 0 if stands_still else macs.gate_embedding
        assert step.ledger.macs[Part.GATE] == embedding + num_steps * macs.gate_step
        widths = widths if stands_still else set()
        assert step.ledger.macs[Part.DYNAMIC] == (0 if step.width in widths else macs.dynamic[step.width])
        widths.add(step.width)
    assert again == 3


def test_a_stream_keeps_no_more_pictures_than_a_clip_has(recognizer: Recognizer) -> None:
    num_frames, macs = TINY_CONFIG.clip.num_frames, recognizer.info.macs
    stream, frame_HWC = CausalStream(recognizer.backend, 0.0), np.zeros((64, 64, 3), np.uint8)

    def is_computed(picture: int) -> bool:
        return stream.push(frame_HWC, picture=picture).ledger.macs[Part.STATIC] == macs.static

    assert all(is_computed(picture) for picture in range(num_frames))
    assert not is_computed(0)
    assert is_computed(num_frames), "another one, which takes the oldest one's place"
    assert is_computed(0)
    assert not is_computed(num_frames)


def test_a_stream_refuses_what_is_no_frame_and_goes_on(recognizer: Recognizer) -> None:
    stream, untouched = recognizer.open_stream(), recognizer.open_stream()
    frame_HWC = np.full((80, 100, 3), 90, np.uint8)
    stream.push(frame_HWC)
    untouched.push(frame_HWC)
    with pytest.raises(InvalidParameterError):
        stream.push(np.zeros((4, 4), np.uint8))
    with pytest.raises(UndecodableVideoError):
        stream.push_jpeg(b"\xff\xd8 no more")
    assert stream.push(frame_HWC) == untouched.push(frame_HWC)


def test_a_jpeg_frame_that_is_late_is_refused_and_the_stream_goes_on(recognizer: Recognizer) -> None:
    stream, untouched = recognizer.open_stream(), recognizer.open_stream()
    with recognizer.decoders._worker(None), pytest.raises(DeadlineExceededError, match="decoder was free"):
        stream.push_jpeg(b"\xff\xd8\xff and so on", deadline=time.monotonic() + 0.1)
    frame_HWC = np.full((80, 100, 3), 90, np.uint8)
    assert stream.push(frame_HWC) == untouched.push(frame_HWC)
