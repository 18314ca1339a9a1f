"""One small run in a process of its own, to be killed: -m tests.training.killed CLIPS OUTPUT [--resume]."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from training.data import read_split
from training.recipes import Recipe
from training.run import RunOptions, train
from training.small import tiny


def small(labels: tuple[str, ...]) -> Recipe:
    """Return the tiny recipe, smaller still, with everything that a checkpoint has to keep."""
    recipe = tiny(labels)
    model = recipe.model.model_copy(update={"dynamic": "mobilenet_v2", "widths": (0.0, 0.5, 1.0)})
    once = replace(recipe.supernet.optimization, epochs=1)
    policy = replace(recipe.policy, optimization=replace(once, optimizer="adamw", epochs=2), weighting="meta")
    return replace(
        recipe,
        model=model,
        supernet=replace(recipe.supernet, optimization=once, num_frames=1),
        policy=policy,
        gate=replace(
            policy,
            static_multiplier=0.0,
            classifier_multiplier=0.0,
            fusion_multiplier=0.0,
            frozen_statistics=True,
            highest_price=10.0,
        ),
        validation_share=0.0,
    )


def main() -> None:
    """Train, keeping the state after every step."""
    torch.set_num_threads(1)
    split = read_split(Path(sys.argv[1]), "split")
    options = RunOptions(
        version="0",
        device=torch.device("cpu"),
        resume="--resume" in sys.argv,
        num_threads=1,
        log_interval=1,
        checkpoint_interval=1,
    )
    train(small(split.labels), split.train, Path(sys.argv[2]), options)


if __name__ == "__main__":
    main()
