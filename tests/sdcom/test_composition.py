"""Frames grouped by width: the same answer as each frame alone, and the same every time."""

from random import Random

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdcom.budget import WidthPlan, choose_widths
from sdcom.engine.reference import compose
from sdcom.model import Model
from sdcom.preprocess import normalize
from tests.conftest import TINY_CONFIG
from tests.sdcom.conftest import always, patterned_frames

T, K = TINY_CONFIG.clip.num_frames, TINY_CONFIG.num_widths
plans = st.lists(st.integers(0, K - 1), min_size=T, max_size=T)
seeds = st.integers(0, 1000)


@settings(deadline=None, max_examples=25)
@given(plans, seeds)
def test_grouped_and_frame_by_frame_agree(tiny_model: Model, choices: list[int], seed: int) -> None:
    frames_THWC = patterned_frames(T, seed)
    grouped = compose(tiny_model, frames_THWC, always(tiny_model, choices))
    alone_TL, _ = _frame_by_frame(tiny_model, frames_THWC, choices)
    np.testing.assert_allclose(grouped.logits_TL, alone_TL, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_the_gate_decides_the_same_for_a_whole_video_as_frame_by_frame(tiny_model: Model, seed: int) -> None:
    asked: list[npt.NDArray[np.float32]] = []

    def remember(logits_TK: npt.NDArray[np.float32]) -> WidthPlan:
        asked.append(logits_TK)
        return choose_widths(logits_TK, tiny_model.info.macs.dynamic_by_choice, 0.0)

    frames_THWC = patterned_frames(T, seed)
    compose(tiny_model, frames_THWC, remember)
    _, alone_TK = _frame_by_frame(tiny_model, frames_THWC, [0] * T)
    np.testing.assert_allclose(asked[0], alone_TK, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(plans, seeds, st.randoms(use_true_random=False))
def test_the_order_of_frames_within_a_width_does_not_matter(
    tiny_model: Model, choices: list[int], seed: int, random: Random
) -> None:
    frames_THWC = patterned_frames(T, seed)
    order = list(range(T))
    for choice in set(choices):
        places = [place for place in range(T) if choices[place] == choice]
        for place, frame in zip(places, random.sample(places, len(places)), strict=True):
            order[place] = frame
    planner = always(tiny_model, choices)
    before = compose(tiny_model, frames_THWC, planner).logits_TL[-1]
    after = compose(tiny_model, frames_THWC[order], planner).logits_TL[-1]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)


def test_the_same_frames_give_the_same_bits(tiny_model: Model) -> None:
    macs_K = tiny_model.info.macs.dynamic_by_choice
    first, again = (
        compose(tiny_model, patterned_frames(T, 3), lambda logits_TK: choose_widths(logits_TK, macs_K, 0.3))
        for _ in range(2)
    )
    assert first.logits_TL.tobytes() == again.logits_TL.tobytes()
    assert first.plan == again.plan
    assert len(set(first.plan.choices)) > 1, "one width alone shows little"


def test_the_answer_depends_on_every_frame_and_on_every_width(tiny_model: Model) -> None:
    """Guards the other tests: a network whose features vanish agrees with everything."""
    frames_THWC = patterned_frames(T, 1)
    planner = always(tiny_model, [1, 2, 3, 4])
    whole = compose(tiny_model, frames_THWC, planner).logits_TL[-1]
    for frame in range(T):
        changed_THWC = frames_THWC.copy()
        changed_THWC[frame] = 255 - changed_THWC[frame]
        assert np.abs(compose(tiny_model, changed_THWC, planner).logits_TL[-1] - whole).max() > 1e-3
        other = always(tiny_model, [0 if place == frame else place + 1 for place in range(T)])
        assert np.abs(compose(tiny_model, frames_THWC, other).logits_TL[-1] - whole).max() > 1e-3


def test_width_zero_contributes_zeros_and_narrow_widths_zero_padded_features(tiny_model: Model) -> None:
    networks, config = tiny_model.networks, tiny_model.info.config
    frames_NCHW = normalize(torch.from_numpy(patterned_frames(3, 0)), config.clip)
    assert torch.equal(networks.fill(frames_NCHW, 0.0), torch.zeros(3, networks.dynamic.num_features))
    for width in config.widths[1:]:
        filled_ND = networks.fill(frames_NCHW, width)
        alive = int(width * networks.dynamic.num_features)
        assert filled_ND.shape == (3, networks.dynamic.num_features)
        assert not filled_ND[:, alive:].any()
        assert filled_ND[:, :alive].any(dim=0).float().mean() > 0.5


def test_anytime_answers_see_only_the_frames_fed_so_far(tiny_model: Model) -> None:
    frames_THWC = patterned_frames(T, 5)
    changed_THWC = frames_THWC.copy()
    changed_THWC[-1] = 255 - changed_THWC[-1]
    planner = always(tiny_model, [4] * T)
    one, other = (compose(tiny_model, frames, planner).logits_TL for frames in (frames_THWC, changed_THWC))
    np.testing.assert_allclose(one[:-1], other[:-1], rtol=0, atol=1e-5)
    assert np.abs(one[-1] - other[-1]).max() > 1e-3


def test_every_part_is_timed(tiny_model: Model) -> None:
    stage_s = compose(tiny_model, patterned_frames(T, 0), always(tiny_model, [0] * T)).stage_s
    assert list(stage_s) == ["static", "gate", "dynamic", "fusion"]
    assert all(seconds >= 0 for seconds in stage_s.values())


@torch.inference_mode()
def _frame_by_frame(
    model: Model, frames_THWC: npt.NDArray[np.uint8], choices: list[int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Compose in the plainest way: one frame at a time through every part."""
    networks, config = model.networks, model.info.config
    state: Tensor | None = None
    maximum_F = torch.zeros(config.fusion_features)
    logits, gate_logits = [], []
    for step, (frame_HWC, choice) in enumerate(zip(frames_THWC, choices, strict=True)):
        frame_NCHW = normalize(torch.from_numpy(frame_HWC)[None], config.clip)
        view = networks.look(frame_NCHW)
        gate_logits_BTK, state = networks.gate.decide(networks.gate.embed(view.map_NCHW)[None], state)
        gate_logits.append(gate_logits_BTK[0, 0])
        dynamic_ND = torch.zeros(1, networks.dynamic.num_features)
        if choice > 0:
            map_NCHW = networks.dynamic.feature_map(frame_NCHW, config.widths[choice])
            dynamic_ND[:, : map_NCHW.shape[1]] = map_NCHW.mean(dim=(2, 3))
        z_NF = networks.fusion.project(view.features_ND, dynamic_ND)
        maximum_F = torch.maximum(maximum_F, z_NF[0])
        logits.append(networks.fusion.classify_at(maximum_F, step))
    return torch.stack(logits).numpy(), torch.stack(gate_logits).numpy()
