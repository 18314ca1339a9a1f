"""A run's state on disk, whole or not at all.

`OUTPUT/checkpoint.pt` is written beside its place and then renamed, so that a kill or a full disk leaves the
one before it as it was. It is read with `weights_only=True`: nothing in it can run code.
"""

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from sdcom.errors import SdcomError
from training.data import Clip

CHECKPOINT_FILE = "checkpoint.pt"
FORMAT = 1


class CheckpointError(SdcomError):
    """A checkpoint cannot be written, read, or resumed from."""


class Stateful(Protocol):
    """What a checkpoint keeps: modules, optimisers, schedules."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors, numbers, strings, and lists and dictionaries of them."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take a state back."""


@dataclass(frozen=True, slots=True)
class Position:
    """The step that a run is about to take: of which stage, in which epoch, from 0."""

    stage: str
    epoch: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Digests of what decides a run; one that differs cannot be resumed."""

    recipe: str
    data: str


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The place of one run's checkpoint.

    Attributes:
        directory: the run's.
        identity: of the run.
    """

    directory: Path
    identity: Identity

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / CHECKPOINT_FILE

    def save(self, position: Position, parts: Mapping[str, Stateful]) -> None:
        """Replace the checkpoint.

        Raises:
            CheckpointError: it cannot be written; the one before it is as it was.
        """
        document = {
            "format": FORMAT,
            "recipe": self.identity.recipe,
            "data": self.identity.data,
            "stage": position.stage,
            "epoch": position.epoch,
            "step": position.step,
            "state": {name: part.state_dict() for name, part in parts.items()},
        }
        buffer = io.BytesIO()
        torch.save(document, buffer)
        write_atomically(self.path, buffer.getbuffer())

    def position(self) -> Position | None:
        """Return where the run was; None if it has not come to its first checkpoint.

        Raises:
            CheckpointError: as `restore`.
        """
        return _position(self._read()) if self.path.exists() else None

    def restore(self, stage: str, parts: Mapping[str, Stateful]) -> Position | None:
        """Give every part of a stage its state back.

        Returns:
            Where the run was; None if it has not come to this stage's first checkpoint, or is past the stage.

        Raises:
            CheckpointError: the file is damaged, or of another recipe or other data.
        """
        if not self.path.exists():
            return None
        document = self._read()
        if document["stage"] != stage:
            return None
        state = document["state"]
        if state.keys() != parts.keys():
            raise CheckpointError(
                f"{self.path} holds {', '.join(state)}; {', '.join(parts)} expected: it is of another version"
            )
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return _position(document)

    def _read(self) -> dict[str, Any]:
        try:
            document = torch.load(self.path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as exc:  # whose text advises to trust the file
            raise CheckpointError(
                f"{self.path} is not a checkpoint that can be read: it is damaged, or holds more than "
                f"tensors and plain values"
            ) from exc
        except (RuntimeError, EOFError, ValueError, OSError) as exc:
            raise CheckpointError(f"{self.path} is not a checkpoint that can be read: {exc}") from exc
        found = document.get("format") if isinstance(document, dict) else None
        if found != FORMAT:
            raise CheckpointError(
                f"{self.path} has format {found}, {FORMAT} expected: it is not of this version"
            )
        for what, ours in (("recipe", self.identity.recipe), ("data", self.identity.data)):
            if document[what] != ours:
                raise CheckpointError(
                    f"{self.path} is of another {what}: resume with the {what} that the run began with "
                    f"({self.directory / 'recipe.json'}), or give another --output"
                )
        return dict(document)


def _position(document: Mapping[str, Any]) -> Position:
    return Position(document["stage"], document["epoch"], document["step"])


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file beside its place, make sure that it is on the disk, and rename it.

    Raises:
        CheckpointError: it cannot be written; the file that was there is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_directory(path.parent)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise CheckpointError(_unwritable(path, len(content), exc)) from exc


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, size_bytes: int, error: OSError) -> str:
    kept = "the one before it is as it was" if path.exists() else "there was none before it"
    if error.errno != errno.ENOSPC:
        return f"{path} cannot be written ({error.strerror}); {kept}"
    free = shutil.disk_usage(path.parent).free
    return (
        f"the disk is full: {path} takes {size_bytes / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; {kept}. "
        f"Make room and continue with --resume"
    )


def digest(document: object) -> str:
    """Return the SHA-256 of a value's JSON, its keys sorted."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_clips(clips: Iterable[Clip]) -> str:
    """Return the SHA-256 of a list of clips: their names, labels and groups, wherever their folder lies."""
    return digest([(*clip.path.parts[-2:], clip.labels, clip.group) for clip in clips])
