"""One training run, from clips to a model directory."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from sdcom.checkpoint import ModelInfo, load_info
from sdcom.errors import InvalidParameterError
from sdcom.model import Model, save_model
from sdcom.models.composition import SDCOM
from training.batches import Batches
from training.calibration import HELD_OUT_GROUPS, TRAINING_CLIPS, calibrated, calibrated_as
from training.checkpoints import Checkpoints, Identity, digest
from training.data import Clip, DataError, hold_out_groups
from training.data.clips import mirrored_labels
from training.data.sources import ClipSource, ClipStore, StreamedClips
from training.data.tracking import Track, Tracked, untracked
from training.distributed import is_main, rank, world_size
from training.evidence import gather_evidence
from training.loop import LoopOptions
from training.options import RunOptions, check_refit, run_document, taken_networks
from training.pretrain import Start, new_networks
from training.recipes import Recipe
from training.records import STEPS_FILE, TENSORBOARD_DIR, Journal, Recorder, StepLines, TensorBoard
from training.room import check_room
from training.run_directory import claim, resumption
from training.stages import train_stages

__all__ = ["PreparedRun", "RunOptions", "prepare", "train"]


def train(
    recipe: Recipe,
    clips: Sequence[Clip],
    directory: Path,
    options: RunOptions,
    recorders: Sequence[Recorder] = (),
    *,
    synthetic: Sequence[Clip] = (),
) -> ModelInfo | None:
    """Prepare a run, and train it to its end: `prepare` and `PreparedRun.train` in one."""
    return prepare(recipe, clips, directory, options, recorders, synthetic=synthetic).train()


def prepare(
    recipe: Recipe,
    clips: Sequence[Clip],
    directory: Path,
    options: RunOptions,
    recorders: Sequence[Recorder] = (),
    *,
    synthetic: Sequence[Clip] = (),
    tracked: Tracked = untracked,
) -> "PreparedRun":
    """Do what comes before the first step and can fail: divide and decode the clips, claim the directory.

    Args:
        recipe: decides everything but the data.
        clips: training clips; a share of their groups is held out.
        directory: of the run, and of the model that comes out.
        options: what else there is to say.
        recorders: told of every step and epoch.
        synthetic: clips to train on besides, which are no evidence: none of them is held out.
        tracked: shows how far the long work before and between steps is.

    Raises:
        DataError: there are too few clips for one batch, or one cannot be read.
        RunDirectoryError: the directory holds another run, or one that was not to be resumed; the run to
            refit has not finished, or something else decided it.
        InvalidParameterError: no clip is held out that a refit would bring in.
        CheckpointError: the disk has no room, or a checkpoint cannot be read.
        ModelDirectoryError: weights to start from cannot be read.
    """
    kept, held_out = _divided(recipe, clips, synthetic)
    if options.refit is not None:
        check_refit(recipe, (*kept, *synthetic), held_out, options, options.refit)
        kept = (*kept, *held_out)
    kept = (*kept, *synthetic)
    if is_main():
        check_room(recipe, directory)
    else:
        tracked = untracked
    loop, resumed = _claimed(recipe, kept, directory, options, recorders)
    source = _source(kept, recipe, options, tracked("decoding clips"))
    networks = new_networks(recipe, options.start, source)
    batches = _batches(recipe, source, options, tracked)
    return PreparedRun(recipe, directory, options, kept, held_out, networks, batches, loop, resumed)


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run about to take its first step.

    Attributes:
        recipe: decides everything but the data.
        directory: of the run, and of the model that comes out.
        options: what else there is to say.
        kept: clips to train on.
        held_out: clips to calibrate on; a refit trains on them too.
        networks: on the device, with the weights that they start from.
        batches: of the kept clips, of no stage yet.
        loop: who is told, and where the state is kept.
        resumed: where it goes on, in words; empty if it was not to be resumed.
    """

    recipe: Recipe
    directory: Path
    options: RunOptions
    kept: tuple[Clip, ...]
    held_out: tuple[Clip, ...]
    networks: SDCOM
    batches: Batches
    loop: LoopOptions
    resumed: str

    def train(self) -> ModelInfo | None:
        """Train all stages, calibrate on held-out clips where there are any, and write the model directory.

        Returns:
            The model's record; None in every process but the first.

        Raises:
            CheckpointError: the disk is full, or a checkpoint cannot be read.
            NotFiniteError: training diverged.
            DataError: a clip cannot be read.
        """
        train_stages(
            self.networks,
            self.recipe,
            self.directory,
            batches=self.batches,
            taken=taken_networks(self.recipe, self.options),
            loop=self.loop,
        )
        if not is_main():
            return None
        return save_model(self.directory, self._calibrated(), self.networks, half=True)

    def _calibrated(self) -> ModelInfo:
        recipe, tracked, refit = self.recipe, self.batches.tracked, self.options.refit
        validation = self.batches.source
        if self.held_out:
            validation = _source(self.held_out, recipe, self.options, tracked("decoding held-out clips"))
        info = ModelInfo(
            name=recipe.name,
            version=self.options.version,
            config=recipe.model,
            provenance={
                "num_training_clips": len(self.kept),
                "held_out_groups": sorted({clip.group for clip in self.held_out if refit is None}),
                **_provenance(recipe, self.options.start),
            },
        )
        model = Model(info, self.networks)
        evidence = gather_evidence(self.networks, validation, tracked("calibrating"))
        if refit is not None:
            return calibrated_as(model, evidence, load_info(refit))
        return calibrated(model, evidence, on=HELD_OUT_GROUPS if self.held_out else TRAINING_CLIPS)


