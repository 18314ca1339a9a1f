"""Records as tables of Markdown: accuracy, cost, controls at equal FLOPs, and how it was all made."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from training.evaluation.record import Method, Record, Row
from training.evaluation.summary import (
    Estimate,
    at_equal_flops,
    estimate,
    lead_at_equal_flops,
    lead_over_row,
    over_runs,
    paired_lead,
)

SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
BUDGETS = (0.1, 0.2, 0.25, 0.3, 0.5, 1.0)
COMPOSED = (Method.PRICE, Method.BUDGET, Method.EXIT)
CONTROLS = (Method.RANDOM, Method.ONE_WIDTH, Method.ONE_WIDTH_TSN, Method.FEWER, Method.FEWER_TSN)
BASELINES = (Method.BASELINE, Method.BASELINE_FUSION, Method.STATIC)
PARTS = ("static", "gate", "dynamic", "fusion")
NOTHING = "-"

_Line = tuple[str, Method, float | None]
"""A line's name, and the method and setting of its rows; no setting takes the method's only row."""

_POLICIES: list[_Line] = [
    (Method.UNLIMITED, Method.UNLIMITED, None),
    (Method.DEFAULT, Method.DEFAULT, None),
    *((f"SDCOM, budget {share:g}", Method.BUDGET, share) for share in BUDGETS),
]


class Score(StrEnum):
    """Which score comparisons are about."""

    TOP1 = "top1"
    MAP_FIRST = "map_first"
    MAP_ALL = "map_all"

    @property
    def heading(self) -> str:
        """What tables call it."""
        return {"top1": "top-1 %", "map_first": "mAP %, first label", "map_all": "mAP %, all labels"}[self]

    def of(self, row: Row) -> float:
        """Return a row's score in percent."""
        return 100 * float(getattr(row.accuracy, self))


def mean_part_ms(runs: Sequence[Record]) -> dict[str, float]:
    """Return each part's milliseconds a frame, the mean over the runs that measured it."""
    parts = {part for record in runs for part in record.timing.part_ms}
    measured = {part: [r.timing.part_ms[part] for r in runs if part in r.timing.part_ms] for part in parts}
    return {part: estimate(values).mean for part, values in measured.items()}


def accuracy_table(runs: Sequence[Record]) -> str:
    """Return every score and cost of the policy, of budgets, and of the baselines."""
    part_ms = mean_part_ms(runs)
    table = []
    for name, rows in _lines(runs, [*_POLICIES, *((method, method, None) for method in BASELINES)]):
        top5 = estimate([100 * row.accuracy.top5 for row in rows])
        scores = [estimate([score.of(row) for row in rows]) for score in Score]
        gflops = estimate([row.total_gflops for row in rows]).mean
        baseline = estimate([record.baseline_gflops for record in runs]).mean
        ms = estimate([row.ms(part_ms) for row in rows]).mean
        cells = map(_cell, (scores[0], top5, *scores[1:]))
        table.append([name, *cells, f"{gflops:.3f}", f"{100 * gflops / baseline:.1f}", f"{ms:.1f}"])
    top1, *others = (score.heading for score in Score)
    return _table(["", top1, "top-5 %", *others, "GFLOPs", "of the baseline %", "ms"], table)


def card_table(own: Record, runs: Sequence[Record]) -> str:
    """Return top-1 and cost of one model, and top-1 and cost over all runs of its kind beside it.

    Args:
        own: record of the model that the card is of.
        runs: all records of its kind, that one among them.
    """
    lines = [*_POLICIES, *((method, method, None) for method in BASELINES)]
    table = []
    for (name, rows), (_, (row,)) in zip(_lines(runs, lines), _lines([own], lines), strict=True):
        share = 100 * row.total_gflops / own.baseline_gflops
        shares = [100 * each.total_gflops / run.baseline_gflops for each, run in zip(rows, runs, strict=True)]
        mean = f"{_cell(estimate([Score.TOP1.of(each) for each in rows]))} at {estimate(shares).mean:.1f} %"
        table.append([name, f"{Score.TOP1.of(row):.1f}", f"{row.total_gflops:.3f}", f"{share:.1f}", mean])
    columns = [f"{own.split}: top-1 %", "GFLOPs a video", "of the baseline %", f"{len(runs)} runs: top-1 %"]
    return _table(["", *columns], table)


def equal_flops_table(runs: Sequence[Record], score: Score) -> str:
    """Return the composition's and the controls' score at shares of the baseline's FLOPs."""
    methods = (*COMPOSED, *CONTROLS)
    return _by_share(
        {method: [at_equal_flops(runs, method, score.of, share) for share in SHARES] for method in methods}
    )


def lead_table(runs: Sequence[Record], score: Score) -> str:
    """Return by how much one price for all videos leads over the baseline and over each control."""
    over_baseline = [lead_over_row(runs, Method.PRICE, Method.BASELINE, score.of, share) for share in SHARES]
    over_controls = {
        f"over {method}": [
            lead_at_equal_flops(runs, Method.PRICE, method, score.of, share) for share in SHARES
        ]
        for method in CONTROLS
    }
    return _by_share({f"over the {Method.BASELINE} at 100 %": over_baseline, **over_controls}, signed=True)


