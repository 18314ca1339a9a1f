"""The stages of a run, in their order; each is kept in the run's directory when it has ended."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sdcom.config import ModelConfig
from sdcom.errors import InvalidParameterError
from sdcom.model import load_model
from sdcom.models.composition import SDCOM
from sdcom.models.slimmable import Backbone
from training.batches import Batches
from training.distributed import is_main
from training.loop import LoopOptions
from training.policy import Course, train_policy
from training.recipes import Optimization, Recipe, StaticRecipe, SupernetRecipe
from training.run_directory import load_network, network_file, save_network
from training.static import train_static
from training.supernet import train_supernet

SUPERNET = "supernet"
STATIC = "static"
POLICY = "policy"
GATE = "gate"
_NUMBERS = {SUPERNET: 1, POLICY: 2, STATIC: 4, GATE: 5}
"""Of stages, in the keys of what is drawn at random."""


def train_stages(
    networks: SDCOM,
    recipe: Recipe,
    directory: Path,
    *,
    batches: Batches,
    taken: Mapping[str, Path],
    loop: LoopOptions,
) -> None:
    """Train every stage of a recipe in place, leaving out what the directory shows to be done.

    Args:
        networks: on the batches' device.
        recipe: of all stages.
        directory: of the run.
        batches: of the training clips, of no stage yet.
        taken: by the names of stages, the directories of runs that they are taken from instead of being
            trained.
        loop: who is told, and where the state is kept.

    Raises:
        RunDirectoryError: what a directory holds is of another network or other classes.
        CheckpointError: the disk is full, or a checkpoint cannot be read.
        NotFiniteError: training diverged.
        DataError: a clip cannot be read.
        InvalidParameterError: a teacher does not fit the recipe.
    """
    stages = _Stages(networks, recipe, directory, batches, loop, taken)
    networks.dynamic = stages.kept(SUPERNET, networks.dynamic, stages.stage_1)
    if (static := recipe.static) is not None:
        networks.static = stages.kept(STATIC, networks.static, lambda: stages.static(static))
    stages.policy()


@dataclass(frozen=True, slots=True)
class _Stages:
    """A run's stages, each of which returns the network that it taught."""

    networks: SDCOM
    recipe: Recipe
    directory: Path
    batches: Batches
    loop: LoopOptions
    taken: Mapping[str, Path]

    def kept(self, name: str, network: Backbone, learn: Callable[[], Backbone]) -> Backbone:
        """Return a network as a stage left it: in the directory, or by learning now, which is then kept."""
        model = self.recipe.model
        if network_file(self.directory, name).is_file():
            load_network(self.directory, name, network, model)
            return network
        if name in self.taken:
            load_network(self.taken[name], name, network, model)
            learned = network
        else:
            learned = learn()
        if is_main():
            save_network(self.directory, name, learned, model)
        return learned

    def stage_1(self) -> Backbone:
        recipe, dynamic = self.recipe.supernet, self.networks.dynamic
        return train_supernet(
            dynamic,
            widths=self.recipe.model.widths,
            batches=self._batches(SUPERNET, recipe.optimization),
            recipe=recipe,
            loop=self.loop,
            teacher=_teacher(recipe, self.recipe.model, dynamic, self.batches.source.device),
        )

    def static(self, recipe: StaticRecipe) -> Backbone:
        batches = self._batches(STATIC, recipe.optimization)
        train_static(self.networks, batches=batches, recipe=recipe, loop=self.loop)
        return self.networks.static

    def policy(self) -> None:
        recipes = {POLICY: self.recipe.policy, GATE: self.recipe.gate}
        courses = [
            Course(name, recipe, self._batches(name, recipe.optimization))
            for name, recipe in recipes.items()
            if recipe is not None
        ]
        train_policy(self.networks, courses, self.loop)

    def _batches(self, name: str, optimization: Optimization) -> Batches:
        return replace(self.batches, batch_size=optimization.batch_size, stage=_NUMBERS[name])


def _teacher(
    recipe: SupernetRecipe, ours: ModelConfig, backbone: Backbone, device: torch.device
) -> Backbone | None:
    """Return the network that a backbone is to learn from in stage 1, if there is one.

    Raises:
        ModelDirectoryError: it cannot be loaded.
        InvalidParameterError: its classes or its normalisation are others, or its features are fewer.
    """
    if recipe.teacher is None:
        return None
    model = load_model(Path(recipe.teacher), device)
    theirs = model.info.config
    for what, their, our in (
        ("labels", theirs.labels, ours.labels),
        ("normalisation", (theirs.clip.mean, theirs.clip.std), (ours.clip.mean, ours.clip.std)),
    ):
        if their != our:
            raise InvalidParameterError(
                f"the teacher {recipe.teacher} has other {what} than the recipe: {their} and {our}"
            )
    teacher = model.networks.dynamic
    if teacher.num_features < backbone.num_features:
        raise InvalidParameterError(
            f"the teacher's {theirs.dynamic} has {teacher.num_features} features, "
            f"fewer than the {backbone.num_features} of the {ours.dynamic} that is to learn them"
        )
    return teacher
