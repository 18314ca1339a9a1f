"""Stage 1: the sandwich step, what it leaves alone, and the statistics afterwards."""

import copy
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.architecture import statistics_suffix
from sdcom.config import ClipConfig
from sdcom.models.backbone import Backbone, build_backbone
from sdcom.models.slimmable import batch_norms
from tests.training.conftest import LABELS, batches_of, patterned_store
from training.batches import Batch
from training.loop import LoopOptions
from training.recipes import Optimization, SupernetRecipe
from training.records import EpochReport, Journal
from training.supernet import SupernetStage, recalibrate_statistics, train_supernet

WIDTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
CLIP = ClipConfig(num_frames=2, short_side=32, crop=32)
QUICK = Optimization(learning_rate=0.02, epochs=2, batch_size=4, warmup_epochs=0, milestones=())


@pytest.fixture(scope="module")
def pristine() -> Backbone:
    torch.manual_seed(0)
    network = build_backbone("resnet18", WIDTHS, len(LABELS))
    recalibrate_statistics(network, WIDTHS, [torch.randn(16, 3, 32, 32)])
    return network


@pytest.fixture
def backbone(pristine: Backbone) -> Backbone:
    return copy.deepcopy(pristine)


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    return Batch(torch.randn(4, 2, 3, 32, 32), torch.eye(3)[[0, 1, 2, 0]], torch.arange(4))


def _train(
    backbone: Backbone, recipe: SupernetRecipe, widths: Sequence[float] = WIDTHS
) -> tuple[Backbone, list[float]]:
    losses: list[float] = []
    trained = train_supernet(
        backbone,
        widths=widths,
        batches=batches_of(patterned_store(8), CLIP, batch_size=recipe.optimization.batch_size),
        recipe=recipe,
        loop=LoopOptions(
            journal=Journal([EpochReport(lambda _stage, _epoch, terms: losses.append(terms["loss"]))])
        ),
    )
    return trained, losses


def _stage(backbone: Backbone, recipe: SupernetRecipe, teacher: Backbone | None = None) -> SupernetStage:
    return SupernetStage(
        backbone, widths=WIDTHS, batches=batches_of(patterned_store(4), CLIP), recipe=recipe, teacher=teacher
    )


def _learn(stage: SupernetStage, batch: Batch) -> dict[str, Tensor]:
    return stage.accumulate(batch, 0, lambda loss: loss.backward())


def _gradients(network: Backbone) -> dict[str, Tensor]:
    return {name: value.grad for name, value in network.named_parameters() if value.grad is not None}


def _only(stage: SupernetStage, *widths: float) -> SupernetStage:
    """Return the stage, run at these widths alone, wide to narrow."""
    stage._widths = list(widths)
    return stage


def _video_logits(network: Backbone, batch: Batch, width: float) -> Tensor:
    """Mean over the frames, one video at a time."""
    logits_NL = network(batch.frames_BTCHW.flatten(0, 1), width)
    return torch.stack([logits_NL[2 * video : 2 * video + 2].mean(dim=0) for video in range(4)])


