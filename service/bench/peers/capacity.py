"""How much a server can do: the highest rate of arrivals at which 99 in 100 are answered in time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.bench.load import LoadRow

IN_TIME = 0.99
_STEP, _RESOLUTION = 2.0, 1.1


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a search for the capacity tried, in that order.

    Attributes:
        rows: each rate's outcome.
        seconds: for how long each rate was kept up.
    """

    rows: tuple[LoadRow, ...]
    seconds: float

    @property
    def best(self) -> LoadRow | None:
        """The highest rate that was kept up; None if none was."""
        kept = [row for row in self.rows if keeps_up(row, self.seconds)]
        return max(kept, key=lambda row: row.rate, default=None)

    @property
    def throughput(self) -> float:
        """Answers in time a second at the highest rate that was kept up."""
        return self.best.goodput if self.best else 0.0


def keeps_up(row: LoadRow, seconds: float) -> bool:
    """Tell whether 99 in 100 of all requests were answered in time; refusals and failures were not."""
    return row.goodput * seconds >= IN_TIME * row.num_requests > 0


def next_rate(kept: Sequence[float], missed: Sequence[float], first: float) -> float | None:
    """Return the rate to try next: doubling or halving, then the geometric mean between; None is the end.

    Args:
        kept: rates that were kept up.
        missed: rates that were not.
        first: the rate to begin with.
    """
    if not kept and not missed:
        return first
    if not missed:
        return max(kept) * _STEP
    if not kept:
        lowest = min(missed) / _STEP
        return lowest if lowest >= first / _STEP**6 else None
    low, high = max(kept), min(missed)
    if high <= low * _RESOLUTION:
        return None
    return math.sqrt(low * high)


def find_capacity(load: Callable[[float], LoadRow], *, first: float, seconds: float) -> Capacity:
    """Search for a server's capacity.

    Args:
        load: puts a rate of arrivals on the server.
        first: the rate to begin with, a second.
        seconds: for which `load` keeps each up.
    """
    rows, kept, missed = list[LoadRow](), list[float](), list[float]()
    while (rate := next_rate(kept, missed, first)) is not None:
        row = load(rate)
        rows.append(row)
        (kept if keeps_up(row, seconds) else missed).append(rate)
    return Capacity(tuple(rows), seconds)
