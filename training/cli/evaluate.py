"""`sdcom evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sdcom.checkpoint import write_info
from sdcom.errors import InvalidParameterError
from sdcom.recognition import GIGA, Budget
from sdcom.recognizer import Recognizer, bundled_model_dir
from training.cli.console import progress
from training.data import Clip, DataError, read_split
from training.evaluation import (
    UNLIMITED,
    Answer,
    Outcome,
    Score,
    full_width,
    offline,
    over_http,
    score,
    static_alone,
)

UNLIMITED_ROW = "SDCOM, unlimited budget"
DEFAULT_ROW = "SDCOM, default budget"


def evaluate(
    model: Annotated[
        Path | None, typer.Argument(help="Model directory; the bundled model if not given.")
    ] = None,
    *,
    data: Annotated[Path, typer.Option(help="Dataset folder with splits.tsv.")],
    split: Annotated[str, typer.Option(help="Column of splits.tsv; its test side is evaluated.")] = "split1",
    server: Annotated[
        str | None, typer.Option(help="URL of a server of the same model, to hold against clip by clip.")
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(help="Share of the baseline to evaluate at besides; may repeat."),
    ] = None,
    record: Annotated[bool, typer.Option(help="Write the scores into the model's record.")] = False,
) -> None:
    """Print top-1 and GFLOPs of a model, of its full-width baseline, and of its static network alone."""
    directory = model or bundled_model_dir()
    with Recognizer.load(directory) as recognizer:
        info = recognizer.model.info
        clips = read_split(data, split, info.config.labels).test
        if not clips:
            raise DataError(f"{data} has no test clips in {split}: there is nothing to evaluate on")
        outcomes = {
            name: _outcomes(name, answer, clips)
            for name, answer in _answers(recognizer, budget or ()).items()
        }
        if server is not None:
            _compare_with_server(server, clips, outcomes)
    baseline_gflops = info.macs.baseline(info.config.clip.num_frames) / GIGA
    scores = [score(name, clips, rows, baseline_gflops) for name, rows in outcomes.items()]
    Console().print(_table(scores, f"{info.full_name}, {split}, {len(clips)} test clips"))
    if record:
        budgets = "".join(f" --budget {share:g}" for share in budget or ())
        command = f"sdcom evaluate --data {data.name} --split {split}{budgets}"
        evaluation = {split: {"command": command, "scores": [asdict(row) for row in scores]}}
        write_info(directory, info.model_copy(update={"evaluation": {**info.evaluation, **evaluation}}))


def _answers(recognizer: Recognizer, shares: Sequence[float]) -> dict[str, Answer]:
    return {
        UNLIMITED_ROW: offline(recognizer, UNLIMITED),
        DEFAULT_ROW: offline(recognizer, None),
        **{f"SDCOM, budget {share:g}": offline(recognizer, Budget(share=share)) for share in shares},
        "full-width baseline (TSN)": full_width(recognizer),
        "static network alone": static_alone(recognizer),
    }


def _compare_with_server(
    server: str, clips: Sequence[Clip], outcomes: Mapping[str, Sequence[Outcome]]
) -> None:
    """Hold a server's answers against the recognizer's own, clip by clip.

    Raises:
        InvalidParameterError: some differ; the server has another model, or something is wrong.
    """
    budgets: dict[str, Budget | None] = {UNLIMITED_ROW: UNLIMITED, DEFAULT_ROW: None}
    for name, budget in budgets.items():
        served = _outcomes(f"{name}, {server}", over_http(server, budget), clips)
        differing = [
            str(clip.path) for clip, a, b in zip(clips, outcomes[name], served, strict=True) if a != b
        ]
        if differing:
            raise InvalidParameterError(
                f"{server} differs on {len(differing)} of {len(clips)} clips: {', '.join(differing[:3])}"
            )
        progress.print(f"{name}: {server} gave the same class and GFLOPs for all {len(clips)} clips")


def _outcomes(name: str, answer: Answer, clips: Sequence[Clip]) -> list[Outcome]:
    return [answer(clip) for clip in track(clips, name, console=progress, transient=True)]


def _table(scores: Sequence[Score], title: str) -> Table:
    table = Table("", "top-1 %", "GFLOPs a video", "of the baseline %", title=title, box=None)
    for row in scores:
        table.add_row(row.name, f"{100 * row.top1:.1f}", f"{row.gflops:.3f}", f"{100 * row.share:.1f}")
    return table
