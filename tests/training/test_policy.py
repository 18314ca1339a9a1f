"""Stage 2: the loss terms by hand, who gets gradients, and who stays as it is."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sdcom.models.composition import SDCOM
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import batches_of, patterned_store
from training.batches import Batch
from training.policy import PolicyLosses, every_width, observe, policy_losses, train_policy
from training.recipes import Optimization, PolicyRecipe

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
    torch.manual_seed(0)
    train_policy(
        networks,
        batches=batches_of(patterned_store(8), TINY_CONFIG.clip),
        recipe=recipe,
        report=lambda _stage, _epoch, terms: reports.append(terms),
    )
    return reports


def _losses(networks: SDCOM, batch: Batch, recipe: PolicyRecipe) -> PolicyLosses:
    observation = observe(networks, batch.frames_BTCHW.flatten(0, 1))
    return policy_losses(networks, observation, batch.targets_BL, recipe)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_terms_are_those_of_the_method(networks: SDCOM, batch: Batch, smoothing: float) -> None:
    recipe = PolicyRecipe(label_smoothing=smoothing)
    torch.manual_seed(5)
    losses = _losses(networks, batch, recipe)
    expected = _by_hand(networks, batch, recipe, seed=5)
    torch.testing.assert_close(losses.cross_entropy, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.efficiency, expected[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.diversity, expected[2], rtol=1e-4, atol=1e-5)
    total = expected[0] + 0.7 * expected[1] + expected[2]
    torch.testing.assert_close(losses.total(recipe), total, rtol=1e-4, atol=1e-5)


def test_choices_are_one_hot_so_that_training_sees_what_serving_runs(networks: SDCOM, batch: Batch) -> None:
    seen = set()
    for seed in range(5):
        torch.manual_seed(seed)
        sixteenths = float(_losses(networks, batch, PolicyRecipe()).efficiency.detach()) * B * T * 16
        assert sixteenths == pytest.approx(round(sixteenths), abs=1e-3)
        seen.add(round(sixteenths))
    assert len(seen) > 1, "the widths are drawn"


def test_every_term_of_the_loss_reaches_the_gate_and_none_the_dynamic_network(
    networks: SDCOM, batch: Batch
) -> None:
    for term in ("cross_entropy", "efficiency", "diversity"):
        networks.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        getattr(_losses(networks, batch, PolicyRecipe()), term).backward()
        assert all(p.grad is not None and p.grad.any() for p in networks.gate.parameters()), term
        assert all(p.grad is None for p in networks.dynamic.parameters()), term
        gets_it = [p.grad is not None and bool(p.grad.any()) for p in networks.fusion.parameters()]
        assert any(gets_it) is (term == "cross_entropy"), term


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
    assert [set(terms) for terms in reports] == [{"cross_entropy", "efficiency", "diversity"}] * 2


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


def _by_hand(networks: SDCOM, batch: Batch, recipe: PolicyRecipe, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Work the terms out frame by frame, with the widths that the same noise chooses."""
    fed_BTCHW = batch.frames_BTCHW
    views = [networks.look(fed_BTCHW[video]) for video in range(B)]
    gate_logits_BTK = torch.stack(
        [networks.gate.decide(networks.gate.embed(view.map_NCHW)[None])[0][0] for view in views]
    )
    torch.manual_seed(seed)
    noise_BTK = -torch.empty_like(gate_logits_BTK).exponential_().log()  # Gumbel's
    choices_BT = (gate_logits_BTK + noise_BTK).argmax(dim=-1)
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
    cross_entropy = torch.stack(fusion_losses).mean() + torch.stack(static_losses).mean()
    return cross_entropy, torch.tensor(costs).mean(), 1 + torch.stack(similarities).mean()
