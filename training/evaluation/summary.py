"""Several evaluations of one kind summed up: means and spreads over splits and seeds, at equal FLOPs.

Where a control comes in a few sizes only, its accuracy between two of them is that of using the one for
some of the videos and the other for the rest: a straight line.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from training.evaluation.record import Method, Record, Row

Metric = Callable[[Row], float]


class Point(NamedTuple):
    """What a video costs, in whatever unit, and how often the answer is right."""

    cost: float
    accuracy: float


class Estimate(NamedTuple):
    """A mean over runs and their standard deviation; that of a single run is 0."""

    mean: float
    spread: float
    num_runs: int


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean and the spread of at least one value."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return Estimate(statistics.fmean(values), spread, len(values))


def curve(record: Record, method: Method, metric: Metric, cost: Metric) -> list[Point]:
    """Return a method's points by rising cost; of equal costs, the more accurate."""
    best: dict[float, float] = {}
    for row in record.of(method):
        best[cost(row)] = max(metric(row), best.get(cost(row), 0.0))
    return [Point(*item) for item in sorted(best.items())]


def at_cost(points: Sequence[Point], cost: float) -> float | None:
    """Return the accuracy that a curve's method reaches for a cost.

    Args:
        points: by rising cost.
        cost: in their unit.

    Returns:
        Between two points, on the line between them; beyond the last, that of the last, which cannot spend
        more; None below the first.
    """
    if not points or cost < points[0].cost:
        return None
    for left, right in pairwise(points):
        if cost <= right.cost:
            way = (cost - left.cost) / (right.cost - left.cost)
            return left.accuracy + way * (right.accuracy - left.accuracy)
    return points[-1].accuracy


def at_share(record: Record, method: Method, metric: Metric, share: float) -> float | None:
    """Return the accuracy that a method reaches for a share of the baseline's FLOPs, None below its least."""
    points = curve(record, method, metric, lambda row: row.total_gflops)
    return at_cost(points, share * record.baseline_gflops)


def over_runs(values: Iterable[float | None]) -> Estimate | None:
    """Return the estimate over runs, None where any of them lacks the value."""
    known = list(values)
    present = [value for value in known if value is not None]
    return estimate(present) if present and len(present) == len(known) else None


def at_equal_flops(
    records: Sequence[Record], method: Method, metric: Metric, share: float
) -> Estimate | None:
    """Return a method's accuracy at a share, over runs."""
    return over_runs(at_share(record, method, metric, share) for record in records)


def lead_at_equal_flops(
    records: Sequence[Record], method: Method, over: Method, metric: Metric, share: float
) -> Estimate | None:
    """Return by how much a method leads over another at a share: run by run, then over runs."""
    leads: list[float | None] = []
    for record in records:
        ours, theirs = (at_share(record, each, metric, share) for each in (method, over))
        leads.append(None if ours is None or theirs is None else ours - theirs)
    return over_runs(leads)


def lead_over_row(
    records: Sequence[Record], method: Method, over: Method, metric: Metric, share: float
) -> Estimate | None:
    """Return by how much a method at a share leads over another's only row, whatever that costs."""
    leads: list[float | None] = []
    for record in records:
        ours, theirs = at_share(record, method, metric, share), record.of(over)
        leads.append(None if ours is None or not theirs else ours - metric(theirs[0]))
    return over_runs(leads)


def grouped(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Return the records by name and dataset, in order of first appearance."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.name, record.data), []).append(record)
    return groups


def paired_lead(
    ours: Sequence[Record], theirs: Sequence[Record], method: Method, metric: Metric, share: float
) -> Estimate | None:
    """Return by how much runs of one kind lead over those of another that share split and seed."""
    by_run = {(record.split, record.seed): record for record in theirs}
    leads: list[float | None] = []
    for record in ours:
        if (other := by_run.get((record.split, record.seed))) is not None:
            mine, other_s = (at_share(each, method, metric, share) for each in (record, other))
            leads.append(None if mine is None or other_s is None else mine - other_s)
    return over_runs(leads)
