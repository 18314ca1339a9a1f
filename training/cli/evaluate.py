"""`sdcom evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sdcom.checkpoint import ModelInfo, write_info
from sdcom.errors import InvalidParameterError
from sdcom.recognition import Budget
from sdcom.recognizer import Recognizer, bundled_model_dir
from sdcom.sampling import Sampling
from training.cli.console import progress
from training.cli.data import (
    ClassesOption,
    FormatOption,
    SplitOption,
    TestOption,
    VideosOption,
    dataset_words,
)
from training.cli.models import DeviceOption, examined_evidence, opened, stored_as_frames
from training.data import Clip, DataError
from training.data.formats import Dataset, Format, read_dataset
from training.evaluation.case import Case
from training.evaluation.examine import examine, make_record
from training.evaluation.policies import SHARES
from training.evaluation.record import Method, Record, Row, write_record
from training.evaluation.serving import UNLIMITED, Answer, Outcome, offline, over_http
from training.evaluation.summary import at_share
from training.evaluation.timing import measure

CONTROLS = (Method.RANDOM, Method.ONE_WIDTH, Method.ONE_WIDTH_TSN, Method.FEWER, Method.FEWER_TSN)
PARTS_REPEATS = 5

SamplingOption = Annotated[
    Sampling, typer.Option(help="Which frame of each stretch of a video file is looked at.")
]


def evaluate(
    model: Annotated[
        Path | None, typer.Argument(help="Model directory; the bundled model if not given.")
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="Dataset folder, or its list; the test side is evaluated.")],
    format: FormatOption = Format.AUTO,  # noqa: A002  # the option's name
    split: SplitOption = "split1",
    videos: VideosOption = None,
    test: TestOption = None,
    classes: ClassesOption = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(help="Share of the baseline to print besides; may repeat.", min=0, max=1),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File for the whole record, which `sdcom results` sums up.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What runs of the same kind share in the results; the model's name.")
    ] = None,
    sampling: SamplingOption = "centers",
    timed: Annotated[int, typer.Option(min=0, help="Clips to time whole, from file to answer.")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one network call, when timed.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Draws of each random control.")] = 5,
    server: Annotated[
        str | None, typer.Option(help="URL of a server of the same model, to hold against clip by clip.")
    ] = None,
    record: Annotated[bool, typer.Option(help="Write the figures printed into the model's record.")] = False,
    device: DeviceOption = None,
) -> None:
    """Print a model's accuracy and GFLOPs beside those of its baselines and of controls at equal FLOPs."""
    directory = model or bundled_model_dir()
    shares = tuple(budget or ())
    dataset = Dataset(data, format, split, videos, test, classes)
    with opened(directory, device, sampling) as found:
        info = found.model.info
        clips = _test_clips(dataset, info.config.labels)
        case = Case(found.model, examined_evidence(found, clips))
    rows = examine(case, shares=(*SHARES, *shares), num_repeats=repeats)
    with Recognizer.load(directory, num_threads=threads, sampling=sampling) as recognizer:
        timing = measure(
            recognizer,
            _sample(clips, timed),
            {Method.UNLIMITED: UNLIMITED, Method.DEFAULT: None},
            num_threads=threads,
            num_repeats=PARTS_REPEATS,
        )
        if server is not None:
            _compare_with_server(server, recognizer, clips)
    made = make_record(
        case,
        rows,
        timing,
        name=name or info.name,
        data=data.name,
        split=split if dataset.has_columns else "test",
        command=_command(directory, dataset, shares, sampling),
    )
    _print(made, info, shares)
    if output is not None:
        write_record(output, made)
        progress.print(f"the record is in {output}; try: sdcom results {output} --output results.md")
    if record:
        _write_scores(directory, info, made, shares)


def _command(directory: Path, dataset: Dataset, shares: Sequence[float], sampling: Sampling) -> str:
    """Return the command that gives the same figures, by the names of files and folders."""
    words = dataset_words(dataset, lambda path: path.name)
    words += [] if sampling == "centers" else [f"--sampling {sampling}"]
    return " ".join(["sdcom evaluate", directory.name, *words, *(f"--budget {share:g}" for share in shares)])


def _test_clips(dataset: Dataset, labels: Sequence[str]) -> Sequence[Clip]:
    clips = read_dataset(dataset, labels).test
    if not clips:
        where = f" in {dataset.split}" if dataset.has_columns else ""
        raise DataError(f"{dataset.path} has no test clips{where}: there is nothing to evaluate on")
    return clips


