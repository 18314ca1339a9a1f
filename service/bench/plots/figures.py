"""What the benchmarks saved, as SVG: the same bytes for the same records, whenever and wherever drawn."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter

Record = Mapping[str, Any]

# Okabe and Ito's colours, told apart by every kind of colour vision; shapes and dashes say it again.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072b2", "#d55e00", "#009e73", "#666666"
_BELOW: dict[str, Any] = {"xytext": (6, -4), "textcoords": "offset points", "ha": "left", "va": "top"}
_ABOVE: dict[str, Any] = {"xytext": (-6, 4), "textcoords": "offset points", "ha": "right", "va": "bottom"}
_MODELS = {"paper": ("the paper's networks", _BLUE, "o"), "bundled": ("the bundled model", _ORANGE, "s")}


def draw_all(records: Path, plots: Path) -> list[Path]:
    """Draw every figure whose records are there; return the files written.

    Args:
        records: folder of what the bench commands saved, by the names in `FIGURES`.
        plots: folder for the figures.
    """
    written = []
    for name, (needed, draw) in FIGURES.items():
        files = {each: records / f"{each}.json" for each in needed}
        if all(file.is_file() for file in files.values()):
            read = {each: json.loads(file.read_text()) for each, file in files.items()}
            written.append(_save(plots / f"bench-{name}.svg", draw, read))
    return written


def _save(
    path: Path, draw: Callable[[Figure, Mapping[str, Record]], None], read: Mapping[str, Record]
) -> Path:
    with mpl.rc_context({"svg.hashsalt": "sdcom", "svg.fonttype": "none", "font.family": "DejaVu Sans"}):
        figure = Figure(layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, read)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return path


def draw_widths(figure: Figure, records: Mapping[str, Record]) -> None:
    """Draw each width's share of the full width's time against its share of the FLOPs."""
    figure.set_size_inches(6.5, 5.2)
    axes = figure.add_subplot()
    axes.plot([0.05, 1.1], [0.05, 1.1], color=_GREY, linewidth=1, label="time follows the FLOPs")
    for record, (name, color, marker) in _by_model(records, "parts"):
        full = record["rows"][-1]
        shares = {row["name"]: (row["macs"] / full["macs"], row["ms"] / full["ms"]) for row in record["rows"]}
        widths = {part: share for part, share in shares.items() if part.startswith("dynamic")}
        look: dict[str, Any] = {"color": color, "marker": marker, "linestyle": "none"}
        axes.plot(*zip(*widths.values(), strict=True), **look, label=f"{name}: dynamic network by width")
        axes.plot(*shares["static"], **look, fillstyle="none", label=f"{name}: static network")
        place = _BELOW if marker == "o" else _ABOVE
        for part, share in list(widths.items())[:-1]:  # full width is the corner of both
            axes.annotate(part.removeprefix("dynamic at "), share, color=color, fontsize=9, **place)
    axes.set(xlabel="MACs, of the full width's", ylabel="time, of the full width's")
    _logarithmic(axes, (0.05, 0.1, 0.2, 0.5, 1), percent=True)
    axes.legend(loc="upper left", fontsize=9)


def draw_speedups(figure: Figure, records: Mapping[str, Record]) -> None:
    """Draw the speed-up of whole clips against what their FLOPs promise."""
    figure.set_size_inches(6.5, 5.2)
    axes = figure.add_subplot()
    for share, dashes in ((1.0, "-"), (0.8, "--"), (0.6, ":")):
        name = "the ideal" if share == 1 else f"{share:.0%} of it"
        axes.plot([1 / share, 12], [1, 12 * share], color=_GREY, linewidth=1, linestyle=dashes, label=name)
    for record, (name, color, marker) in _by_model(records, "engine"):
        points = sorted((row["ideal_speedup"], row["speedup"]) for row in record["rows"])
        axes.plot(*zip(*points, strict=True), color=color, marker=marker, label=name)
    axes.set(xlabel="full width's FLOPs over the clip's", ylabel="full width's time over the clip's")
    _logarithmic(axes, (1, 2, 3, 5, 10), percent=False)
    axes.legend(loc="upper left", fontsize=9)


def draw_load(figure: Figure, records: Mapping[str, Record]) -> None:
    """Draw latency, goodput and saving against the rate of arrivals, governor off and on."""
    figure.set_size_inches(7, 8)
    latency, goodput, saved = figure.subplots(3, 1, sharex=True)
    looks = {"serve": ("governor off", _ORANGE, "s"), "serve-governor": ("governor on", _BLUE, "o")}
    for kind, (name, color, marker) in looks.items():
        answered = [row for row in records[kind]["rows"] if row["latency_s"]]
        rows = sorted(answered, key=lambda row: row["rate"])
        rates = [row["rate"] for row in rows]
        look: dict[str, Any] = {"color": color, "marker": marker}
        for percent, dashes in (("99", "-"), ("50", "--")):
            times = [row["latency_s"][percent] for row in rows]
            latency.plot(rates, times, **look, linestyle=dashes, label=f"{name}, p{percent}")
        goodput.plot(rates, [row["goodput"] for row in rows], **look, label=name)
        saved.plot(rates, [row["saved"] for row in rows], **look, label=name)
    goodput.plot(rates, rates, color=_GREY, linewidth=1, label="all of them")
    latency.set(ylabel="latency of answers, s", ylim=(0, None))
    goodput.set(ylabel="answers in time a second", ylim=(0, None))
    saved.set(ylabel="FLOPs saved", xlabel="arrivals a second", ylim=(0, 1))
    saved.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (latency, goodput, saved):
        axes.grid(visible=True, alpha=0.3)
    latency.legend(fontsize=9, ncols=2, loc="lower right")
    goodput.legend(fontsize=9, loc="upper left")
    saved.legend(fontsize=9, loc="lower right")


def draw_decoding(figure: Figure, records: Mapping[str, Record]) -> None:
    """Draw the processor time of sixteen frames of H.264 by the distance of keyframes, beside decord's."""
    rows = [row for row in records["decode"]["rows"] if "-h264-" in row["clip"]]
    kinds = sorted({row["clip"].split("-h264-")[0] for row in rows}, reverse=True)
    figure.set_size_inches(max(5.5, 4.2 * len(kinds)), 4)
    ways = {
        "decord, centres": (_GREY, ""),
        "centers": (_ORANGE, "//"),
        "cheapest": (_BLUE, ""),
        "affordable": (_GREEN, ".."),
    }
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        shown = [row for row in rows if row["clip"].startswith(kind)]
        gops = sorted({int(row["clip"].partition("-gop")[2]) for row in shown}, reverse=True)
        for offset, (way, (color, hatch)) in enumerate(ways.items()):
            found = {
                int(row["clip"].partition("-gop")[2]): row["cpu_ms"] for row in shown if row["way"] == way
            }
            places = [place + 0.21 * (offset - 1.5) for place in range(len(gops))]
            heights = [found[gop] for gop in gops]
            bars = axes.bar(places, heights, 0.2, color=color, hatch=hatch, edgecolor="white", label=way)
            axes.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=1)
        axes.margins(y=0.08)
        axes.set_xticks(range(len(gops)), [str(gop) for gop in gops])
        axes.set(
            title=kind.replace("-", ", ").removesuffix("s") + " s",
            xlabel="most frames from keyframe to keyframe",
        )
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.axes[0].set_ylabel("ms of processor time, 16 frames")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9
    )


