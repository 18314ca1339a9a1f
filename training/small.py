"""Recipes for little data, from ImageNet weights, and one that only shows that everything works."""

from collections.abc import Sequence
from dataclasses import replace

from sdcom.config import ClipConfig, ModelConfig
from training.batches import Augmentation
from training.recipes import (
    MetaRecipe,
    Optimization,
    PolicyRecipe,
    Recipe,
    StaticRecipe,
    SupernetRecipe,
)


def jhmdb_mini(labels: Sequence[str], *, seed: int = 0) -> Recipe:
    """MobileNetV2 twice: at 32 pixels as the static network, slimmable at 224 as the dynamic one.

    For small data, from ImageNet weights: every width learns the pretrained features without labels, and so
    does the static network at 32 pixels, where it costs a fiftieth of a full-width frame; labels teach the
    classifiers, the fusion head and the gate alone. docs/experiments.md tells what each of these brings, what
    else was tried, and why the efficiency and diversity terms weigh less here than in the method.
    """
    model = ModelConfig(
        clip=ClipConfig(num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        labels=tuple(labels),
        static="mobilenet_v2",
        static_resolution=32,
        dynamic="mobilenet_v2",
        same_padding=True,
        gate_features=256,
        gate_hidden=256,
        fusion_features=512,
        dropout=0.5,
    )
    thorough = Optimization(
        optimizer="adamw", learning_rate=1e-3, weight_decay=0.05, epochs=24, warmup_epochs=2, milestones=()
    )
    policy = PolicyRecipe(
        optimization=replace(thorough, learning_rate=3e-4, epochs=10),
        static_multiplier=0.0,
        classifier_multiplier=10.0,
        gate_multiplier=1.0,
        fusion_multiplier=3.0,
        efficiency_weight=0.05,
        diversity_weight=0.1,
        meta=MetaRecipe(efficiency_scale=0.05),
        frozen_statistics=True,
        label_smoothing=0.1,
        num_views=5,
    )
    return Recipe(
        name="sdcom-jhmdb-mini",
        model=model,
        augmentation=Augmentation(flip=True, brightness=0.2, contrast=0.2, time_order_share=0.5),
        supernet=SupernetRecipe(
            optimization=thorough,
            num_frames=3,
            ema_decay=0.98,
            pseudo_width=False,
            anchor_weight=1.0,
            full_width_anchor=3.0,
            frozen_statistics=True,
            sort_channels=True,
            label_weight=0.0,
        ),
        static=StaticRecipe(optimization=replace(thorough, epochs=12), num_frames=3),
        policy=policy,
        gate=replace(
            policy,
            optimization=replace(thorough, epochs=20, warmup_epochs=0),
            classifier_multiplier=0.0,
            fusion_multiplier=0.0,
            weighting="fixed",
            efficiency_weight=0.02,
            highest_price=10.0,
            price_growth=0.3,
            diversity_weight=0.0,
        ),
        seed=seed,
    )


def tiny(labels: Sequence[str], *, seed: int = 0) -> Recipe:
    """Both stages in seconds on a processor: for tests and first steps, not for accuracy."""
    model = ModelConfig(
        clip=ClipConfig(num_frames=4, short_side=72, crop=64),
        labels=tuple(labels),
        static_resolution=32,
        dynamic="resnet18",
        gate_channels=16,
        gate_features=64,
        gate_hidden=64,
        fusion_features=128,
    )
    quick = Optimization(learning_rate=0.01, epochs=4, batch_size=8, warmup_epochs=0, milestones=())
    return Recipe(
        name="tiny",
        model=model,
        augmentation=Augmentation(time_order_share=0.5),
        supernet=SupernetRecipe(optimization=quick, num_frames=2),
        policy=PolicyRecipe(optimization=replace(quick, optimizer="adamw", learning_rate=0.002, epochs=6)),
        seed=seed,
    )


def own_videos(labels: Sequence[str], *, seed: int = 0) -> Recipe:
    """For anyone's own videos, a few dozen a class: what `jhmdb_mini` found good, in smaller batches."""
    recipe = replace(jhmdb_mini(labels, seed=seed), name="sdcom-own-videos")
    small_batches = {
        name: replace(stage, optimization=replace(stage.optimization, batch_size=16))
        for name, stage in recipe.stages.items()
    }
    return replace(recipe, **small_batches)  # type: ignore[arg-type]  # stages of several types
