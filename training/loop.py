"""The loop that both stages share: steps, accumulation, records, checkpoints, resuming.

What is random in a step is seeded by its place in the run, so that a resumed run draws what the killed one
would have.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from sdcom.errors import InvalidParameterError
from training.batches import Batches
from training.checkpoints import Checkpoints, Position, Stateful
from training.distributed import (
    global_batch_norm,
    is_main,
    rank,
    sum_gradients,
    world_size,
)
from training.meter import Means, Meter
from training.optimize import (
    Part,
    build_optimizer,
    build_scaler,
    set_learning_rates,
    update,
)
from training.recipes import Optimization
from training.records import EpochStart, Journal

Backward = Callable[[Tensor], None]
"""Adds the gradients of a part's loss, weighed and scaled as the step asks."""

_OF_STEPS = 2**31


class Drawn(Protocol):
    """A batch as a stage draws it: this process's slice."""

    @property
    def clip_indices_B(self) -> Tensor:  # noqa: N802 - a shape suffix
        """Which clips it is of, on the CPU."""


BatchT = TypeVar("BatchT", bound=Drawn)
MicroT = TypeVar("MicroT")


class Stage(Protocol[BatchT, MicroT]):
    """What a stage of training is to the loop.

    Attributes:
        name: in records and checkpoints.
        batches: that it learns from; gives seed, stage number, device and clips.
    """

    @property
    def name(self) -> str:
        """What records and checkpoints call it."""

    @property
    def batches(self) -> Batches:
        """What it learns from; gives seed, stage number, device and clips."""

    def parts(self) -> Sequence[Part]:
        """Return what the optimiser moves."""

    def kept(self) -> Mapping[str, Stateful]:
        """Return what a checkpoint keeps besides the optimiser, by name."""

    def begin_epoch(self, epoch: int, /) -> None:
        """Set modes."""

    def draw(self, epoch: int, start_step: int, /) -> Iterator[BatchT]:
        """Yield the epoch's batches from a step on."""

    def split(self, batch: BatchT, num_parts: int, epoch: int, /) -> Sequence[MicroT]:
        """Return equal parts of a batch, ready to be learnt from."""

    def before_step(self, micro_batches: Sequence[MicroT], optimizer: Optimizer, epoch: int, /) -> None:
        """Do what comes before the gradients, with all of the step's parts at hand."""

    def accumulate(self, micro_batch: MicroT, epoch: int, backward: Backward, /) -> dict[str, Tensor]:
        """Add a part's gradients; return its loss terms, scalars without gradients, the total first."""

    def after_step(self) -> None:
        """Do what follows a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """Who is told, and how often.

    Attributes:
        journal: told of steps and epochs.
        checkpoints: where to keep the run's state, and to resume it from; None keeps none.
        log_interval: steps after which figures come over from the device, and are checked and recorded.
        checkpoint_interval: steps after which the state is kept, besides at the end of every epoch.
    """

    journal: Journal = field(default_factory=Journal)
    checkpoints: Checkpoints | None = None
    log_interval: int = 10
    checkpoint_interval: int = 500


def fit(stage: Stage[BatchT, MicroT], options: Optimization, loop: LoopOptions) -> None:
    """Train a stage to its end, from its last checkpoint if there is one.

    Raises:
        NotFiniteError: a loss or gradient is no number; the message names the batch's files.
        CheckpointError: a checkpoint cannot be written, or is not this run's.
        InvalidParameterError: a process's share of a batch cannot be divided into equal parts.
        DataError: a clip cannot be read.
    """
    share = stage.batches.batch_size // stage.batches.world_size
    if share % options.accumulation:
        raise InvalidParameterError(
            f"a process's share of {share} videos a batch cannot be divided into accumulation="
            f"{options.accumulation} equal parts"
        )
    device = stage.batches.source.device
    trainer = _Trainer(stage, options, loop)
    start = trainer.resume()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), global_batch_norm():
        for epoch in range(start.epoch, options.epochs):
            trainer.run_epoch(epoch, start.step if epoch == start.epoch else 0)


class _Trainer(Generic[BatchT, MicroT]):
    """A stage with its optimiser, its figures, and where it keeps its state."""

    def __init__(self, stage: Stage[BatchT, MicroT], options: Optimization, loop: LoopOptions) -> None:
        self._stage = stage
        self._options = options
        self._loop = loop
        self._optimizer = build_optimizer(stage.parts(), options)
        self._scaler = build_scaler(stage.batches.source.device, options.precision)
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._meter = Meter(stage.name, stage.batches, options, norm_may_overflow=self._scaler.is_enabled())

    def resume(self) -> Position:
        position = None
        if self._loop.checkpoints is not None:
            position = self._loop.checkpoints.restore(self._stage.name, self._kept())
        return position or Position(self._stage.name)

    def run_epoch(self, epoch: int, start_step: int) -> None:
        """Train from a step of an epoch to the epoch's end."""
        self._stage.begin_epoch(epoch)
        means = Means()
        num_steps = self._stage.batches.steps_per_epoch
        begun = EpochStart(self._stage.name, epoch, self._options.epochs, start_step, num_steps)
        self._loop.journal.start(begun)
        drawn = self._meter.timed(self._stage.draw(epoch, start_step))
        for step, batch in enumerate(drawn, start_step):
            self._step(epoch, step, batch)
            is_last = step + 1 == num_steps
            is_kept = (step + 1) % self._loop.checkpoint_interval == 0 and not is_last
            if is_last or is_kept or (step + 1) % self._loop.log_interval == 0:
                self._record(means)
            if is_kept:
                self._save(Position(self._stage.name, epoch, step + 1))
        self._loop.journal.epoch(self._stage.name, epoch, means.values())
        self._save(Position(self._stage.name, epoch + 1))

    def _step(self, epoch: int, step: int, batch: BatchT) -> None:
        stage, options = self._stage, self._options
        num_steps = stage.batches.steps_per_epoch
        torch.manual_seed(_step_seed(stage.batches, epoch, step))
        set_learning_rates(self._optimizer, epoch + step / num_steps, options)
        micro_batches = stage.split(batch, options.accumulation, epoch)
        stage.before_step(micro_batches, self._optimizer, epoch)
        share = 1 / (len(micro_batches) * world_size())
        terms = [
            stage.accumulate(micro_batch, epoch, lambda loss: self._scaler.scale(loss * share).backward())
            for micro_batch in micro_batches
        ]
        sum_gradients(self._parameters)
        norm = update(self._optimizer, self._scaler, options.max_gradient_norm)
        stage.after_step()
        self._meter.note(epoch, step, batch.clip_indices_B, terms, norm)

    def _record(self, means: Means) -> None:
        for record in self._meter.flush():
            means.add(record.losses)
            self._loop.journal.step(record)

    def _save(self, position: Position) -> None:
        if self._loop.checkpoints is not None and is_main():
            self._loop.checkpoints.save(position, self._kept())

    def _kept(self) -> dict[str, Stateful]:
        return {**self._stage.kept(), "optimizer": self._optimizer, "scaler": self._scaler}


def _step_seed(batches: Batches, epoch: int, step: int) -> int:
    """Return the seed of what torch draws in a step (dropout), another one in every process."""
    key = [batches.seed, batches.stage, epoch, _OF_STEPS + step, rank()]
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
