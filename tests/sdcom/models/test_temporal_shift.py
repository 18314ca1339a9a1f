"""Temporal shift: by hand, and batches, grouped serving and streams saying the same of the same frames."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sdcom.budget import WidthPlan, choose_widths
from sdcom.checkpoint import ModelInfo
from sdcom.config import ClipConfig, ModelConfig
from sdcom.cost import backbone_macs
from sdcom.engine.bench import time_parts
from sdcom.engine.reference import compose
from sdcom.engine.stream import CausalStream
from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import Model
from sdcom.models.backbone import build_backbone
from sdcom.models.composition import SDCOM
from sdcom.models.resnet import SlimmableResNet
from sdcom.models.temporal_shift import CarriedFrame, Earlier, earlier_rows, rows_before, shifted
from sdcom.preprocess import normalize
from tests.conftest import lively_networks

WIDTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
CONFIG = ModelConfig(
    clip=ClipConfig(num_frames=6, short_side=48, crop=32, order="time"),
    labels=("open", "close", "push"),
    static_resolution=32,
    dynamic="resnet18",
    temporal_shift=True,
    gate_channels=8,
    gate_features=16,
    gate_hidden=16,
    fusion_features=32,
)
T = CONFIG.clip.num_frames
Frames = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def networks() -> SDCOM:
    return lively_networks(CONFIG)


@pytest.fixture(scope="module")
def model(networks: SDCOM) -> Model:
    return Model(ModelInfo(name="shifting", version="0", config=CONFIG), networks)


def _video(seed: int, num_frames: int = T) -> Frames:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def test_an_eighth_of_the_channels_is_the_frame_befores_and_zeros_at_a_videos_start() -> None:
    x_NCHW = torch.randn(4, 17, 2, 3)  # two videos of two frames; 17 channels: two are shifted
    before_N = rows_before(torch.ones(2, 2, dtype=torch.bool))
    assert before_N.tolist() == [-1, 0, -1, 2]
    y_NCHW = shifted(x_NCHW, earlier_rows(before_N))
    assert torch.equal(y_NCHW[:, 2:], x_NCHW[:, 2:])
    assert torch.equal(y_NCHW[[1, 3], :2], x_NCHW[[0, 2], :2])
    assert not y_NCHW[[0, 2], :2].any()
    assert torch.equal(shifted(x_NCHW[:, :7], earlier_rows(before_N)), x_NCHW[:, :7])


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_the_row_before_is_the_last_chosen_one_of_the_same_video(chosen: list[list[bool]]) -> None:
    expected = [
        max((5 * video + t for t in range(frame) if row[t]), default=-1)
        for video, row in enumerate(chosen)
        for frame in range(5)
    ]
    assert rows_before(torch.tensor(chosen)).tolist() == expected


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_it_has_no_weights_and_costs_no_macs(architecture: str) -> None:
    config = CONFIG.model_copy(update={"dynamic": architecture})
    with torch.device("meta"):
        shifting = build_backbone(config.dynamic, WIDTHS, 3, temporal_shift=True).eval()
        plain = build_backbone(config.dynamic, WIDTHS, 3)
    assert list(shifting.state_dict()) == list(plain.state_dict())
    before_N = rows_before(torch.ones(1, 2, dtype=torch.bool)).to("meta")
    for width in WIDTHS:
        with FlopCounterMode(display=False) as counter:
            shifting.feature_map(torch.empty(2, 3, 64, 64, device="meta"), width, earlier_rows(before_N))
        assert counter.get_total_flops() == 2 * 2 * backbone_macs(config.dynamic, width, 64)


def test_every_block_reads_the_frame_before_in_its_residual_branch_alone() -> None:
    network = SlimmableResNet("resnet18", (1.0,), 3, temporal_shift=True).eval()
    maps: list[Tensor] = []

    def recording(x_NCHW: Tensor) -> Tensor:
        maps.append(x_NCHW)
        return torch.zeros_like(x_NCHW)

    with torch.inference_mode():
        network.feature_map(torch.randn(1, 3, 32, 32), 1.0, recording)
    assert [x.shape[1] for x in maps] == [8, 8, 8, 16, 16, 32, 32, 64]
    block = network.layer1[1]
    x = torch.rand(1, 64, 4, 4)
    torch.nn.init.zeros_(block.get_submodule("bn2").get_parameter("weight"))
    assert torch.equal(block(x, 1.0, recording), x), "a branch that gives nothing leaves the frame's own map"


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_a_frame_sees_those_before_it_and_none_after_it_nor_other_videos(
    networks: SDCOM, width: float
) -> None:
    frames_NCHW = torch.randn(2 * T, 3, 32, 32)
    changed_NCHW = frames_NCHW.clone()
    changed_NCHW[2] = torch.randn(3, 32, 32)
    earlier = earlier_rows(rows_before(torch.ones(2, T, dtype=torch.bool)))
    with torch.inference_mode():
        before = networks.dynamic.feature_map(frames_NCHW, width, earlier).flatten(1)
        after = networks.dynamic.feature_map(changed_NCHW, width, earlier).flatten(1)
    moved = (before - after).abs().amax(dim=1) > 1e-6
    assert moved.tolist() == [2 <= t < T for t in range(2 * T)]


@pytest.mark.parametrize("choices", [(4, 4, 4, 4, 4, 4), (1, 4, 0, 1, 4, 2), (0, 0, 3, 0, 0, 3)])
def test_training_sees_what_grouped_serving_runs_whatever_the_neighbours_widths(
    networks: SDCOM, choices: tuple[int, ...]
) -> None:
    choices_BT = torch.tensor([choices, choices[::-1]])
    frames_NCHW = torch.randn(2 * T, 3, 32, 32)
    with torch.inference_mode():
        for index, width in enumerate(WIDTHS[1:], start=1):
            chosen_BT = choices_BT == index
            together_ND = networks.fill(frames_NCHW, width, earlier_rows(rows_before(chosen_BT)))
            for video, chosen_T in enumerate(chosen_BT):
                rows = chosen_T.nonzero()[:, 0]
                if len(rows):
                    frames = frames_NCHW[video * T + rows]
                    alone_ND = networks.fill(frames, width, earlier_rows(torch.arange(len(rows)) - 1))
                    torch.testing.assert_close(together_ND[video * T + rows], alone_ND, rtol=1e-4, atol=1e-4)


def test_grouped_frames_say_what_the_same_frames_say_one_by_one(model: Model) -> None:
    frames_THWC = _video(1)
    plan_of: list[WidthPlan] = []

    def choose(gate_logits_TK: npt.NDArray[np.float32]) -> WidthPlan:
        plan_of.append(choose_widths(gate_logits_TK, model.info.macs.dynamic_by_choice, 0.0))
        return plan_of[-1]

    composed = compose(model, frames_THWC, choose)
    assert len(set(plan_of[0].choices)) > 1, "one width alone would not show that they are kept apart"
    stream = CausalStream(TorchBackend(model), 0.0)
    for frame_HWC, logits_L, choice in zip(frames_THWC, composed.logits_TL, plan_of[0].choices, strict=True):
        step = stream.push(frame_HWC)
        assert step.width == WIDTHS[choice]
        np.testing.assert_allclose(step.logits_L, logits_L, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_frames_matters_to_the_dynamic_network(model: Model) -> None:
    frames_THWC = _video(2)
    full = WidthPlan((len(WIDTHS) - 1,) * T, 0.0, 0)
    forward, backward = (
        compose(model, frames, lambda _: full) for frames in (frames_THWC, frames_THWC[::-1].copy())
    )
    assert np.abs(forward.logits_TL[-1] - backward.logits_TL[-1]).max() > 1e-4


def test_a_frame_that_has_left_the_window_hands_nothing_on(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    widest = len(WIDTHS) - 1
    handed = []
    fill = model.networks.fill

    def observed(frames_NCHW: Tensor, width: float, earlier: Earlier) -> Tensor:
        def listening(x_NCHW: Tensor) -> Tensor:
            before = earlier(x_NCHW)
            handed.append(bool(before.any()))
            return before

        return fill(frames_NCHW, width, listening)

    monkeypatch.setattr(model.networks, "fill", observed)
    for gap in (T - 1, T):
        plans = iter([widest, *[0] * (gap - 1), widest])
        monkeypatch.setattr(
            "sdcom.budget.Allowance.plan",
            lambda *_args, plans=plans: WidthPlan((next(plans),), 0.0, 0),
        )
        stream = CausalStream(TorchBackend(model), 0.0)
        for frame_HWC in _video(3, gap + 1):
            handed.clear()
            stream.push(frame_HWC)
        assert any(handed) is (gap < T)


def test_a_carried_frame_hands_each_block_its_own_channels() -> None:
    carried = CarriedFrame()
    first, second = torch.randn(2, 3, 1, 2, 4, 4)
    for frame, expected in ((first, torch.zeros_like(first)), (second, first)):
        earlier = carried.next_frame()
        handed = [earlier(block_map) for block_map in frame]
        assert torch.equal(torch.stack(handed), expected)


def test_its_parts_can_be_timed(model: Model) -> None:
    names = [part.name for part in time_parts(TorchBackend(model), num_repeats=1)]
    assert names == ["static", "gate", "fusion", *(f"dynamic at {width:g}" for width in WIDTHS if width > 0)]


def test_a_network_that_shifts_refuses_frames_without_their_predecessors(networks: SDCOM) -> None:
    with pytest.raises(ValueError, match="must know the frame before each"):
        networks.fill(normalize(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), CONFIG.clip), 1.0)


def test_only_residual_networks_fed_in_time_order_shift() -> None:
    with pytest.raises(ValueError, match="needs a ResNet as the dynamic network, got mobilenet_v2"):
        ModelConfig(**(dict(CONFIG) | {"dynamic": "mobilenet_v2"}))
    with pytest.raises(ValueError, match="needs frames in the order of time, got 'coarse_to_fine'"):
        ModelConfig(labels=("a", "b"), temporal_shift=True)
    with pytest.raises(ValueError, match="temporal shift is for residual networks"):
        build_backbone("mobilenet_v2", (1.0,), 3, temporal_shift=True)
