"""One training run, from clips to a model directory."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from sdcom.checkpoint import Model, ModelInfo, save_model
from sdcom.models.composition import SDCOM
from training.batches import Batches
from training.calibration import calibrated
from training.data import Clip, DataError, hold_out_groups
from training.data.sources import ClipStore
from training.evidence import gather_evidence
from training.policy import train_policy
from training.pretrain import calibration_frames, start_from_imagenet
from training.recipes import Recipe
from training.supernet import Report, train_supernet


@dataclass(frozen=True, slots=True)
class Start:
    """ImageNet weights to start from, one file for each network."""

    static_weights: Path
    dynamic_weights: Path


def train(
    recipe: Recipe,
    clips: Sequence[Clip],
    directory: Path,
    *,
    version: str,
    start: Start | None,
    device: torch.device,
    report: Report,
    num_threads: int = 2,
) -> ModelInfo:
    """Train both stages, calibrate on held-out groups where there are enough, and write the model directory.

    Args:
        recipe: decides everything but the data.
        clips: training clips; a share of their groups is held out.
        directory: of the model that comes out.
        version: of that model.
        start: ImageNet weights; None starts from random ones.
        device: where to train.
        report: told the losses of every epoch.
        num_threads: for decoding.

    Raises:
        DataError: there are too few clips for one batch.
    """
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    kept, held_out = hold_out_groups(clips, recipe.validation_share, rng)
    batch_size = max(stage.optimization.batch_size for stage in (recipe.supernet, recipe.policy))
    if len(kept) < batch_size:
        raise DataError(f"{len(kept)} clips are left for training, fewer than one batch of {batch_size}")
    short_side = recipe.model.clip.short_side
    store = ClipStore(kept, short_side, num_threads=num_threads, device=device)
    networks = _new_networks(recipe, start, store, rng)
    networks.dynamic = train_supernet(
        networks.dynamic,
        widths=recipe.model.widths,
        batches=_batches(recipe, store, recipe.supernet.optimization.batch_size, stage=1),
        recipe=recipe.supernet,
        report=report,
    )
    train_policy(
        networks,
        batches=_batches(recipe, store, recipe.policy.optimization.batch_size, stage=2),
        recipe=recipe.policy,
        report=report,
    )
    validation = ClipStore(held_out or kept, short_side, num_threads=num_threads, device=device)
    info = ModelInfo(
        name=recipe.name,
        version=version,
        config=recipe.model,
        provenance={
            "num_training_clips": len(kept),
            "held_out_groups": sorted({clip.group for clip in held_out}),
            **_provenance(recipe, start),
        },
    )
    info = calibrated(
        Model(info, networks),
        gather_evidence(networks, validation),
        on="held-out groups" if held_out else "training clips: no group could be held out",
    )
    return save_model(directory, info, networks, half=True)


def _batches(recipe: Recipe, store: ClipStore, batch_size: int, *, stage: int) -> Batches:
    return Batches(
        source=store,
        num_labels=recipe.model.num_labels,
        clip=recipe.model.clip,
        augmentation=recipe.augmentation,
        batch_size=batch_size,
        seed=recipe.seed,
        stage=stage,
    )


def _provenance(recipe: Recipe, start: Start | None) -> dict[str, object]:
    return {
        "recipe": asdict(recipe) | {"model": None},  # the model is the record's `config`
        "imagenet_weights": [] if start is None else [start.static_weights.name, start.dynamic_weights.name],
        "torch": torch.__version__,
    }


def _new_networks(recipe: Recipe, start: Start | None, store: ClipStore, rng: np.random.Generator) -> SDCOM:
    """Return the networks on the store's device, with ImageNet weights if there are any to start from."""
    networks = SDCOM(recipe.model)
    if start is not None:
        start_from_imagenet(
            networks,
            start.static_weights,
            start.dynamic_weights,
            calibration_frames(store, networks, rng),
            sort_channels=recipe.supernet.sort_channels,
        )
    layout = torch.channels_last if store.device.type == "cuda" else torch.contiguous_format  # CPU: torch crashes
    return networks.to(store.device).to(memory_format=layout)  # type: ignore[call-overload, no-any-return]  # torch's gap
