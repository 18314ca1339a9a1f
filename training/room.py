"""Whether a run's files will find room on the disk, asked before hours are spent on them."""

import shutil
from pathlib import Path

import torch
from torch import nn

from sdcom.models.composition import SDCOM
from training.checkpoints import CheckpointError
from training.recipes import Optimization, PolicyRecipe, Recipe, StaticRecipe, SupernetRecipe

_MOMENTS = {"sgd": 1, "adamw": 2}
"""Tensors of a parameter's size that an optimiser keeps for it."""


def check_room(recipe: Recipe, directory: Path) -> None:
    """Raise if a run's directory could not hold what the run writes.

    Args:
        recipe: of the run.
        directory: the run's, which need not exist; what it holds already is replaced, and counts as free.

    Raises:
        CheckpointError: the filesystem has less room than the largest checkpoint twice, because each is
            written beside the one before it, and the networks that are kept.
    """
    checkpoint, kept = max(checkpoint_bytes(recipe).values()), kept_networks_bytes(recipe)
    needed = 2 * checkpoint + kept
    nearest = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    own = sum(path.stat().st_size for path in directory.glob("*") if path.is_file())
    free = shutil.disk_usage(nearest).free + own
    if free < needed:
        raise CheckpointError(
            f"{directory} has no room for this run: {free / 1e6:,.1f} MB are free in {nearest}, and it takes "
            f"up to {needed / 1e6:,.1f} MB ({checkpoint / 1e6:,.1f} MB a checkpoint, of which there are two "
            f"for a moment, and {kept / 1e6:,.1f} MB of networks): make room, or give another --output"
        )


def checkpoint_bytes(recipe: Recipe) -> dict[str, int]:
    """Return about how large the checkpoints of each stage are, by the stage's name."""
    networks = _without_memory(recipe)
    return {name: _checkpoint_bytes(networks, stage) for name, stage in recipe.stages.items()}


def kept_networks_bytes(recipe: Recipe) -> int:
    """Return the size of the networks that stages leave behind, and of the model that comes out, at most."""
    networks = _without_memory(recipe)
    taught = [stage for stage in recipe.stages.values() if not isinstance(stage, PolicyRecipe)]
    kept = [networks.static if isinstance(stage, StaticRecipe) else networks.dynamic for stage in taught]
    return sum(map(_state_bytes, [*kept, networks]))


def _checkpoint_bytes(networks: SDCOM, stage: SupernetRecipe | StaticRecipe | PolicyRecipe) -> int:
    """Return the size of what a stage keeps (`training.loop.Stage.kept`) and of its optimiser's state."""
    if isinstance(stage, PolicyRecipe):
        return _policy_checkpoint_bytes(networks, stage)
    if isinstance(stage, StaticRecipe):
        learning, num_copies = [networks.static], 2  # itself, and what it started from
    else:
        starts_from_itself = stage.teacher is None and stage.anchor_weight > 0
        learning, num_copies = [networks.dynamic], 3 if starts_from_itself else 2  # its average too
    return sum(
        num_copies * _state_bytes(module) + _moments_bytes(module, stage.optimization) for module in learning
    )


def _policy_checkpoint_bytes(networks: SDCOM, stage: PolicyRecipe) -> int:
    multiplier_of = {
        networks.static: stage.static_multiplier,
        networks.gate: stage.gate_multiplier,
        networks.fusion: stage.fusion_multiplier,
    }
    learning = [module for module, multiplier in multiplier_of.items() if multiplier > 0]
    moments = sum(_moments_bytes(module, stage.optimization) for module in learning)
    return sum(map(_state_bytes, multiplier_of)) + moments


def _without_memory(recipe: Recipe) -> SDCOM:
    """Return a recipe's networks as shapes alone."""
    with torch.device("meta"):
        return SDCOM(recipe.model)


def _state_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _moments_bytes(module: nn.Module, optimization: Optimization) -> int:
    return _MOMENTS[optimization.optimizer] * sum(parameter.nbytes for parameter in module.parameters())
