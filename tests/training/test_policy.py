"""Stage 2: the loss terms by hand, who gets gradients, and who stays as it is."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sdcom.models.composition import SDCOM, StaticView
from sdcom.preprocess import normalize
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import batches_of, patterned_store
from training.batches import Augmentation, Batch
from training.loop import LoopOptions
from training.meta import FrameLosses, MetaNetwork
from training.optimize import build_optimizer
from training.policy import Course, PolicyStage, frame_losses, train_policy
from training.recipes import MetaRecipe, Optimization, PolicyRecipe
from training.records import EpochReport, Journal
from training.views import NewViews, PolicyBatch, RememberedViews, every_width

B, T = 3, TINY_CONFIG.clip.num_frames
QUICK = Optimization(learning_rate=0.02, epochs=2, batch_size=4, warmup_epochs=0, milestones=())


@pytest.fixture(scope="module")
def pristine() -> SDCOM:
    return lively_networks(TINY_CONFIG)


@pytest.fixture
def networks(pristine: SDCOM) -> SDCOM:
    return copy.deepcopy(pristine)


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    coarse = torch.randn(B * T, 3, 4, 4)
    frames_NCHW = functional.interpolate(coarse, TINY_CONFIG.clip.crop, mode="bilinear")
    return Batch(frames_NCHW.unflatten(0, (B, T)), torch.eye(3)[[2, 0, 1]], torch.arange(B))


def _train(networks: SDCOM, recipe: PolicyRecipe) -> list[dict[str, float]]:
    reports: list[dict[str, float]] = []
    course = Course("policy", recipe, batches_of(patterned_store(8), TINY_CONFIG.clip, stage=2))
    journal = Journal([EpochReport(lambda _stage, _epoch, terms: reports.append(terms))])
    train_policy(networks, [course], LoopOptions(journal=journal))
    return reports


def _noise(seed: int) -> Tensor:
    drawn = np.random.default_rng(seed).gumbel(size=(B * T, TINY_CONFIG.num_widths))
    return torch.from_numpy(drawn.astype(np.float32))


def _losses(networks: SDCOM, batch: Batch, recipe: PolicyRecipe, seed: int = 0) -> FrameLosses:
    frames_NCHW = batch.frames_BTCHW.flatten(0, 1)
    seen = PolicyBatch(
        frames_NCHW, *every_width(networks, frames_NCHW), _noise(seed), torch.zeros(B * T), batch.targets_BL
    )
    return frame_losses(networks, seen, recipe, "fp32")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_terms_are_those_of_the_method(networks: SDCOM, batch: Batch, smoothing: float) -> None:
    recipe = PolicyRecipe(label_smoothing=smoothing, diversity_weight=0.5)
    losses = _losses(networks, batch, recipe, seed=5)
    expected = _by_hand(networks, batch, recipe, _noise(5))
    torch.testing.assert_close(losses.cross_entropy_N, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.efficiency_N, expected[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.diversity, 0.5 * expected[2], rtol=1e-4, atol=1e-5)


def test_a_step_learns_from_the_weighted_sum_of_the_terms(networks: SDCOM) -> None:
    recipe = PolicyRecipe(optimization=QUICK, diversity_weight=0.3)
    for terms in _train(networks, recipe):
        total = terms["cross_entropy"] + 0.7 * terms["efficiency"] + terms["diversity"]
        assert terms["loss"] == pytest.approx(total, rel=1e-5)


def test_choices_are_one_hot_so_that_training_sees_what_serving_runs(networks: SDCOM, batch: Batch) -> None:
    seen = set()
    for seed in range(5):
        sixteenths = _losses(networks, batch, PolicyRecipe(), seed).efficiency_N.detach() * 16
        torch.testing.assert_close(sixteenths, sixteenths.round(), atol=1e-4, rtol=0)
        seen.add(tuple(sixteenths.round().tolist()))
    assert len(seen) > 1, "the widths are drawn"


def test_every_term_of_the_loss_reaches_the_gate_and_none_the_dynamic_network(
    networks: SDCOM, batch: Batch
) -> None:
    for term in ("cross_entropy_N", "efficiency_N", "diversity"):
        networks.zero_grad(set_to_none=True)
        getattr(_losses(networks, batch, PolicyRecipe()), term).sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in networks.gate.parameters()), term
        assert all(p.grad is None for p in networks.dynamic.parameters()), term
        gets_it = [p.grad is not None and bool(p.grad.any()) for p in networks.fusion.parameters()]
        assert any(gets_it) is (term == "cross_entropy_N"), term


def test_every_width_is_zeros_at_width_zero_and_servings_features_elsewhere(
    networks: SDCOM, batch: Batch
) -> None:
    frames_NCHW = batch.frames_BTCHW.flatten(0, 1)
    features_KND, logits_KNL = every_width(networks, frames_NCHW)
    assert not features_KND[0].any()
    assert not logits_KNL[0].any(), "the classifier's bias is no opinion about the frame"
    for index, width in enumerate(TINY_CONFIG.widths[1:], start=1):
        torch.testing.assert_close(features_KND[index], networks.fill(frames_NCHW, width))
        torch.testing.assert_close(
            logits_KNL[index], networks.dynamic(frames_NCHW, width), rtol=1e-4, atol=1e-5
        )
    assert not features_KND.requires_grad


@pytest.mark.parametrize("frozen_statistics", [True, False])
def test_the_dynamic_network_stays_as_it_is_and_the_rest_learns(
    networks: SDCOM, frozen_statistics: bool
) -> None:
    before = copy.deepcopy(networks.state_dict())
    reports = _train(networks, PolicyRecipe(optimization=QUICK, frozen_statistics=frozen_statistics))
    moved = {name for name, value in networks.state_dict().items() if not torch.equal(value, before[name])}
    learned = {name for name, parameter in networks.named_parameters() if not name.startswith("dynamic.")}
    assert moved >= learned
    assert not any(name.startswith("dynamic.") for name in moved)
    assert any(name.startswith("static.") and "running" in name for name in moved) is not frozen_statistics
    assert not any(module.training for module in networks.modules())
    assert [set(terms) for terms in reports] == [{"loss", "cross_entropy", "efficiency", "diversity"}] * 2


def test_the_price_of_width_makes_the_gate_frugal(pristine: SDCOM) -> None:
    reported = []
    for weight in (0.0, 30.0):
        options = Optimization(learning_rate=0.05, epochs=6, batch_size=4, warmup_epochs=0, milestones=(99,))
        recipe = PolicyRecipe(optimization=options, efficiency_weight=weight, gate_multiplier=1.0)
        reported.append(_train(copy.deepcopy(pristine), recipe)[-1]["efficiency"])
    assert reported[1] < 0.7 * reported[0]


def test_heads_learn_from_remembered_views_while_both_networks_stay_as_they_are(networks: SDCOM) -> None:
    before = copy.deepcopy(networks.state_dict())
    recipe = PolicyRecipe(optimization=QUICK, num_views=2, static_multiplier=0.0, frozen_statistics=True)
    reports = _train(networks, recipe)
    moved = {name for name, value in networks.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"gate", "fusion", "static"}
    of_static = {name for name in moved if name.startswith("static.")}
    assert of_static <= {f"static.{networks.static.classifier_name}.{leaf}" for leaf in ("weight", "bias")}
    assert len(reports) == 2
    assert all(np.isfinite(list(terms.values())).all() for terms in reports)


def test_views_of_a_network_that_learns_are_not_to_be_remembered() -> None:
    with pytest.raises(ValueError, match="needs a frozen static network"):
        PolicyRecipe(num_views=2)


def test_remembered_views_are_what_the_networks_say_of_new_ones(networks: SDCOM) -> None:
    batches = batches_of(patterned_store(4), TINY_CONFIG.clip, Augmentation(time_order_share=0.5), stage=2)
    remembered = RememberedViews(networks.eval(), batches, 1, "fp32")
    for epoch in range(2):
        chosen_SB = batches.chosen(epoch)
        drawn = next(remembered.draw(batches, epoch, 0, chosen_SB))
        (recalled,) = remembered.split(batches, epoch, drawn, 1, 0.0)
        order_T = batches.feeding_order(epoch, 0)
        frames_NCHW = torch.cat(
            [
                normalize(batches.view(0, clip_index, order_T).frames_THWC, batches.clip)
                for clip_index in chosen_SB[0]
            ]
        )
        with torch.no_grad():
            view = networks.look(frames_NCHW)
        assert isinstance(recalled.static, StaticView)
        torch.testing.assert_close(recalled.static.map_NCHW, view.map_NCHW, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(recalled.static.features_ND, view.features_ND, rtol=2e-3, atol=2e-3)
        features_KND, logits_KNL = every_width(networks, frames_NCHW)
        torch.testing.assert_close(recalled.supplements_KND, features_KND, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(recalled.supplement_logits_KNL, logits_KNL, rtol=2e-3, atol=2e-3)
        assert recalled.targets_BL.argmax(dim=1).tolist() == [index % 3 for index in chosen_SB[0]]


def test_meta_weighting_starts_as_the_plain_sum_and_then_learns(networks: SDCOM) -> None:
    meta = MetaRecipe(hidden=8, plain_decay=2.0)
    recipe = PolicyRecipe(optimization=replace(QUICK, epochs=3), weighting="meta", meta=meta)
    reports = _train(networks, recipe)
    assert reports[0]["weight_of_cross_entropy"] == reports[0]["weight_of_efficiency"] == 1
    plain = reports[0]["cross_entropy"] + reports[0]["efficiency"] + reports[0]["diversity"]
    assert reports[0]["loss"] == pytest.approx(plain, rel=1e-5)
    assert reports[1]["weight_of_cross_entropy"] < 1


def test_meta_weighting_starts_from_the_scale_that_fixed_weighting_has_for_the_cost(pristine: SDCOM) -> None:
    once = replace(QUICK, epochs=1)
    fixed = PolicyRecipe(optimization=once, efficiency_weight=0.3)
    meta = PolicyRecipe(optimization=once, weighting="meta", meta=MetaRecipe(hidden=8, efficiency_scale=0.3))
    (weighed,), (scaled,) = (_train(copy.deepcopy(pristine), recipe) for recipe in (fixed, meta))
    assert scaled["loss"] == pytest.approx(weighed["loss"], rel=1e-5)
    assert scaled["efficiency"] == pytest.approx(0.3 * weighed["efficiency"], rel=1e-5)


def test_the_meta_network_moves_once_its_weights_have_a_say(networks: SDCOM) -> None:
    recipe = PolicyRecipe(optimization=QUICK, weighting="meta", meta=MetaRecipe(hidden=8, plain_decay=1.0))
    batches = batches_of(patterned_store(4), TINY_CONFIG.clip, stage=2)
    stage = PolicyStage(networks, NewViews(networks, "fp32"), batches, recipe)
    optimizer = build_optimizer(stage.parts(), recipe.optimization)
    network = stage.kept()["meta_network"]
    assert isinstance(network, MetaNetwork)
    before = copy.deepcopy(network.state_dict())
    state = copy.deepcopy(networks.state_dict())
    for epoch, moves in ((0, False), (1, True)):
        stage.begin_epoch(epoch)
        parts = stage.split(next(stage.draw(epoch, 0)), 2, epoch)
        stage.before_step(parts, optimizer, epoch)
        moved = [not torch.equal(value, before[name]) for name, value in network.state_dict().items()]
        assert all(moved) if moves else not any(moved)
    assert all(torch.equal(value, state[name]) for name, value in networks.state_dict().items())


def _by_hand(
    networks: SDCOM, batch: Batch, recipe: PolicyRecipe, noise_NK: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Work the terms out frame by frame, with the widths that the same noise chooses."""
    fed_BTCHW = batch.frames_BTCHW
    views = [networks.look(fed_BTCHW[video]) for video in range(B)]
    gate_logits_BTK = torch.stack(
        [networks.gate.decide(networks.gate.embed(view.map_NCHW)[None])[0][0] for view in views]
    )
    choices_BT = (gate_logits_BTK + noise_NK.view(B, T, -1)).argmax(dim=-1)
    widths = networks.config.widths

    static_losses, fusion_losses, costs, similarities = [], [], [], []
    for video, label in enumerate(batch.targets_BL.argmax(dim=1)):
        view = views[video]
        filled = []
        for frame in range(T):
            width = widths[int(choices_BT[video, frame])]
            static_L = networks.static.classify(view.features_ND[frame])
            supplement_D = networks.fill(fed_BTCHW[video, frame : frame + 1], width)[0]
            dynamic_L = networks.dynamic.classify(supplement_D) if width > 0 else torch.zeros_like(static_L)
            filled.append(supplement_D)
            costs.append(width**2)
            similarities.append(torch.cosine_similarity(dynamic_L, static_L, dim=0))
            static_losses.append(
                functional.cross_entropy(static_L, label, label_smoothing=recipe.label_smoothing)
            )
        logits_TL = networks.fusion(view.features_ND[None], torch.stack(filled)[None])[0]
        fusion_losses += [
            functional.cross_entropy(logits_L, label, label_smoothing=recipe.label_smoothing)
            for logits_L in logits_TL
        ]
    cross_entropy_N = torch.stack(fusion_losses) + torch.stack(static_losses)
    return cross_entropy_N, torch.tensor(costs), 1 + torch.stack(similarities).mean()
