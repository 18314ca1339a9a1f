"""What a run tells of itself: a line of JSON a step, TensorBoard's files, an epoch's means."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from training.checkpoints import Position, write_atomically

STEPS_FILE = "steps.jsonl"
TENSORBOARD_DIR = "tensorboard"

Report = Callable[[str, int, dict[str, float]], None]
"""Told the stage, the epoch and its mean losses."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step, over all processes.

    Attributes:
        stage: name.
        epoch: from 0.
        step: of the epoch, from 0.
        num_steps: of an epoch.
        losses: terms by name, means over the global batch.
        gradient_norm: before clipping.
        learning_rate: of the first part.
        videos_per_second: mean since the last step that was told of.
        data_wait_share: of that time, spent waiting for batches, in [0, 1].
    """

    stage: str
    epoch: int
    step: int
    num_steps: int
    losses: Mapping[str, float]
    gradient_norm: float
    learning_rate: float
    videos_per_second: float
    data_wait_share: float


@dataclass(frozen=True, slots=True)
class EpochStart:
    """An epoch that begins, or that a resumed run takes up again.

    Attributes:
        stage: name.
        epoch: from 0.
        num_epochs: of the stage.
        step: the first that is taken, from 0.
        num_steps: of an epoch.
    """

    stage: str
    epoch: int
    num_epochs: int
    step: int
    num_steps: int

    def __str__(self) -> str:
        return f"{self.stage}, epoch {self.epoch + 1} of {self.num_epochs}"


class Recorder(Protocol):
    """Somebody who is told."""

    def on_start(self, start: EpochStart, /) -> None:
        """Take note that an epoch begins."""

    def on_step(self, record: StepRecord) -> None:
        """Take note of a step."""

    def on_epoch(self, stage: str, epoch: int, losses: Mapping[str, float], /) -> None:
        """Take note of an epoch's mean losses."""


class StepLines:
    """One line of JSON a step.

    Args:
        path: appended to.
        resumed_at: where a run takes up again; lines from there on, of steps that a kill undid, are dropped.
            None starts a new file.
    """

    def __init__(self, path: Path, resumed_at: Position | None) -> None:
        self._path = path
        kept = [] if resumed_at is None or not path.exists() else _lines_before(path, resumed_at)
        write_atomically(path, "".join(kept).encode())

    def on_start(self, _start: EpochStart) -> None:
        """Nothing: an epoch is its steps."""

    def on_step(self, record: StepRecord) -> None:
        """Append a line."""
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def on_epoch(self, stage: str, epoch: int, losses: Mapping[str, float]) -> None:
        """Nothing: an epoch is its steps."""


def _lines_before(path: Path, position: Position) -> list[str]:
    """Return the whole lines of the steps before a position; a stage's lines follow one another."""
    kept: list[str] = []
    is_in_stage = False
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # torn by a kill
        step = json.loads(line)
        is_before = (step["epoch"], step["step"]) < (position.epoch, position.step)
        if step["stage"] == position.stage:
            is_in_stage = True
        if is_in_stage and (step["stage"] != position.stage or not is_before):
            break
        kept.append(line)
    return kept


class TensorBoard:
    """Event files for TensorBoard.

    Args:
        folder: of the event files.

    Raises:
        ModuleNotFoundError: the package `tensorboard` is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional package

        self._writer = SummaryWriter(folder)

    def on_start(self, _start: EpochStart) -> None:
        """Nothing: steps are numbered through."""

    def on_step(self, record: StepRecord) -> None:
        """Add every figure, under the stage's name."""
        figures = {
            **record.losses,
            "gradient_norm": record.gradient_norm,
            "learning_rate": record.learning_rate,
            "videos_per_second": record.videos_per_second,
            "data_wait_share": record.data_wait_share,
        }
        step = record.epoch * record.num_steps + record.step
        for name, value in figures.items():
            self._writer.add_scalar(f"{record.stage}/{name}", value, step)

    def on_epoch(self, _stage: str, _epoch: int, _losses: Mapping[str, float]) -> None:
        """Write what has come together to the disk."""
        self._writer.flush()


class EpochReport:
    """Tells a function every epoch's mean losses."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_start(self, _start: EpochStart) -> None:
        """Nothing: the epoch's means are told."""

    def on_step(self, record: StepRecord) -> None:
        """Nothing: the epoch's means are told."""

    def on_epoch(self, stage: str, epoch: int, losses: Mapping[str, float]) -> None:
        """Tell them."""
        self._report(stage, epoch, dict(losses))


@dataclass(frozen=True, slots=True)
class Journal:
    """All who are told; empty in every process but the first."""

    recorders: Sequence[Recorder] = ()

    def start(self, start: EpochStart) -> None:
        """Tell all that an epoch begins."""
        for recorder in self.recorders:
            recorder.on_start(start)

    def step(self, record: StepRecord) -> None:
        """Tell all of a step."""
        for recorder in self.recorders:
            recorder.on_step(record)

    def epoch(self, stage: str, epoch: int, losses: Mapping[str, float]) -> None:
        """Tell all of an epoch."""
        for recorder in self.recorders:
            recorder.on_epoch(stage, epoch, losses)
