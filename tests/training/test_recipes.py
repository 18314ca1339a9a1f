"""Recipes: what they promise, and which ones cannot be."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sdcom.config import ModelConfig
from sdcom.cost import model_macs
from training.published import activitynet, fcvid, mini_kinetics, something_v2
from training.recipes import Optimization, PolicyRecipe, Recipe, for_weights
from training.small import jhmdb_mini, own_videos, tiny

LABELS = tuple(f"label {index}" for index in range(200))
RecipeOf = Callable[..., Recipe]
EVERY: tuple[RecipeOf, ...] = (
    activitynet,
    fcvid,
    mini_kinetics,
    something_v2,
    jhmdb_mini,
    own_videos,
    tiny,
)


@pytest.mark.parametrize("recipe_of", EVERY, ids=lambda recipe_of: recipe_of.__name__)
def test_every_recipe_is_of_a_model_that_can_be_built_and_served(recipe_of: RecipeOf) -> None:
    recipe = recipe_of(LABELS, seed=3)
    assert recipe.seed == 3
    assert recipe.model.labels == LABELS
    assert ModelConfig.model_validate_json(recipe.model.model_dump_json()) == recipe.model
    macs = model_macs(recipe.model)
    num_frames = recipe.model.clip.num_frames
    assert 0 < macs.floor(num_frames) < macs.baseline(num_frames)


@pytest.mark.parametrize("recipe_of", [activitynet, fcvid, mini_kinetics])
def test_the_papers_recipes_have_the_papers_numbers(recipe_of: RecipeOf) -> None:
    recipe = recipe_of(LABELS)
    model, supernet, policy = recipe.model, recipe.supernet, recipe.policy
    assert (model.static, model.static_resolution, model.dynamic) == ("mobilenet_v2", 224, "resnet50")
    assert list(model.widths) == [0, 0.25, 0.5, 0.75, 1]
    assert (model.gate_channels, model.gate_features, model.gate_hidden) == (64, 1024, 1024)
    assert (model.fusion_features, model.dropout, model.clip.num_frames) == (4096, 0.2, 16)
    assert list(recipe.augmentation.scales) == [1, 0.875, 0.75, 0.66]
    stage1 = supernet.optimization
    assert (stage1.optimizer, stage1.learning_rate, stage1.weight_decay) == ("sgd", 0.01, 1e-4)
    assert (stage1.epochs, stage1.milestones, stage1.warmup_epochs) == (100, (40, 80), 2)
    assert (stage1.batch_size, supernet.ema_decay, supernet.label_smoothing) == (32, 0.997, 0.1)
    stage2 = policy.optimization
    assert (stage2.learning_rate, stage2.epochs, stage2.milestones) == (0.01, 50, (20, 40))
    assert (policy.static_multiplier, policy.gate_multiplier, policy.fusion_multiplier) == (0.5, 0.1, 5)
    assert (policy.efficiency_weight, policy.temperature, policy.weighting) == (0.7, 5, "meta")
    meta = policy.meta
    assert (meta.hidden, meta.learning_rate, meta.weight_decay) == (100, 1e-3, 1e-4)
    assert (meta.subset_size, meta.plain_decay) == (500, 0.005)


def test_something_something_is_about_time_and_direction() -> None:
    recipe = something_v2(LABELS)
    assert recipe.model.temporal_shift
    assert (recipe.model.clip.order, recipe.model.clip.num_frames) == ("time", 8)
    assert recipe.supernet.num_frames == 8
    assert not recipe.augmentation.flip


def test_own_videos_are_trained_on_in_small_batches_at_every_stage() -> None:
    recipe = own_videos(LABELS)
    assert list(recipe.stages) == ["supernet", "static", "policy", "gate"]
    assert {stage.optimization.batch_size for stage in recipe.stages.values()} == {16}


def test_weights_decide_how_pixels_are_normalised_and_padded() -> None:
    torchvision = for_weights(jhmdb_mini(LABELS), of_tensorflow=False)
    assert torchvision.model.clip.mean == (0.485, 0.456, 0.406)
    assert torchvision.model.clip.std == (0.229, 0.224, 0.225)
    assert not torchvision.model.same_padding
    assert for_weights(torchvision, of_tensorflow=True) == jhmdb_mini(LABELS)


def test_views_of_a_model_with_temporal_shift_are_not_to_be_remembered() -> None:
    recipe = something_v2(LABELS)
    policy = replace(recipe.policy, static_multiplier=0.0, frozen_statistics=True, num_views=2)
    with pytest.raises(ValueError, match="temporal shift cannot be remembered"):
        replace(recipe, policy=policy)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("static_multiplier", 0.5, r"nothing but the gate learns .*'static_multiplier': 0\.5.* must be 0"),
        ("classifier_multiplier", 1.0, r"nothing but the gate learns .*'classifier_multiplier': 1\.0"),
        ("fusion_multiplier", 3.0, r"nothing but the gate learns .*'fusion_multiplier': 3\.0"),
        ("frozen_statistics", False, "nothing but the gate learns .* frozen_statistics must be true"),
        ("num_views", 4, r"sees the policy's views: gate\.num_views=4 must be policy\.num_views=0"),
    ],
)
def test_a_gates_stage_that_would_train_anything_else_is_refused(
    name: str, value: float, message: str
) -> None:
    recipe = tiny(LABELS)
    gate = replace(
        recipe.policy,
        static_multiplier=0.0,
        classifier_multiplier=0.0,
        fusion_multiplier=0.0,
        frozen_statistics=True,
    )
    assert list(replace(recipe, gate=gate).stages) == ["supernet", "policy", "gate"]
    with pytest.raises(ValueError, match=message):
        replace(recipe, gate=replace(gate, **{name: value}))  # type: ignore[arg-type]  # of several types


def test_a_policy_in_which_nothing_would_learn_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would learn: one of static_multiplier, classifier_mul"):
        PolicyRecipe(
            static_multiplier=0.0, classifier_multiplier=0.0, gate_multiplier=0.0, fusion_multiplier=0.0
        )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("accumulation", -1, "accumulation must be at least 1, got -1"),
        ("learning_rate", 0.0, r"learning_rate=0\.0 must be positive"),
        ("epochs", -2, r"epochs=-2 not negative"),
    ],
)
def test_an_optimisation_that_cannot_be_is_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Optimization(), **{name: value})  # type: ignore[arg-type]  # names of several types
