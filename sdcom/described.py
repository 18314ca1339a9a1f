"""A model's record as tables for people, and as one document for scripts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from sdcom.checkpoint import ModelInfo, best_exits
from sdcom.engine.hardware import HardwareCosts

_HEADINGS = {
    "name": "",
    "top1": "top-1",
    "top1_interval": "95 % interval",
    "top5": "top-5",
    "map_first": "mAP, first label",
    "map_all": "mAP, all labels",
    "gflops": "GFLOPs a video",
    "share": "of the baseline",
}
_SHARES = ("top1", "top1_interval", "top5", "map_first", "map_all", "share")
"""Of an evaluation's scores, those that are shares."""


def document(described: ModelInfo, measured: Sequence[HardwareCosts] = ()) -> dict[str, Any]:
    """Return the whole record as `model.json` holds it, the MACs of every part included.

    What was measured on machines is beside it as `hardware`, if there is any.
    """
    record = {**described.model_dump(mode="json"), "macs": described.macs.to_dict()}
    return record | {"hardware": [each.model_dump(mode="json") for each in measured]} if measured else record


def tables(described: ModelInfo, measured: Sequence[HardwareCosts] = ()) -> Iterator[Table]:
    """Yield what there is to say of a model, a table for each matter."""
    yield _networks(described)
    yield _macs(described)
    yield from map(hardware_table, measured)
    if described.calibration:
        yield _calibration(described)
    if described.exits:
        yield _exits(described)
    for name, evaluated in described.evaluation.items():
        yield from _evaluation(name, evaluated)
    provenance = dict(described.provenance)
    recipe = provenance.pop("recipe", None)
    if provenance:
        yield _facts("Provenance", provenance)
    if isinstance(recipe, Mapping):  # whose model is the first table
        yield _facts("Recipe", {name: value for name, value in recipe.items() if name != "model"})


def _networks(described: ModelInfo) -> Table:
    config, clip = described.config, described.config.clip
    table = Table(title=escape(described.full_name), box=None, show_header=False, title_justify="left")
    table.add_row("static network", f"{config.static} at {config.static_resolution} px")
    table.add_row("dynamic network", f"{config.dynamic} at {clip.crop} px, widths {list(config.widths)}")
    table.add_row("gate", f"{config.gate_features} features, GRU of {config.gate_hidden}")
    table.add_row("fusion", f"{config.fusion_features} features")
    table.add_row("clip", f"{clip.num_frames} frames, short side {clip.short_side}, crop {clip.crop}")
    table.add_row("labels", escape(f"{config.num_labels}: {', '.join(config.labels)}"))
    default = described.default_budget
    table.add_row(
        "default budget", "the policy as trained" if default is None else f"{default:g} of the baseline"
    )
    return table


