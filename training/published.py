"""The recipes of the paper (TNNLS.2024.3525187), whose numbers are the defaults of `training/recipes.py`."""

from collections.abc import Sequence
from dataclasses import replace

from sdcom.config import ModelConfig
from training.batches import Augmentation
from training.recipes import PolicyRecipe, Recipe, SupernetRecipe


def activitynet(labels: Sequence[str], *, seed: int = 0) -> Recipe:
    """ActivityNet: videos of several labels learn one of them at a time, as the run's options say."""
    return _published("sdcom-activitynet", labels, seed)


def fcvid(labels: Sequence[str], *, seed: int = 0) -> Recipe:
    """FCVID: a video's labels share the target, if the run's options say so (`several_labels="share"`)."""
    return _published("sdcom-fcvid", labels, seed)


def mini_kinetics(labels: Sequence[str], *, seed: int = 0) -> Recipe:
    """Mini-Kinetics: one label a video."""
    return _published("sdcom-mini-kinetics", labels, seed)


def something_v2(labels: Sequence[str], *, seed: int = 0) -> Recipe:
    """Something-Something V2: 8 frames in time order, and temporal shift between them.

    Clips are not mirrored: "left" and "right" are in the labels. `augmentation.flip=true` mirrors them and
    exchanges the two words.
    """
    recipe = _published("sdcom-something-v2", labels, seed)
    clip = recipe.model.clip.model_copy(update={"num_frames": 8, "order": "time"})
    return replace(
        recipe,
        model=recipe.model.model_copy(update={"clip": clip, "temporal_shift": True}),
        augmentation=replace(recipe.augmentation, flip=False),
        supernet=replace(recipe.supernet, num_frames=8),
    )


def _published(name: str, labels: Sequence[str], seed: int) -> Recipe:
    """Return what the recipes of the four datasets share.

    MobileNetV2 at 224 pixels, slimmable ResNet-50, 16 frames; 100 epochs of stage 1 and 50 of stage 2 by
    SGD, with meta-learned weighting.
    """
    return Recipe(
        name=name,
        model=ModelConfig(labels=tuple(labels)),
        augmentation=Augmentation(),
        supernet=SupernetRecipe(),
        policy=PolicyRecipe(weighting="meta"),
        seed=seed,
    )