def parts_table(runs: Sequence[Record]) -> str:
    """Return where the GFLOPs of a video go, and the share of its frames that each width got."""
    full = {part for record in runs for row in record.of(Method.ONE_WIDTH) for part in row.frames}
    widths = sorted(part for part in full if part.startswith("dynamic at "))
    table = []
    for name, rows in _lines(runs, _POLICIES):
        gflops = [estimate([_of_part(row, part) for row in rows]).mean for part in PARTS]
        shares = [
            estimate([row.frames.get(width, 0.0) / row.frames["static"] for row in rows]).mean
            for width in widths
        ]
        taken = (f"{100 * share:.1f} %" for share in (1 - sum(shares), *shares))
        table.append([name, *(f"{value:.3f}" for value in gflops), *taken])
    return _table(["", *PARTS, "at 0", *(width.removeprefix("dynamic ") for width in widths)], table)


def anytime_table(runs: Sequence[Record], score: Score) -> str:
    """Return the score after the first frames, of the trained policy and of full width by both heads."""
    methods = (Method.ANYTIME, Method.FEWER, Method.FEWER_TSN)
    counts = sorted({row.setting for record in runs for row in record.of(Method.ANYTIME) if row.setting})
    table = []
    for count in counts:
        cells = []
        for method in methods:
            rows = _over_runs(runs, method, count) or []
            score_cell = _cell(over_runs(score.of(row) for row in rows))
            gflops = over_runs(row.total_gflops for row in rows)
            cells += [score_cell, NOTHING if gflops is None else f"{gflops.mean:.3f}"]
        table.append([f"{count:g}", *cells])
    names = (Method.UNLIMITED, "full width, fusion head", "full width, TSN")
    return _table(["frames", *(cell for name in names for cell in (name, "GFLOPs"))], table)


def whole_time_table(runs: Sequence[Record]) -> str:
    """Return milliseconds from the file to the answer, means over the runs that measured them."""
    names = dict.fromkeys(whole.name for record in runs for whole in record.timing.whole)
    table = []
    for name in names:
        measured = [whole for record in runs for whole in record.timing.whole if whole.name == name]
        total = estimate([whole.total_ms for whole in measured]).mean
        decode = estimate([whole.decode_ms for whole in measured]).mean
        table.append([name, f"{total:.0f}", f"{decode:.0f}", f"{total - decode:.0f}"])
    return _table(["", "in all", "decoding", "networks"], table)


def kinds_table(kinds: Mapping[str, Sequence[Record]], score: Score) -> str:
    """Return the score of several kinds of runs at shares of the baseline's FLOPs, and leads over the first.

    Leads are over the runs of the first kind that share split and seed.
    """
    (first, reference), *others = kinds.items()
    table = [
        [name, *(_cell(at_equal_flops(runs, Method.PRICE, score.of, share)) for share in SHARES)]
        for name, runs in kinds.items()
    ]
    for name, runs in others:
        leads = (paired_lead(runs, reference, Method.PRICE, score.of, share) for share in SHARES)
        table.append([f"{name}, lead over {first}", *(_cell(lead, signed=True) for lead in leads)])
    return _table(["", *(f"{100 * share:g} %" for share in SHARES)], table)


def runs_table(records: Sequence[Record]) -> str:
    """Return how every record was made: command, machine, versions."""
    header = ["kind", "model", "data", "seed", "clips", "calibrated on", "machine", "versions", "command"]
    table = [
        [
            record.name,
            record.model,
            f"{record.data} {record.split}",
            NOTHING if record.seed is None else str(record.seed),
            str(record.num_clips),
            record.calibrated_on,
            record.machine,
            ", ".join(f"{name} {number}" for name, number in record.versions.items()),
            f"`{record.command}`",
        ]
        for record in records
    ]
    return _table(header, table)


def _lines(runs: Sequence[Record], lines: Iterable[_Line]) -> list[tuple[str, list[Row]]]:
    """Return the rows of each line, one a run; lines that some run lacks are left out."""
    found = ((name, _over_runs(runs, method, setting)) for name, method, setting in lines)
    return [(name, rows) for name, rows in found if rows is not None]


def _over_runs(runs: Sequence[Record], method: Method, setting: float | None) -> list[Row] | None:
    found = [
        next((row for row in record.of(method) if setting is None or row.setting == setting), None)
        for record in runs
    ]
    rows = [row for row in found if row is not None]
    return rows if len(rows) == len(runs) else None


def _of_part(row: Row, part: str) -> float:
    return sum(count for name, count in row.gflops.items() if name == part or name.startswith(f"{part} at "))


def _by_share(columns: Mapping[str, Sequence[Estimate | None]], *, signed: bool = False) -> str:
    """Return a table of a line for each share that anything reaches."""
    lines = zip(SHARES, *columns.values(), strict=True)
    table = [
        [f"{100 * share:g} %", *(_cell(value, signed=signed) for value in values)]
        for share, *values in lines
        if any(value is not None for value in values)
    ]
    return _table(["of the baseline's FLOPs", *columns], table)


def _cell(value: Estimate | None, *, signed: bool = False) -> str:
    if value is None:
        return NOTHING
    mean = f"{value.mean:+.1f}" if signed else f"{value.mean:.1f}"
    return f"{mean} ± {value.spread:.1f}" if value.num_runs > 1 else mean


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