def _macs(described: ModelInfo) -> Table:
    macs, num_frames = described.macs, described.config.clip.num_frames
    columns = ("part", "MACs a frame", "GFLOPs a video", "of the baseline")
    table = Table(*columns, title="\nCost", box=None, title_justify="left")
    baseline, floor = macs.baseline(num_frames), macs.floor(num_frames)
    rows = [("static", macs.static), ("gate", macs.gate)]
    rows += [(f"dynamic at {width:g}", count) for width, count in macs.dynamic.items()]
    rows += [("fusion", macs.fusion)]
    for name, count in rows:
        total = count * num_frames
        table.add_row(name, f"{count:,}", f"{total / 1e9:.4f}", f"{total / baseline:.4f}")
    enough = -(-floor // 10**5) / 10**4, -(-floor * 10**4 // baseline) / 10**4  # as budgets: rounded up
    table.add_row("floor: every frame at width 0", "", *(f"{figure:.4f}" for figure in enough))
    table.add_row("baseline: full width throughout", "", f"{baseline / 1e9:.4f}", "1.0000")
    return table


def hardware_table(measured: HardwareCosts) -> Table:
    """Return what each part takes on a machine, beside what it costs in MACs."""
    threads = "1 thread" if measured.num_threads == 1 else f"{measured.num_threads} threads"
    title = f"\nTime on {measured.machine}\n{measured.provider} {measured.provider_version}, {threads}"
    columns = ("part", "µs a frame", "MACs, of full width", "time, of full width")
    table = Table(*columns, title=escape(title), box=None, title_justify="left")
    rows = _measured_rows(measured)
    _, full_us, full_macs = rows[-1]
    for name, us, macs in rows:
        table.add_row(name, f"{us:,}", f"{macs / full_macs:.1%}", f"{us / full_us:.1%}")
    return table


def _measured_rows(measured: HardwareCosts) -> list[tuple[str, int, int]]:
    """Return name, microseconds and MACs a frame of each part, full width last."""
    macs = measured.macs
    rows = [
        ("static", measured.static_us, macs.static),
        ("gate", measured.gate_us, macs.gate),
        ("fusion", measured.fusion_us, macs.fusion),
    ]
    widths = sorted(measured.dynamic_us.items())
    return rows + [(f"dynamic at {width:g}", us, macs.dynamic[width]) for width, us in widths]


def _calibration(described: ModelInfo) -> Table:
    widths = (f"at {width:g}" for width in described.config.widths)
    columns = ("lambda", "GFLOPs a video", "of the baseline", "top-1", *widths)
    table = Table(*columns, title="\nCalibration", box=None, title_justify="left")
    for point in described.calibration:
        shares = (f"{share:.1%}" for share in point.width_shares)
        table.add_row(
            f"{point.lam:g}", f"{point.gmacs:.4f}", f"{point.share:.1%}", f"{point.top1:.1%}", *shares
        )
    return table


def _exits(described: ModelInfo) -> Table:
    columns = ("lambda", "confidence", "frames", "GFLOPs a video", "of the baseline", "top-1")
    table = Table(*columns, title="\nEarly exits, the best at their cost", box=None, title_justify="left")
    for point in best_exits(described.exits):
        table.add_row(
            f"{point.lam:g}",
            f"{point.confidence:g}",
            f"{point.num_frames:.1f}",
            f"{point.gmacs:.4f}",
            f"{point.share:.1%}",
            f"{point.top1:.1%}",
        )
    return table


def _evaluation(name: str, evaluated: object) -> Iterator[Table]:
    """Yield an evaluation's scores, a row for each way of answering, and then what else it says.

    A record may hold anything here: what has another form than `sdcom evaluate --record` writes is listed.
    """
    title, rest = f"Evaluation, {name}", evaluated
    if isinstance(evaluated, Mapping) and _are_rows(evaluated.get("scores")):
        yield _scores(title, evaluated["scores"])
        title, rest = "", {key: value for key, value in evaluated.items() if key != "scores"}
    if rest:
        yield _facts(title, rest if isinstance(rest, Mapping) else {"": rest})


def _are_rows(scores: object) -> bool:
    return isinstance(scores, Sequence) and bool(scores) and all(isinstance(row, Mapping) for row in scores)


def _scores(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    headings = (escape(_HEADINGS.get(name, name)) for name in columns)
    table = Table(*headings, title=escape(f"\n{title}"), box=None, title_justify="left")
    for row in rows:
        table.add_row(*(escape(_score(name, row.get(name, ""))) for name in columns))
    return table


def _score(name: str, value: object) -> str:
    if isinstance(value, list) and name in _SHARES:
        return " to ".join(_score(name, end) for end in value)
    if not isinstance(value, float):
        return _text(value)
    return f"{value:.1%}" if name in _SHARES else f"{value:.4f}"


def _facts(title: str, facts: Mapping[str, object]) -> Table:
    """Return names and values, those of groups under dotted names, as `--set` takes them."""
    table = Table(
        "",
        Column(overflow="fold"),
        title=escape(f"\n{title}") if title else None,
        box=None,
        show_header=False,
        title_justify="left",
    )
    for name, value in _flat(facts):
        table.add_row(escape(name), escape(_text(value)))
    return table


def _flat(facts: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + str(name), value


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
