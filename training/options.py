"""What a run is told besides its recipe, and everything that decides it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sdcom.checkpoint import load_info
from sdcom.errors import InvalidParameterError
from training.batches import SeveralLabels
from training.calibration import HELD_OUT_GROUPS
from training.checkpoints import digest_of_clips
from training.data import Clip
from training.pretrain import Start
from training.recipes import Recipe
from training.run_directory import (
    Document,
    RunDirectoryError,
    check_finished,
    kept_network,
    recipe_document,
    sha256_of,
)
from training.stages import STATIC, SUPERNET


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What of a run is no part of its recipe.

    Attributes:
        version: of the model that comes out.
        device: where to train.
        start: ImageNet weights; None starts from random ones.
        from_supernet: a run's directory, whose stage 1 is taken instead of training one.
        refit: directory of a finished run of this recipe and these clips, whose policy is trained again on
            all of them, those that it held out too; its networks are taken, and its calibration.
        resume: continue the run that the directory holds, if it holds one.
        several_labels: what clips of several labels are targets of.
        stream: read the frames that are wanted each time, instead of holding all of every clip in memory.
        num_threads: that read clips.
        tensorboard: write its event files too.
        log_interval: steps between looks at the figures.
        checkpoint_interval: steps between checkpoints inside an epoch.

    Raises:
        InvalidParameterError: networks are to be taken from two runs.
    """

    version: str
    device: torch.device
    start: Start | None = None
    from_supernet: Path | None = None
    refit: Path | None = None
    resume: bool = False
    several_labels: SeveralLabels = "draw"
    stream: bool = False
    num_threads: int = 2
    tensorboard: bool = False
    log_interval: int = 10
    checkpoint_interval: int = 500

    def __post_init__(self) -> None:
        if self.refit is not None and self.from_supernet is not None:
            raise InvalidParameterError(
                f"a refit takes the networks of the run that it repeats: give --refit {self.refit} or "
                f"--from-supernet {self.from_supernet}, not both"
            )


def taken_networks(recipe: Recipe, options: RunOptions) -> dict[str, Path]:
    """Return the runs that stages are taken from, by the stages' names."""
    if options.refit is not None:
        return {SUPERNET: options.refit, **({} if recipe.static is None else {STATIC: options.refit})}
    return {} if options.from_supernet is None else {SUPERNET: options.from_supernet}


def run_document(recipe: Recipe, clips: Sequence[Clip], options: RunOptions) -> Document:
    """Return everything that decides a run on given training clips, as JSON holds it."""
    start = options.start or Start(None, None)
    return {
        "recipe": recipe_document(recipe),
        "imagenet_weights": {
            name: file and sha256_of(file)
            for name, file in (("static", start.static_weights), ("dynamic", start.dynamic_weights))
        },
        "taken": {
            name: sha256_of(kept_network(run, name)) for name, run in taken_networks(recipe, options).items()
        },
        "refit": options.refit is not None,
        "several_labels": options.several_labels,
        "data": {"num_training_clips": len(clips), "sha256": digest_of_clips(clips)},
    }


def check_refit(
    recipe: Recipe, kept: Sequence[Clip], held_out: Sequence[Clip], options: RunOptions, first: Path
) -> None:
    """Raise unless a first run of the same recipe and clips has finished, and held clips out.

    Raises:
        RunDirectoryError: it has not finished, or something else decided it.
        InvalidParameterError: it held nothing out.
    """
    if not held_out:
        raise InvalidParameterError(
            f"there is nothing to refit {first} on: no clip is held out at "
            f"validation_share={recipe.validation_share}"
        )
    document = run_document(recipe, kept, replace(options, refit=None))
    check_finished(first, {name: value for name, value in document.items() if name != "taken"})
    told = load_info(first).provenance
    if told["calibrated_on"] == HELD_OUT_GROUPS and told["num_calibration_clips"] != len(held_out):
        raise RunDirectoryError(
            f"{first} is not of the run that would be refitted: it held {told['num_calibration_clips']} "
            f"clips out, and {len(held_out)} are held out here"
        )
