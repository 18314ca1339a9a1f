"""What a run keeps in its directory besides checkpoints: its recipe, and what each stage taught a network."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from sdcom.checkpoint import INFO_FILE
from sdcom.config import ModelConfig
from sdcom.errors import SdcomError
from sdcom.models.slimmable import Backbone
from training.checkpoints import CHECKPOINT_FILE, Position, write_atomically
from training.recipes import PolicyRecipe, Recipe

RECIPE_FILE = "recipe.json"
NETWORK_SUFFIX = ".safetensors"
_CONVENTIONS = "conventions"

Document = Mapping[str, Any]


class RunDirectoryError(SdcomError):
    """A directory cannot be used for this run."""


def recipe_document(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as JSON holds it."""
    document = asdict(recipe) | {"model": recipe.model.model_dump(mode="json")}
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim(directory: Path, document: Document, *, resume: bool) -> None:
    """Make a directory this run's, and write what decides the run into it.

    A run that came to no checkpoint has left nothing to lose: its directory is free.

    Args:
        directory: made if absent.
        document: everything that decides the run.
        resume: it may hold the same run already.

    Raises:
        RunDirectoryError: it holds a run or a model that is not to be resumed, or a run of another recipe.
        CheckpointError: it cannot be written to.
    """
    check_taken(directory, resume=resume)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RECIPE_FILE
    if _taken(directory) and path.exists():
        difference = next(_differences(json.loads(path.read_text()), document), None)
        if difference is not None:
            raise RunDirectoryError(
                f"{path} is of another run: {difference}. Resume with what the run began with, "
                f"or give another --output"
            )
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


def check_finished(directory: Path, document: Document) -> None:
    """Raise unless a directory holds a run that has come to its model.

    Args:
        directory: the run's.
        document: what decides that run, or the part of it that matters.

    Raises:
        RunDirectoryError: it holds none, or one that something else decided; the message has the difference.
    """
    path = directory / RECIPE_FILE
    for file in (path, directory / INFO_FILE):
        if not file.is_file():
            raise RunDirectoryError(f"{file} is missing: {directory} is no finished run, which a refit needs")
    theirs = json.loads(path.read_text())
    difference = next(_differences({name: theirs.get(name) for name in document}, document), None)
    if difference is not None:
        raise RunDirectoryError(f"{path} is not of the run that would be refitted: {difference}")


def check_taken(directory: Path, *, resume: bool) -> None:
    """Raise if a directory holds a run or a model that is not to be resumed.

    Raises:
        RunDirectoryError: it does; the message names the files.
    """
    taken = _taken(directory)
    if taken and not resume:
        raise RunDirectoryError(
            f"{directory} already holds a run or a model ({', '.join(taken)}): continue it with --resume, "
            f"or give another --output"
        )


def _taken(directory: Path) -> list[str]:
    """Return the names of the files that a run has come to: checkpoint, model, networks."""
    taken = [name for name in (CHECKPOINT_FILE, INFO_FILE) if (directory / name).exists()]
    return taken + sorted(path.name for path in directory.glob(f"*{NETWORK_SUFFIX}"))


def resumption(directory: Path, position: Position | None, recipe: Recipe) -> str:
    """Say where a run that is resumed goes on.

    Args:
        directory: the run's.
        position: of its checkpoint, if it has come to one.
        recipe: the run's.
    """
    stages = list(recipe.stages)
    ended = [stage for stage in stages if network_file(directory, stage).is_file()]
    if position is None and not ended:
        return f"there is nothing to resume in {directory}: training begins"
    stage = stages[stages.index(ended[-1]) + 1] if ended else stages[0]
    of_policy = {name for name, part in recipe.stages.items() if isinstance(part, PolicyRecipe)}
    if position is not None and {stage, position.stage} <= of_policy:
        stage = position.stage  # these leave no network of their own
    if position is None or position.stage != stage:
        return f"{directory} is resumed at the beginning of its stage {stage}"
    num_epochs = recipe.stages[stage].optimization.epochs
    if position.epoch < num_epochs:
        place = f"epoch {position.epoch + 1} of {num_epochs}, step {position.step + 1}"
        return f"{directory} is resumed in its stage {stage}, {place}"
    what_follows = "calibration" if stage == stages[-1] else stages[stages.index(stage) + 1]
    return f"{directory} is resumed after the last epoch of its stage {stage}: {what_follows} follows"


def _differences(theirs: Any, ours: Any, name: str = "") -> Iterator[str]:
    """Yield what differs between two documents, in words."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in dict.fromkeys([*ours, *theirs]):
            yield from _differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
    elif theirs != ours:
        yield f"{name} is {theirs!r} there and {ours!r} here"


def network_file(directory: Path, stage: str) -> Path:
    """Return where a run keeps the network that a stage taught."""
    return directory / f"{stage}{NETWORK_SUFFIX}"


def kept_network(directory: Path, stage: str) -> Path:
    """Return the file of a network that a run must have kept.

    Raises:
        RunDirectoryError: it is not there.
    """
    path = network_file(directory, stage)
    if not path.is_file():
        raise RunDirectoryError(
            f"{path} is missing: {directory} is no run that has finished its stage {stage!r}"
        )
    return path


def save_network(directory: Path, stage: str, backbone: Backbone, model: ModelConfig) -> None:
    """Keep the network that a stage taught, whole or not at all, and what pixels and classes mean to it.

    Raises:
        CheckpointError: it cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    content = memoryview(save(tensors, {_CONVENTIONS: json.dumps(_conventions(model))}))
    write_atomically(network_file(directory, stage), content)


def load_network(directory: Path, stage: str, backbone: Backbone, model: ModelConfig) -> None:
    """Give a network the weights that a run's stage ended with.

    Raises:
        RunDirectoryError: the directory has none, or they are of another network, of other classes, or of
            pixels normalised or padded otherwise.
    """
    path = kept_network(directory, stage)
    try:
        with safe_open(path, "pt") as file:
            theirs = json.loads((file.metadata() or {}).get(_CONVENTIONS, "{}"))
        difference = next(_differences(theirs, _conventions(model)), None)
        if difference is not None:
            raise RunDirectoryError(f"{path} does not fit the recipe's network: {difference}")
        backbone.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, ValueError) as exc:
        raise RunDirectoryError(f"{path} does not fit the recipe's network: {exc}") from exc


def _conventions(model: ModelConfig) -> Document:
    """Return what weights of the right shapes may still be wrong about, as JSON holds it."""
    return {
        "labels": list(model.labels),
        "mean": list(model.clip.mean),
        "std": list(model.clip.std),
        "same_padding": model.same_padding,
        "temporal_shift": model.temporal_shift,
    }