def _sample(clips: Sequence[Clip], count: int) -> Sequence[Clip]:
    """Return so many video files, evenly spread."""
    files = [clip for clip in clips if not stored_as_frames(clip)]
    return files[:: max(1, len(files) // count)][:count] if count else []


def _compare_with_server(server: str, recognizer: Recognizer, clips: Sequence[Clip]) -> None:
    """Hold a server's answers against the recognizer's own, clip by clip.

    Raises:
        InvalidParameterError: some differ; the server has another model, or something is wrong.
    """
    budgets: Mapping[Method, Budget | None] = {Method.UNLIMITED: UNLIMITED, Method.DEFAULT: None}
    for name, budget in budgets.items():
        here = _outcomes(f"{name}, here", offline(recognizer, budget), clips)
        there = _outcomes(f"{name}, {server}", over_http(server, budget), clips)
        differing = [str(clip.path) for clip, a, b in zip(clips, here, there, strict=True) if a != b]
        if differing:
            raise InvalidParameterError(
                f"{server} differs on {len(differing)} of {len(clips)} clips: {', '.join(differing[:3])}"
            )
        progress.print(f"{name}: {server} gave the same class and GFLOPs for all {len(clips)} clips")


def _outcomes(name: str, answer: Answer, clips: Sequence[Clip]) -> list[Outcome]:
    return [answer(clip) for clip in track(clips, name, console=progress, transient=True)]


def _headline(record: Record, shares: Sequence[float]) -> dict[str, Row]:
    """Return the rows that are printed, by name: the policy, the budgets asked for, and the baselines."""
    budgets = {row.setting: row for row in record.of(Method.BUDGET)}
    single = (Method.BASELINE, Method.BASELINE_FUSION, Method.STATIC)
    return {
        **{method: record.of(method)[0] for method in (Method.UNLIMITED, Method.DEFAULT)},
        **{f"SDCOM, budget {share:g}": budgets[share] for share in shares if share in budgets},
        **{method: record.of(method)[0] for method in single},
    }


def _print(record: Record, info: ModelInfo, shares: Sequence[float]) -> None:
    title = f"{info.full_name}, {record.data} {record.split}, {record.num_clips} test clips"
    columns = ("top-1 %\n(95 %)", "top-5 %", "mAP %", "GFLOPs", "of\nbaseline %", "ms")
    table = Table("", *columns, title=title, box=None, pad_edge=False)
    headline = _headline(record, shares)
    for name, row in headline.items():
        scores = (row.accuracy.top5, row.accuracy.map_all)
        interval = "-".join(f"{100 * end:.0f}" for end in row.top1_interval or ())
        share = row.total_gflops / record.baseline_gflops
        table.add_row(
            name,
            f"{100 * row.accuracy.top1:.1f} ({interval})",
            *(f"{100 * score:.1f}" for score in scores),
            f"{row.total_gflops:.3f}",
            f"{100 * share:.1f}",
            f"{row.ms(record.timing.part_ms):.1f}",
        )
    console = Console()
    console.print(table, _control_table(record, list(headline.values())))
    refused = [f"{share:g}" for share in shares if share not in {r.setting for r in record.of(Method.BUDGET)}]
    if refused:
        floor = info.macs.floor(record.num_frames) / info.macs.baseline(record.num_frames)
        console.print(f"Below the floor of {floor:.3f}, and refused: {', '.join(refused)}.")


def _control_table(record: Record, rows: Sequence[Row]) -> Table:
    """Return the controls' top-1 at the FLOPs of each of the composition's rows."""
    composed = [row for row in rows if row.method in {Method.UNLIMITED, Method.DEFAULT, Method.BUDGET}]
    table = Table("top-1 % at equal FLOPs", title="\nControls", box=None, title_justify="left")
    shares = [row.total_gflops / record.baseline_gflops for row in composed]
    for share in shares:
        table.add_column(f"{100 * share:.1f} %")
    table.add_row("SDCOM", *(f"{100 * row.accuracy.top1:.1f}" for row in composed))
    for method in CONTROLS:
        found = (at_share(record, method, lambda row: row.accuracy.top1, share) for share in shares)
        table.add_row(method, *("-" if top1 is None else f"{100 * top1:.1f}" for top1 in found))
    return table


def _write_scores(directory: Path, info: ModelInfo, record: Record, shares: Sequence[float]) -> None:
    scores = [
        {
            "name": name,
            "top1": row.accuracy.top1,
            "top1_interval": row.top1_interval,
            **row.accuracy.model_dump(),
            "gflops": row.total_gflops,
            "share": row.total_gflops / record.baseline_gflops,
        }
        for name, row in _headline(record, shares).items()
    ]
    evaluation = {record.split: {"command": record.command, "scores": scores}}
    described = info.model_copy(update={"evaluation": {**info.evaluation, **evaluation}})
    write_info(directory, described)
