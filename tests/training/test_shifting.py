"""Training a model with temporal shift: both stages see what serving runs."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from sdcom.budget import WidthPlan
from sdcom.checkpoint import ModelInfo
from sdcom.config import ClipConfig, ModelConfig
from sdcom.engine.reference import compose
from sdcom.model import Model
from sdcom.models.composition import SDCOM
from sdcom.models.slimmable import batch_norms
from sdcom.models.temporal_shift import earlier_rows
from sdcom.preprocess import normalize
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import batches_of, patterned_store
from training.loop import LoopOptions
from training.policy import Course, frame_losses, train_policy
from training.recipes import Optimization, PolicyRecipe, SupernetRecipe
from training.records import EpochReport, Journal
from training.supernet import recalibrate_statistics, train_supernet
from training.views import NewViews, every_width

CONFIG = ModelConfig.model_validate(
    TINY_CONFIG.model_dump()
    | {
        "clip": ClipConfig(num_frames=4, short_side=72, crop=64, order="time"),
        "dynamic": "resnet18",
        "temporal_shift": True,
    }
)
T = CONFIG.clip.num_frames
QUICK = Optimization(learning_rate=0.02, epochs=1, batch_size=4, warmup_epochs=0, milestones=())


@pytest.fixture(scope="module")
def pristine() -> SDCOM:
    return lively_networks(CONFIG)


@pytest.fixture
def networks(pristine: SDCOM) -> SDCOM:
    return copy.deepcopy(pristine)


def test_the_policy_learns_from_what_serving_answers_at_the_widths_drawn(networks: SDCOM) -> None:
    batches = batches_of(patterned_store(4), CONFIG.clip, stage=2)
    batch = next(batches.epoch(0))
    (seen,) = NewViews(networks, "fp32").split(batches, 0, batch, 1, 0.0)
    assert seen.supplements_KND is None, "nothing can be known before the widths are drawn"
    recipe = PolicyRecipe()
    with torch.no_grad():
        losses = frame_losses(networks, seen, recipe, "fp32")

    served = []
    model = Model(ModelInfo(name="shifting", version="0", config=CONFIG), networks)
    for frames_TCHW, target_L, noise_TK in zip(
        batch.frames_BTCHW, batch.targets_BL, seen.noise_NK.view(4, T, -1), strict=True
    ):
        with torch.inference_mode():
            view = networks.look(frames_TCHW)
            gate_logits_BTK, _ = networks.gate.decide(networks.gate.embed(view.map_NCHW)[None])
            static_TL = networks.static.classify(view.features_ND)
        choices = tuple((gate_logits_BTK[0] + noise_TK).argmax(dim=-1).tolist())
        logits_TL = _served(model, frames_TCHW, WidthPlan(choices, 0.0, 0))
        targets_TL = target_L.expand(T, -1)
        served.append(
            functional.cross_entropy(logits_TL, targets_TL, reduction="none")
            + functional.cross_entropy(static_TL, targets_TL, reduction="none")
        )
    torch.testing.assert_close(losses.cross_entropy_N, torch.cat(served), rtol=1e-4, atol=1e-4)


def _served(model: Model, frames_TCHW: torch.Tensor, plan: WidthPlan) -> torch.Tensor:
    """Undo the normalisation, and ask the reference composition."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (CONFIG.clip.mean, CONFIG.clip.std))
    pixels_THWC = ((frames_TCHW * std + mean) * 255).permute(0, 2, 3, 1)
    with pytest.MonkeyPatch.context() as patch:
        # augmented frames are no whole numbers: let them pass as they are
        patch.setattr("sdcom.engine.reference.normalize", lambda _frames, _clip: frames_TCHW)
        composed = compose(model, pixels_THWC.round().clamp(0, 255).byte().numpy(), lambda _: plan)
    return torch.from_numpy(composed.logits_TL)


def test_every_width_needs_the_widths_that_the_frames_get(networks: SDCOM) -> None:
    frames_NCHW = normalize(torch.zeros(T, 64, 64, 3, dtype=torch.uint8), CONFIG.clip)
    with pytest.raises(ValueError, match="must know the frame before each"):
        every_width(networks, frames_NCHW)


def test_statistics_are_those_of_frames_that_read_each_other(networks: SDCOM) -> None:
    torch.manual_seed(0)
    frames_NCHW = torch.randn(2 * T, 3, 64, 64)
    recalibrated, by_hand = networks.dynamic, copy.deepcopy(networks.dynamic)
    recalibrate_statistics(recalibrated, [0.5], [frames_NCHW], num_frames=T)
    for norm in batch_norms(by_hand):
        norm.momentum = 1.0
    with torch.no_grad():
        earlier = earlier_rows(torch.tensor([-1, 0, 1, 2, -1, 4, 5, 6]))
        by_hand.train().feature_map(frames_NCHW, 0.5, earlier)
    for name, value in by_hand.state_dict().items():
        if name.endswith("_w50"):
            torch.testing.assert_close(recalibrated.state_dict()[name], value, msg=name)


def test_both_stages_run_to_their_end_with_weights_learnt(networks: SDCOM) -> None:
    losses: list[float] = []
    loop = LoopOptions(journal=Journal([EpochReport(lambda *args: losses.append(args[2]["loss"]))]))
    batches = batches_of(patterned_store(8), CONFIG.clip)
    networks.dynamic = train_supernet(
        networks.dynamic,
        widths=CONFIG.widths,
        batches=batches,
        recipe=SupernetRecipe(optimization=QUICK, num_frames=2),
        loop=loop,
    )
    twice = Optimization(learning_rate=0.02, epochs=2, batch_size=4, warmup_epochs=0, milestones=())
    recipe = PolicyRecipe(optimization=twice, weighting="meta")
    batches = batches_of(patterned_store(8), CONFIG.clip, stage=2)
    train_policy(networks, [Course("policy", recipe, batches)], loop)
    assert len(losses) == 3
    assert np.isfinite(losses).all()