def test_a_step_adds_up_each_widths_own_loss(backbone: Backbone, batch: Batch) -> None:
    recipe = SupernetRecipe(num_frames=2)
    teacher = copy.deepcopy(backbone).eval()
    plain = copy.deepcopy(backbone).train()
    total = _learn(_stage(backbone, recipe), batch)["loss"]

    with torch.no_grad():
        taught = {width: _video_logits(teacher, batch, width).softmax(dim=-1) for width in WIDTHS[2:]}
    expected = functional.cross_entropy(
        _video_logits(plain, batch, 1.0), batch.targets_BL, label_smoothing=recipe.label_smoothing
    )
    for width in (0.75, 0.5):
        expected = expected + functional.cross_entropy(_video_logits(plain, batch, width), taught[1.0])
    ensemble_BL = (taught[1.0] + taught[0.75] + taught[0.5]) / 3
    expected = expected + functional.cross_entropy(_video_logits(plain, batch, 0.25), ensemble_BL)
    expected = expected + functional.cross_entropy(_video_logits(plain, batch, 0.0), batch.targets_BL)
    expected.backward()

    torch.testing.assert_close(total, expected.detach())
    for (name, ours), theirs in zip(backbone.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_what_teaches_gets_no_gradient_and_keeps_its_state(backbone: Backbone, batch: Batch) -> None:
    teacher = copy.deepcopy(backbone)
    before = copy.deepcopy(teacher.state_dict())
    stage = _stage(backbone, SupernetRecipe(num_frames=2, anchor_weight=1.0), teacher)
    _learn(stage, batch)
    for network in (teacher, stage.average.module):
        assert all(parameter.grad is None for parameter in network.parameters())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_pseudo_network_of_width_zero_runs_only_where_asked(backbone: Backbone, batch: Batch) -> None:
    for pseudo_width, moved in ((False, False), (True, True)):
        mean, _ = next(iter(batch_norms(backbone))).statistics(0.0)
        before = mean.clone()
        _learn(_stage(backbone, SupernetRecipe(num_frames=2, pseudo_width=pseudo_width)), batch)
        assert (not torch.equal(mean, before)) is moved


def test_at_the_start_the_anchor_costs_nothing_at_full_width_and_something_below(
    backbone: Backbone, batch: Batch
) -> None:
    recipe = SupernetRecipe(num_frames=2, anchor_weight=1.0, frozen_statistics=True, pseudo_width=False)
    for widths, is_free in (((1.0,), True), ((1.0, 0.5), False)):
        stage = _only(_stage(copy.deepcopy(backbone), recipe), *widths)
        assert (float(_learn(stage, batch)["features"]) == 0) is is_free


def test_the_anchor_pulls_features_back(backbone: Backbone, batch: Batch) -> None:
    first = copy.deepcopy(backbone).eval()
    recipe = SupernetRecipe(num_frames=2, anchor_weight=2.0, frozen_statistics=True, pseudo_width=False)
    stage = _only(_stage(backbone, recipe), 1.0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    frames_NCHW = batch.frames_BTCHW.flatten(0, 1)
    with torch.no_grad():
        ours_ND, first_ND = (
            network.pool(network.feature_map(frames_NCHW, 1.0)) for network in (backbone.eval(), first)
        )
    expected = 2 * (ours_ND - first_ND).square().mean() / first_ND.square().mean()
    terms = _learn(stage, batch)
    torch.testing.assert_close(terms["features"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["loss"], terms["classes"] + terms["features"])


def test_without_weight_labels_reach_the_classifier_alone(backbone: Backbone, batch: Batch) -> None:
    recipe = SupernetRecipe(num_frames=2, label_weight=0.0, anchor_weight=1.0)
    other = batch._replace(targets_BL=batch.targets_BL.roll(1, dims=1))
    gradients = []
    for labelled in (batch, other):
        network = copy.deepcopy(backbone)
        _learn(_stage(network, recipe), labelled)
        gradients.append(_gradients(network))
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]) is not name.startswith("fc."), name


def test_half_the_weight_of_labels_is_half_their_gradient(backbone: Backbone, batch: Batch) -> None:
    gradients = {}
    for weight in (0.5, 1.0):
        network = copy.deepcopy(backbone)
        _learn(_stage(network, SupernetRecipe(num_frames=2, label_weight=weight)), batch)
        gradients[weight] = _gradients(network)
    for name, factor in (("conv1.weight", 0.5), ("fc.weight", 1.0)):
        expected = factor * gradients[1.0][name]
        torch.testing.assert_close(gradients[0.5][name], expected, rtol=1e-3, atol=1e-5)


def test_a_given_teacher_adds_its_classes_at_every_width_but_the_pseudo_one(
    backbone: Backbone, batch: Batch
) -> None:
    teacher = copy.deepcopy(backbone).eval()
    with torch.no_grad():
        teacher.get_parameter("fc.weight").mul_(3)
        told_BL = _video_logits(teacher, batch, 1.0).softmax(dim=-1)
        plain = copy.deepcopy(backbone).train()
        expected = sum(
            functional.cross_entropy(_video_logits(plain, batch, width), told_BL) for width in WIDTHS[1:]
        )
    terms = _learn(_stage(backbone, SupernetRecipe(num_frames=2, teacher_weight=0.3), teacher), batch)
    torch.testing.assert_close(terms["teacher"], 0.3 * expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["loss"], terms["classes"] + terms["teacher"])


def test_features_that_nothing_trains_are_refused() -> None:
    with pytest.raises(ValueError, match="label_weight 0 leaves the features without a loss"):
        SupernetRecipe(label_weight=0.0)


def test_parts_of_a_batch_hold_each_of_its_clips_once(backbone: Backbone, batch: Batch) -> None:
    parts = _stage(backbone, SupernetRecipe(num_frames=2)).split(batch, 2, 0)
    assert len(parts) == 2
    for field, of_parts in zip(batch, zip(*parts, strict=True), strict=True):
        assert torch.equal(field, torch.cat(of_parts))


def test_frozen_statistics_stay_as_they_were_at_full_width_alone(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    recipe = SupernetRecipe(optimization=QUICK, num_frames=2, frozen_statistics=True, pseudo_width=False)
    trained, _ = _train(backbone, recipe)
    for name, value in trained.named_buffers():
        full_width = name.endswith(("running_mean", "running_var"))
        assert torch.equal(value, before[name]) is (full_width or name.endswith("_w00")), name


def test_training_moves_every_parameter_and_the_result_is_for_inference(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    trained, losses = _train(backbone, SupernetRecipe(optimization=QUICK, num_frames=2))
    assert not any(module.training for module in trained.modules())
    assert not any(torch.equal(value, before[name]) for name, value in trained.named_parameters())
    assert len(losses) == 2


def test_the_result_is_the_moving_average_of_the_steps(backbone: Backbone) -> None:
    options = replace(QUICK, batch_size=8, milestones=(99,))  # one step an epoch
    ends = {}
    for name, epochs, decay in (("first", 1, 0.0), ("second", 2, 0.0), ("average", 2, 0.25)):
        recipe = SupernetRecipe(optimization=replace(options, epochs=epochs), num_frames=2, ema_decay=decay)
        ends[name] = dict(_train(copy.deepcopy(backbone), recipe, (0.5, 1.0))[0].named_parameters())
    for name, average in ends["average"].items():
        expected = 0.25 * ends["first"][name] + 0.75 * ends["second"][name]
        torch.testing.assert_close(average, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(ends["first"]["fc.weight"], ends["second"]["fc.weight"], rtol=1e-3)


def test_recalibrated_statistics_are_the_plain_average_over_the_batches(backbone: Backbone) -> None:
    batches_NCHW = [torch.randn(6, 3, 32, 32) * scale for scale in (1, 2, 3)]
    sums: dict[str, Tensor] = {}
    for frames_NCHW in batches_NCHW:
        alone = copy.deepcopy(backbone).train()
        for norm in batch_norms(alone):
            norm.momentum = 1.0
        alone.feature_map(frames_NCHW, 0.5)
        for name, value in alone.named_buffers():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    recalibrate_statistics(backbone, [0.5], batches_NCHW)
    for name, value in backbone.named_buffers():
        if name.endswith(statistics_suffix(0.5)):
            torch.testing.assert_close(value, sums[name] / 3, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(value, before[name]), f"{name} is of another width"


def test_recalibration_holds_no_more_batches_than_the_one_at_hand_and_the_next(backbone: Backbone) -> None:
    drawn: list[weakref.ref[Tensor]] = []
    num_alive = []

    def batches() -> Iterator[Tensor]:
        for _ in range(5):
            frames_NCHW = torch.randn(4, 3, 32, 32)
            drawn.append(weakref.ref(frames_NCHW))
            num_alive.append(sum(reference() is not None for reference in drawn))
            yield frames_NCHW

    recalibrate_statistics(backbone, [0.25, 0.5], batches())
    assert len(num_alive) == 5
    assert max(num_alive) <= 2


def test_recalibrated_statistics_of_the_first_layer_by_hand(backbone: Backbone) -> None:
    frames_NCHW = torch.randn(5, 3, 32, 32)
    recalibrate_statistics(backbone, [0.25], [frames_NCHW])
    weight = backbone.get_parameter("conv1.weight")[:16]
    stem_NCHW = functional.conv2d(frames_NCHW, weight, stride=2, padding=3)
    mean, variance = next(iter(batch_norms(backbone))).statistics(0.25)
    torch.testing.assert_close(mean, stem_NCHW.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(variance, stem_NCHW.transpose(0, 1).flatten(1).var(1), rtol=1e-4, atol=1e-5)


def test_recalibration_leaves_the_momentum_and_no_width_the_worse(backbone: Backbone) -> None:
    recalibrate_statistics(backbone, WIDTHS, [torch.randn(4, 3, 32, 32)])
    assert {norm.momentum for norm in batch_norms(backbone)} == {0.1}
    assert not any(module.training for module in backbone.modules() if isinstance(module, nn.Module))