def draw_peers(figure: Figure, records: Mapping[str, Record]) -> None:
    """Draw the throughput of each server at one p99, with every turn as a dot."""
    figure.set_size_inches(8, 2.1 * len(records) + 0.5)
    panels = figure.subplots(len(records), 1, squeeze=False)[:, 0]
    for axes, record in zip(panels, records.values(), strict=True):
        rows = record["rows"][::-1]
        names = [f"{row['server']}, {row['network']}" for row in rows]
        colors = [_BLUE if row["server"] == "sdcom" else _GREY for row in rows]
        bars = axes.barh(names, [row["throughput"] for row in rows], color=colors)
        axes.bar_label(bars, fmt="{:.1f}", label_type="center", color="white", fontsize=9)
        for place, row in enumerate(rows):
            axes.plot(row["turns"], [place] * len(row["turns"]), "o", color=_ORANGE, markersize=4)
        axes.set(title=f"{record['model']}, {record['video']}: p99 within {record['p99_s']:g} s")
        axes.margins(x=0.1)
    figure.axes[-1].set_xlabel("answers a second (bar: median; dots: turns)")


def _by_model(records: Mapping[str, Record], kind: str) -> list[tuple[Record, tuple[str, str, str]]]:
    return [
        (records[kind if model == "bundled" else f"{kind}-paper"], look) for model, look in _MODELS.items()
    ]


def _logarithmic(axes: Axes, ticks: Sequence[float], *, percent: bool) -> None:
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(list(ticks)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(PercentFormatter(1) if percent else StrMethodFormatter("{x:g}"))
    axes.grid(visible=True, alpha=0.3)


FIGURES: Mapping[str, tuple[tuple[str, ...], Callable[[Figure, Mapping[str, Record]], None]]] = {
    "widths": (("parts", "parts-paper"), draw_widths),
    "speedups": (("engine", "engine-paper"), draw_speedups),
    "load": (("serve", "serve-governor"), draw_load),
    "decoding": (("decode",), draw_decoding),
    "peers": (("peers", "peers-paper"), draw_peers),
}
"""Of each figure, the records that it is drawn from, and what draws it."""
