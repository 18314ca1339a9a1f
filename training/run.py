"""One training run, from clips to a model directory."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from sdcom.checkpoint import ModelInfo
from sdcom.errors import InvalidParameterError
from sdcom.model import Model, save_model
from sdcom.models.composition import SDCOM
from training.batches import Batches, SeveralLabels
from training.calibration import calibrated
from training.checkpoints import Checkpoints, Identity, digest, digest_of_clips
from training.data import Clip, DataError, hold_out_groups
from training.data.clips import mirrored_labels
from training.data.sources import ClipSource, ClipStore, StreamedClips
from training.distributed import broadcast_state, is_main, rank, world_size
from training.evidence import gather_evidence
from training.loop import LoopOptions
from training.pretrain import calibration_frames, start_from_imagenet
from training.recipes import Recipe
from training.records import STEPS_FILE, TENSORBOARD_DIR, Journal, Recorder, StepLines, TensorBoard
from training.run_directory import claim, kept_network, recipe_document, sha256_of
from training.stages import SUPERNET, train_stages


@dataclass(frozen=True, slots=True)
class Start:
    """ImageNet weights to start from, one file for each network; None starts that one from random ones."""

    static_weights: Path | None
    dynamic_weights: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that there are."""
        return tuple(file for file in (self.static_weights, self.dynamic_weights) if file is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What of a run is no part of its recipe.

    Attributes:
        version: of the model that comes out.
        device: where to train.
        start: ImageNet weights; None starts from random ones.
        from_supernet: a run's directory, whose stage 1 is taken instead of training one.
        resume: continue the run that the directory holds, if it holds one.
        several_labels: what clips of several labels are targets of.
        stream: read the frames that are wanted each time, instead of holding all of every clip in memory.
        num_threads: that read clips.
        tensorboard: write its event files too.
        log_interval: steps between looks at the figures.
        checkpoint_interval: steps between checkpoints inside an epoch.
    """

    version: str
    device: torch.device
    start: Start | None = None
    from_supernet: Path | None = None
    resume: bool = False
    several_labels: SeveralLabels = "draw"
    stream: bool = False
    num_threads: int = 2
    tensorboard: bool = False
    log_interval: int = 10
    checkpoint_interval: int = 500


def train(
    recipe: Recipe,
    clips: Sequence[Clip],
    directory: Path,
    options: RunOptions,
    recorders: Sequence[Recorder] = (),
    *,
    synthetic: Sequence[Clip] = (),
) -> ModelInfo | None:
    """Train all stages, calibrate on held-out groups where there are enough, and write the model directory.

    Args:
        recipe: decides everything but the data.
        clips: training clips; a share of their groups is held out.
        directory: of the run, and of the model that comes out.
        options: what else there is to say.
        recorders: told of every step and epoch.
        synthetic: clips to train on besides, which are no evidence: none of them is held out.

    Returns:
        The model's record; None in every process but the first.

    Raises:
        DataError: there are too few clips for one batch, or one cannot be read.
        RunDirectoryError: the directory holds another run, or one that was not to be resumed.
        CheckpointError: the disk is full, or a checkpoint cannot be read.
        NotFiniteError: training diverged.
    """
    kept, held_out = _divided(recipe, clips, synthetic)
    loop = _claimed(recipe, kept, directory, options, recorders)
    source = _source(kept, recipe, options)
    networks = _new_networks(recipe, options.start, source)
    train_stages(
        networks,
        recipe,
        directory,
        batches=_batches(recipe, source, options),
        from_supernet=options.from_supernet,
        loop=loop,
    )
    if not is_main():
        return None
    validation = _source(held_out or kept, recipe, options)
    info = ModelInfo(
        name=recipe.name,
        version=options.version,
        config=recipe.model,
        provenance={
            "num_training_clips": len(kept),
            "held_out_groups": sorted({clip.group for clip in held_out}),
            **_provenance(recipe, options.start),
        },
    )
    info = calibrated(
        Model(info, networks),
        gather_evidence(networks, validation),
        on="held-out groups" if held_out else "training clips: no group could be held out",
    )
    return save_model(directory, info, networks, half=True)


def _divided(
    recipe: Recipe, clips: Sequence[Clip], synthetic: Sequence[Clip]
) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Return clips to train on and clips held out.

    Raises:
        DataError: too few are left for a batch.
        InvalidParameterError: a batch cannot be divided among the processes.
    """
    kept, held_out = hold_out_groups(clips, recipe.validation_share, np.random.default_rng(recipe.seed))
    kept = (*kept, *synthetic)
    for name, stage in recipe.stages.items():
        batch_size = stage.optimization.batch_size
        if len(kept) < batch_size:
            raise DataError(
                f"{len(kept)} clips are left for training, fewer than one batch of {batch_size}: "
                f"add clips, or set {name}.optimization.batch_size"
            )
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
) -> LoopOptions:
    """Make the directory this run's; return where its steps are recorded and its state is kept."""
    start = options.start or Start(None, None)
    document = {
        "recipe": recipe_document(recipe),
        "imagenet_weights": {
            name: file and sha256_of(file)
            for name, file in (("static", start.static_weights), ("dynamic", start.dynamic_weights))
        },
        "from_supernet": None
        if options.from_supernet is None
        else sha256_of(kept_network(options.from_supernet, SUPERNET)),
        "several_labels": options.several_labels,
        "data": {"num_training_clips": len(clips), "sha256": digest_of_clips(clips)},
    }
    data = document.pop("data")
    checkpoints = Checkpoints(directory, Identity(recipe=digest(document), data=digest(data)))
    told: list[Recorder] = []
    if is_main():
        claim(directory, {**document, "data": data}, resume=options.resume)
        told = [*recorders, StepLines(directory / STEPS_FILE, checkpoints.position())]
        if options.tensorboard:
            told.append(TensorBoard(directory / TENSORBOARD_DIR))
    return LoopOptions(
        journal=Journal(told),
        checkpoints=checkpoints,
        log_interval=options.log_interval,
        checkpoint_interval=options.checkpoint_interval,
    )


def _source(clips: Sequence[Clip], recipe: Recipe, options: RunOptions) -> ClipSource:
    short_side, num_threads = recipe.model.clip.short_side, options.num_threads
    if options.stream:
        return StreamedClips(clips, short_side, num_readers=num_threads, device=options.device)
    return ClipStore(clips, short_side, num_threads=num_threads, device=options.device)


def _batches(recipe: Recipe, source: ClipSource, options: RunOptions) -> Batches:
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
    )


def _provenance(recipe: Recipe, start: Start | None) -> dict[str, object]:
    return {
        "recipe": asdict(recipe) | {"model": None},  # the model is the record's `config`
        "imagenet_weights": [] if start is None else [file.name for file in start.files],
        "torch": torch.__version__,
    }


def _new_networks(recipe: Recipe, start: Start | None, source: ClipSource) -> SDCOM:
    """Return the networks on the source's device, with ImageNet weights if there are any to start from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        networks = SDCOM(recipe.model)
    if start is not None:
        start_from_imagenet(
            networks,
            start.static_weights,
            start.dynamic_weights,
            calibration_frames(source, networks, np.random.default_rng(recipe.seed)),
            sort_channels=recipe.supernet.sort_channels,
        )
    broadcast_state(networks.to(source.device))
    layout = (
        torch.channels_last if source.device.type == "cuda" else torch.contiguous_format
    )  # CPU: torch crashes
    return networks.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]  # torch's gap
