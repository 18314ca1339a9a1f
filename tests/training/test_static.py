"""The static network learns its small input: what moves, what it is held to, and that it comes closer."""

import copy

import pytest
import torch

from sdcom.config import ClipConfig, ModelConfig
from sdcom.models.composition import SDCOM
from tests.training.conftest import LABELS, batches_of, patterned_store
from training.batches import Augmentation, Batch
from training.loop import LoopOptions
from training.losses import feature_distance
from training.recipes import Optimization, StaticRecipe
from training.records import EpochReport, Journal
from training.static import StaticStage, train_static
from training.supernet import recalibrate_statistics

CLIP = ClipConfig(num_frames=2, short_side=64, crop=64)
QUICK = Optimization(
    optimizer="adamw", learning_rate=5e-3, epochs=30, batch_size=4, warmup_epochs=0, milestones=()
)


@pytest.fixture
def networks() -> SDCOM:
    torch.manual_seed(0)
    networks = SDCOM(ModelConfig(clip=CLIP, labels=LABELS, static_resolution=32, dynamic="resnet18"))
    recalibrate_statistics(networks.static, (1.0,), [torch.randn(16, 3, 64, 64)])
    return networks


def _features_at_the_full_input(networks: SDCOM, batch: Batch) -> torch.Tensor:
    static = networks.static.eval()
    return static.pool(static.feature_map(batch.frames_BTCHW.flatten(0, 1), 1.0))


def test_it_is_held_to_its_own_features_at_the_full_input(networks: SDCOM) -> None:
    batches = batches_of(patterned_store(4), CLIP)
    batch = next(batches.epoch(0))
    with torch.no_grad():
        target_ND = _features_at_the_full_input(copy.deepcopy(networks), batch)
    stage = StaticStage(networks, batches, StaticRecipe(QUICK, num_frames=2))
    stage.begin_epoch(0)
    before = copy.deepcopy(networks)
    terms = stage.accumulate(batch, 0, lambda loss: loss.backward())
    with torch.no_grad():
        seen_ND = before.look(batch.frames_BTCHW.flatten(0, 1)).features_ND
    torch.testing.assert_close(terms["loss"], feature_distance(seen_ND, target_ND))


def test_it_comes_closer_and_nothing_else_moves(networks: SDCOM) -> None:
    losses: list[float] = []
    journal = Journal([EpochReport(lambda _stage, _epoch, terms: losses.append(terms["loss"]))])
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    batches = batches_of(patterned_store(4), CLIP, Augmentation(scales=(1.0,), flip=False))
    train_static(
        networks,
        batches=batches,
        recipe=StaticRecipe(QUICK, num_frames=2),
        loop=LoopOptions(journal=journal),
    )
    assert losses[-1] < 0.9 * losses[0]
    moved = {name for name, value in networks.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("static.") and not name.startswith("static.classifier.") for name in moved)
    assert not networks.static.training
