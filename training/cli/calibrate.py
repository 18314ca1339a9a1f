"""`sdcom calibrate`."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sdcom.checkpoint import ModelInfo, best_exits, write_info
from training.calibration import calibrated
from training.cli.console import progress, warn
from training.cli.data import ClassesOption, FormatOption, SplitOption, TestOption, VideosOption
from training.cli.models import DeviceOption, examined_evidence, opened
from training.cli.outcome import doubts
from training.data import Clip, DataError, Split
from training.data.formats import Dataset, Format, read_dataset


class Side(StrEnum):
    """Which clips of a split to calibrate on."""

    HELD_OUT = "held-out"
    TEST = "test"


_SIDES = {Side.HELD_OUT: "held-out groups", Side.TEST: "test side"}


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model directory; its model.json is replaced.")],
    *,
    data: Annotated[Path, typer.Option(help="Dataset folder, or its list.")],
    format: FormatOption = Format.AUTO,  # noqa: A002  # the option's name
    split: SplitOption = "split1",
    videos: VideosOption = None,
    test: TestOption = None,
    classes: ClassesOption = None,
    on: Annotated[
        Side, typer.Option(help="The groups that training held out, or the test side: other data, say.")
    ] = Side.HELD_OUT,
    device: DeviceOption = None,
) -> None:
    """Measure on clips not trained on what each price and each early exit costs, and how often it is right.

    Writes both tables and the default budget that follows from them into the model directory. Give real
    clips: rendered ones say nothing of real video.
    """
    dataset = Dataset(data, format, split, videos, test, classes)
    with opened(model, device) as found:
        info = found.model.info
        clips = _chosen(read_dataset(dataset, info.config.labels), on, info, dataset.name)
        evidence = examined_evidence(found, clips)
        info = calibrated(found.model, evidence, on=f"{dataset.name}, {_SIDES[on]}: {len(clips)} clips")
    write_info(model, info)
    Console().print(_summary(info))
    warn(doubts(info))
    progress.print(f"calibrated on {info.provenance['calibrated_on']}; try: sdcom info {model}")


def _chosen(split: Split, side: Side, info: ModelInfo, described: str) -> Sequence[Clip]:
    if side is Side.TEST:
        clips = split.test
    else:
        held_out = set(info.provenance.get("held_out_groups", ()))
        clips = tuple(clip for clip in split.train if clip.group in held_out)
    if clips:
        return clips
    if side is Side.TEST:
        raise DataError(f"{described} has no test clips: there is nothing to calibrate on")
    raise DataError(
        f"{described} has no clip of the groups that {info.full_name} held out in training, as far as its "
        "record names any; use --on test to calibrate on other data's test side"
    )


def _summary(info: ModelInfo) -> Table:
    """Return the default budget and the exits that are worth having."""
    title = f"{info.full_name}: default budget {info.default_budget:g} of the baseline"
    table = Table(
        "lambda", "confidence", "frames", "GFLOPs", "of baseline %", "top-1 %", title=title, box=None
    )
    for point in best_exits(info.exits):
        table.add_row(
            f"{point.lam:g}",
            f"{point.confidence:g}",
            f"{point.num_frames:.1f}",
            f"{point.gmacs:.3f}",
            f"{100 * point.share:.1f}",
            f"{100 * point.top1:.1f}",
        )
    return table
