"""A stage's figures: kept on the device, and fetched once in a while, so that no step waits for them.

Shapes: B videos, S steps, M loss terms.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from sdcom.errors import SdcomError
from training.batches import Batches
from training.distributed import gather_lists, mean_over_ranks
from training.optimize import learning_rate_factor
from training.recipes import Optimization
from training.records import StepRecord

_FILES_NAMED = 64
_T = TypeVar("_T")


class NotFiniteError(SdcomError):
    """A loss or a gradient became infinite or no number, and training cannot go on."""


class Means:
    """Running means of loss terms."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, losses: Mapping[str, float]) -> None:
        """Take in a step's terms."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def values(self) -> dict[str, float]:
        """Return the means, by name."""
        return {name: total / self._count for name, total in self._sums.items()}


@dataclass(frozen=True, slots=True)
class _Noted:
    epoch: int
    step: int
    clip_indices_B: Tensor
    terms: Mapping[str, Tensor]
    norm: Tensor


class Meter:
    """Holds steps' figures until they are asked for, and tells waiting for data from working.

    Args:
        stage: its name.
        batches: of the stage.
        options: of its optimiser.
        norm_may_overflow: gradients that are not finite are a gradient scaler's business, which leaves the
            step out and lowers its scale.
    """

    def __init__(
        self, stage: str, batches: Batches, options: Optimization, *, norm_may_overflow: bool
    ) -> None:
        self._stage = stage
        self._batches = batches
        self._options = options
        self._norm_may_overflow = norm_may_overflow
        self._noted: list[_Noted] = []
        self._since_s = time.perf_counter()
        self._waited_s = 0.0

    def timed(self, drawn: Iterable[_T]) -> Iterator[_T]:
        """Yield batches, adding up the time that they are waited for."""
        iterator = iter(drawn)
        while True:
            asked_s = time.perf_counter()
            batch = next(iterator, None)
            self._waited_s += time.perf_counter() - asked_s
            if batch is None:
                return
            yield batch

    def note(
        self,
        epoch: int,
        step: int,
        clip_indices_B: Tensor,
        terms: Sequence[Mapping[str, Tensor]],
        norm: Tensor,
    ) -> None:
        """Keep a step's figures; the terms of its parts are averaged."""
        means = {name: torch.stack([part[name] for part in terms]).mean() for name in terms[0]}
        self._noted.append(_Noted(epoch, step, clip_indices_B, means, norm))

    def flush(self) -> list[StepRecord]:
        """Return the records of the steps since the last time, means over all processes.

        Raises:
            NotFiniteError: a figure is not finite; all processes raise it.
        """
        noted, self._noted = self._noted, []
        if not noted:
            return []
        own_SM = torch.stack([torch.stack(list(one.terms.values())).float() for one in noted])
        norms_S1 = torch.stack([one.norm.float() for one in noted])[:, None]
        figures = torch.cat((mean_over_ranks(own_SM), norms_S1), dim=1).tolist()
        now_s = time.perf_counter()
        elapsed_s, self._since_s = max(now_s - self._since_s, 1e-9), now_s
        waited_s, self._waited_s = self._waited_s, 0.0
        for one, row, own_M in zip(noted, figures, own_SM, strict=True):
            checked = row[:-1] if self._norm_may_overflow else row
            if not all(math.isfinite(value) for value in checked):
                raise NotFiniteError(self._not_finite(one, row, own_M))
        videos_per_second = len(noted) * self._batches.batch_size / elapsed_s
        share = min(waited_s / elapsed_s, 1.0)
        return [
            self._record(one, row, videos_per_second, share) for one, row in zip(noted, figures, strict=True)
        ]

    def _record(
        self, one: _Noted, row: Sequence[float], videos_per_second: float, data_wait_share: float
    ) -> StepRecord:
        num_steps = self._batches.steps_per_epoch
        factor = learning_rate_factor(one.epoch + one.step / num_steps, self._options)
        return StepRecord(
            stage=self._stage,
            epoch=one.epoch,
            step=one.step,
            num_steps=num_steps,
            losses=dict(zip(one.terms, row, strict=False)),
            gradient_norm=row[-1],
            learning_rate=factor * self._options.learning_rate,
            videos_per_second=videos_per_second,
            data_wait_share=data_wait_share,
        )

    def _not_finite(self, one: _Noted, row: Sequence[float], own_M: Tensor) -> str:
        """Say what happened, and name the files of those processes in which it did, or else of all."""
        of_batch = one.clip_indices_B.tolist()
        is_own = not bool(own_M.isfinite().all())
        guilty = gather_lists(of_batch if is_own else []) or gather_lists(of_batch)
        clips = self._batches.source.clips
        names = ", ".join(str(clips[index].path) for index in guilty[:_FILES_NAMED])
        more = f" and {len(guilty) - _FILES_NAMED} more" if len(guilty) > _FILES_NAMED else ""
        figures = {**dict(zip(one.terms, row, strict=False)), "gradient_norm": row[-1]}
        bad = ", ".join(f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value))
        return (
            f"{self._stage}, epoch {one.epoch + 1}, step {one.step + 1}: {bad}. "
            f"The batch's files: {names}{more}. "
            f"If the files are fine, lower optimization.learning_rate, or set optimization.precision to fp32"
        )
