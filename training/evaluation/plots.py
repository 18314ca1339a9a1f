"""Accuracy against cost, as SVG: the same bytes for the same records, whenever and wherever drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from training.evaluation.record import Method, Record
from training.evaluation.summary import Estimate, Metric, at_cost, curve, over_runs
from training.evaluation.tables import Score, mean_part_ms


class _Look(NamedTuple):
    color: str
    line: str
    marker: str


_LOOKS = {
    Method.PRICE: _Look("#0b5394", "-", ""),
    Method.BUDGET: _Look("#6fa8dc", "-", ""),
    Method.EXIT: _Look("#351c75", "-", "x"),
    Method.RANDOM: _Look("#cc4125", "--", ""),
    Method.ONE_WIDTH: _Look("#e69138", ":", "s"),
    Method.ONE_WIDTH_TSN: _Look("#bf9000", ":", "D"),
    Method.FEWER: _Look("#38761d", ":", "^"),
    Method.FEWER_TSN: _Look("#6aa84f", ":", "v"),
    Method.STATIC: _Look("#666666", "", "o"),
    Method.BASELINE: _Look("#000000", "", "*"),
}


def draw_against_gflops(path: Path, runs: Sequence[Record], score: Score) -> None:
    """Draw a kind's score against GFLOPs of a video, bands being standard deviations over runs."""
    _draw(path, runs, score, lambda row: row.total_gflops, "GFLOPs of a video")


def draw_against_ms(path: Path, runs: Sequence[Record], score: Score) -> None:
    """Draw a kind's score against milliseconds: those of the parts times the frames that each saw."""
    part_ms = mean_part_ms(runs)
    where = "/".join(sorted({record.timing.device for record in runs}))
    _draw(path, runs, score, lambda row: row.ms(part_ms), f"ms of a video, decoding apart ({where})")


def _draw(path: Path, runs: Sequence[Record], score: Score, cost: Metric, cost_name: str) -> None:
    with mpl.rc_context({"svg.hashsalt": "sdcom", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for method, look in _LOOKS.items():
            _draw_method(axes, method, look, _points(runs, method, score.of, cost))
        axes.set(xlabel=cost_name, ylabel=score.heading, xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"{runs[0].name} on {runs[0].data}, runs: {len(runs)}")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _points(
    runs: Sequence[Record], method: Method, metric: Metric, cost: Metric
) -> list[tuple[float, Estimate]]:
    """Return a method's score at every cost that some run has and all runs reach."""
    curves = [curve(record, method, metric, cost) for record in runs]
    if not all(curves):
        return []
    last = min(points[-1].cost for points in curves)
    costs = sorted({point.cost for points in curves for point in points if point.cost <= last})
    found = [(at, over_runs(at_cost(points, at) for points in curves)) for at in costs]
    return [(at, value) for at, value in found if value is not None]


def _draw_method(axes: Axes, method: Method, look: _Look, points: list[tuple[float, Estimate]]) -> None:
    if not points:
        return
    costs, values = [at for at, _ in points], [value for _, value in points]
    means = [value.mean for value in values]
    axes.plot(costs, means, color=look.color, linestyle=look.line, marker=look.marker, label=str(method))
    if any(value.spread for value in values):
        low = [value.mean - value.spread for value in values]
        high = [value.mean + value.spread for value in values]
        axes.fill_between(costs, low, high, color=look.color, alpha=0.12, linewidth=0)