def _divided(
    recipe: Recipe, clips: Sequence[Clip], synthetic: Sequence[Clip]
) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Return clips to train on besides the synthetic ones, and clips held out.

    Raises:
        DataError: too few are left for a batch.
        InvalidParameterError: a batch cannot be divided among the processes.
    """
    kept, held_out = hold_out_groups(clips, recipe.validation_share, np.random.default_rng(recipe.seed))
    num_clips = len(kept) + len(synthetic)
    batch_sizes = {name: stage.optimization.batch_size for name, stage in recipe.stages.items()}
    too_large = [name for name, batch_size in batch_sizes.items() if batch_size > num_clips]
    if too_large:
        fields = ", ".join(f"{name}.optimization.batch_size" for name in too_large)
        raise DataError(
            f"{num_clips} clips are left for training, fewer than one batch of {batch_sizes[too_large[0]]}: "
            f"add clips, or set {fields} to {num_clips} at most"
        )
    for batch_size in batch_sizes.values():
        if batch_size % world_size():
            raise InvalidParameterError(
                f"a batch of {batch_size} cannot be divided evenly among {world_size()} processes"
            )
    return kept, held_out


def _claimed(
    recipe: Recipe,
    clips: Sequence[Clip],
    directory: Path,
    options: RunOptions,
    recorders: Sequence[Recorder],
) -> tuple[LoopOptions, str]:
    """Make the directory this run's; return where steps and state are kept, and where it is resumed."""
    document = run_document(recipe, clips, options)
    of_recipe = {name: value for name, value in document.items() if name != "data"}
    identity = Identity(recipe=digest(of_recipe), data=digest(document["data"]))
    checkpoints = Checkpoints(directory, identity)
    told: list[Recorder] = []
    resumed = ""
    if is_main():
        claim(directory, document, resume=options.resume)
        position = checkpoints.position()
        told = [*recorders, StepLines(directory / STEPS_FILE, position)]
        if options.tensorboard:
            told.append(TensorBoard(directory / TENSORBOARD_DIR))
        if options.resume:
            resumed = resumption(directory, position, recipe)
    loop = LoopOptions(
        journal=Journal(told),
        checkpoints=checkpoints,
        log_interval=options.log_interval,
        checkpoint_interval=options.checkpoint_interval,
    )
    return loop, resumed


def _source(clips: Sequence[Clip], recipe: Recipe, options: RunOptions, track: Track) -> ClipSource:
    short_side, num_threads = recipe.model.clip.short_side, options.num_threads
    if options.stream:
        return StreamedClips(clips, short_side, num_readers=num_threads, device=options.device)
    return ClipStore(clips, short_side, num_threads=num_threads, device=options.device, track=track)


def _batches(recipe: Recipe, source: ClipSource, options: RunOptions, tracked: Tracked) -> Batches:
    """Return batches without a stage yet."""
    return Batches(
        source=source,
        num_labels=recipe.model.num_labels,
        clip=recipe.model.clip,
        augmentation=recipe.augmentation,
        batch_size=world_size(),
        seed=recipe.seed,
        stage=0,
        rank=rank(),
        world_size=world_size(),
        several_labels=options.several_labels,
        mirrored=mirrored_labels(recipe.model.labels),
        tracked=tracked,
    )


def _provenance(recipe: Recipe, start: Start | None) -> dict[str, object]:
    return {
        "recipe": asdict(recipe) | {"model": None},  # the model is the record's `config`
        "imagenet_weights": [] if start is None else [file.name for file in start.files],
        "torch": torch.__version__,
    }
