"""Frames one by one: equal to the composition on a window of them, whichever way it is computed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sdcom.budget import choose_widths
from sdcom.engine.reference import compose
from sdcom.engine.stream import CausalStream, StreamStep
from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import Model
from sdcom.preprocess import normalize
from tests.conftest import TINY_CONFIG
from tests.sdcom.conftest import always, patterned_frames

T = TINY_CONFIG.clip.num_frames


@pytest.mark.parametrize("lam", [0.0, 0.5, 3.0])
def test_the_first_frames_equal_the_composition_of_them(tiny_model: Model, lam: float) -> None:
    frames_THWC = patterned_frames(T, 7)
    steps = _push_all(tiny_model, lam, frames_THWC)
    choices = [TINY_CONFIG.widths.index(step.width) for step in steps]
    composed = compose(tiny_model, frames_THWC, always(tiny_model, choices))
    np.testing.assert_allclose(
        np.stack([step.logits_L for step in steps]), composed.logits_TL, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("lam", [0.0, 0.5, 3.0])
def test_the_first_frames_take_the_widths_that_the_whole_video_would(tiny_model: Model, lam: float) -> None:
    frames_THWC, macs_K = patterned_frames(T, 8), tiny_model.info.macs.dynamic_by_choice
    composed = compose(tiny_model, frames_THWC, lambda logits_TK: choose_widths(logits_TK, macs_K, lam))
    widths = [step.width for step in _push_all(tiny_model, lam, frames_THWC)]
    assert widths == [TINY_CONFIG.widths[choice] for choice in composed.plan.choices]


@pytest.mark.parametrize("lam", [0.0, 0.5, 3.0])
def test_a_sliding_window_equals_the_offline_causal_path(tiny_model: Model, lam: float) -> None:
    frames_NHWC = patterned_frames(3 * T + 1, 9)
    expected = _offline(tiny_model, frames_NHWC, lam)
    steps = _push_all(tiny_model, lam, frames_NHWC)
    assert [step.width for step in steps] == expected.widths
    np.testing.assert_allclose(
        np.stack([step.logits_L for step in steps]), expected.logits_NL, rtol=0, atol=1e-5
    )
    assert len(set(expected.widths)) > 1, "one width alone shows little"


def test_what_left_the_window_is_forgotten(tiny_model: Model) -> None:
    # Older frames were in the window when the tail's first T frames got their widths, but not later on.
    tail = patterned_frames(2 * T, 10)
    histories = [patterned_frames(T, seed) for seed in (11, 12)]
    one, other = (_push_all(tiny_model, 0.0, np.concatenate([history, tail])) for history in histories)
    assert [step.width for step in one[2 * T :]] == [step.width for step in other[2 * T :]]
    np.testing.assert_allclose(one[-1].logits_L, other[-1].logits_L, rtol=0, atol=1e-6)
    assert np.abs(one[T].logits_L - other[T].logits_L).max() > 1e-3


def test_streams_do_not_share_state(tiny_model: Model) -> None:
    frames_NHWC = patterned_frames(T + 2, 13)
    alone = [step.logits_L.tobytes() for step in _push_all(tiny_model, 0.0, frames_NHWC)]
    one, other = CausalStream(TorchBackend(tiny_model), 0.0), CausalStream(TorchBackend(tiny_model), 3.0)
    interleaved = []
    for frame_HWC, foreign_HWC in zip(frames_NHWC, patterned_frames(T + 2, 14), strict=True):
        interleaved.append(one.push(frame_HWC).logits_L.tobytes())
        other.push(foreign_HWC)
    assert interleaved == alone


def _push_all(model: Model, lam: float, frames_NHWC: npt.NDArray[np.uint8]) -> list[StreamStep]:
    stream = CausalStream(TorchBackend(model), lam)
    return [stream.push(frame_HWC) for frame_HWC in frames_NHWC]


@dataclass
class _Offline:
    widths: list[float]
    logits_NL: npt.NDArray[np.float32]


@torch.inference_mode()
def _offline(model: Model, frames_NHWC: npt.NDArray[np.uint8], lam: float) -> _Offline:
    """Answer after every frame with all frames at hand: batches over frames, then window by window."""
    networks, config, macs_K = model.networks, model.info.config, model.info.macs.dynamic_by_choice
    frames_NCHW = normalize(torch.from_numpy(frames_NHWC), config.clip)
    view = networks.look(frames_NCHW)
    embeddings_ND = networks.gate.embed(view.map_NCHW)
    windows = [slice(max(0, last + 1 - T), last + 1) for last in range(len(frames_NHWC))]

    newest_NK = torch.stack(
        [networks.gate.decide(embeddings_ND[None, window])[0][0, -1] for window in windows]
    )
    choices = choose_widths(newest_NK.numpy(), macs_K, lam).choices
    widths = [config.widths[choice] for choice in choices]

    dynamic_ND = torch.zeros(len(frames_NHWC), networks.dynamic.num_features)
    for width in set(widths) - {0.0}:
        rows = [row for row, chosen in enumerate(widths) if chosen == width]
        dynamic_ND[rows] = networks.fill(frames_NCHW[rows], width)
    fused_NF = networks.fusion.project(view.features_ND, dynamic_ND)
    logits = [
        networks.fusion.classify_at(fused_NF[window].amax(dim=0), window.stop - window.start - 1)
        for window in windows
    ]
    return _Offline(widths, torch.stack(logits).numpy())
