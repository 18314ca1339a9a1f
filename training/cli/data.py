"""`sdcom data`: are the clips fit to train on, and packing them for quick reading."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sdcom.processors import num_processors
from training.cli.console import progress, tracked
from training.data import Split
from training.data.checking import MAX_UNUSABLE_SHARE, usable_split
from training.data.formats import Dataset, Format, read_dataset
from training.data.packing import Packing
from training.data.packing import pack as write_shards

app = typer.Typer(
    name="data",
    help="Check and pack datasets (docs/data.md).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ListArgument = Annotated[Path, typer.Argument(help="Dataset folder, or its list.", metavar="LIST")]
FormatOption = Annotated[Format, typer.Option(help="Of the list; auto tells it by the files.")]
SplitOption = Annotated[str, typer.Option(help="Column of splits.tsv.")]
VideosOption = Annotated[
    Path | None, typer.Option(help="Folder of the videos; that of the list if not given.")
]
TestOption = Annotated[Path | None, typer.Option(help="List of the test side, if it is a file of its own.")]
ClassesOption = Annotated[Path | None, typer.Option(help="List of the classes, if it is a file of its own.")]
ShareOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of missing and broken clips that is tolerated.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Clips at once; as many as processors if not given.")
]


def dataset_words(dataset: Dataset, shown: Callable[[Path], str] = str) -> list[str]:
    """Return the options that name a dataset on the command line.

    Args:
        dataset: to name.
        shown: how files and folders are written.
    """
    files = {"videos": dataset.videos, "test": dataset.test, "classes": dataset.classes}
    options = {
        "data": shown(dataset.path),
        **({} if dataset.format is Format.AUTO else {"format": dataset.format}),
        **({"split": dataset.split} if dataset.has_columns else {}),
        **{name: shown(path) for name, path in files.items() if path is not None},
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


@app.command()
def check(
    path: ListArgument,
    *,
    format: FormatOption = Format.AUTO,  # noqa: A002  # the option's name
    split: SplitOption = "split1",
    videos: VideosOption = None,
    test: TestOption = None,
    classes: ClassesOption = None,
    max_unusable: ShareOption = MAX_UNUSABLE_SHARE,
    report: Annotated[Path, typer.Option(help="TSV to name unusable clips in.")] = Path("unusable.tsv"),
    threads: ThreadsOption = None,
) -> None:
    """Read a dataset's lists and a frame of every clip, and count what is there, as training does first."""
    listed = read_dataset(Dataset(path, format, split, videos, test, classes))
    usable = usable_split(
        listed,
        report,
        num_threads=threads or num_processors(),
        max_share=max_unusable,
        track=tracked("checking"),
    )
    Console().print(_counts(listed, usable))
    num_unusable = _num_clips(listed) - _num_clips(usable)
    if num_unusable:
        progress.print(f"{num_unusable} clips cannot be used; {report} names them")


@app.command()
def pack(
    path: ListArgument,
    output: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    *,
    format: FormatOption = Format.AUTO,  # noqa: A002  # the option's name
    split: SplitOption = "split1",
    videos: VideosOption = None,
    test: TestOption = None,
    classes: ClassesOption = None,
    short_side: Annotated[int, typer.Option(min=16, help="Pixels of the frames' short side.")] = 256,
    max_frames: Annotated[
        int, typer.Option(min=0, help="Frames of each clip, evenly spaced; 0 keeps all.")
    ] = 128,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEG files.")] = 90,
    clips_per_shard: Annotated[int, typer.Option(min=1, help="Clips in a tar.")] = 128,
    max_unusable: ShareOption = MAX_UNUSABLE_SHARE,
    threads: ThreadsOption = None,
) -> None:
    """Write a dataset's clips as tar shards of JPEG frames, quick to read; run again after a kill."""
    listed = read_dataset(Dataset(path, format, split, videos, test, classes))
    packing = Packing(
        short_side=short_side, max_frames=max_frames, quality=quality, clips_per_shard=clips_per_shard
    )
    packed = write_shards(
        listed, output, packing, num_threads=threads or num_processors(), track=tracked("packing")
    )
    report = output / "unreadable.tsv"
    packed.write_report(report)
    packed.refuse_above(max_unusable, report)
    progress.print(
        f"{len(packed.usable)} clips are in {output}, {len(packed.problems)} could not be read ({report}); "
        f"try: sdcom data check {output}"
    )


def _num_clips(split: Split) -> int:
    return len(split.train) + len(split.test)


def _counts(listed: Split, usable: Split) -> Table:
    """Return a row for each class: its usable clips on either side; and one for all."""
    table = Table("class", "train", "test", box=None)
    train, test = (Counter(clip.label for clip in side) for side in (usable.train, usable.test))
    for index, name in enumerate(usable.labels):
        table.add_row(name, str(train[index]), str(test[index]))
    num_listed = _num_clips(listed)
    table.add_row(f"{num_listed} clips listed, usable", str(len(usable.train)), str(len(usable.test)))
    return table
