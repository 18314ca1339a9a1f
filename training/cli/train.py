"""`sdcom train`."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sdcom.checkpoint import ModelInfo
from training.bar import ProgressBar
from training.cli.clips import training_clips
from training.cli.console import progress, say, warn
from training.cli.data import (
    ClassesOption,
    FormatOption,
    ShareOption,
    SplitOption,
    TestOption,
    VideosOption,
    dataset_words,
)
from training.cli.models import chosen_device
from training.cli.outcome import doubts, figures, next_commands, outcome, summary
from training.cli.recipes import ANY_LABELS, FieldsOption, RecipeArgument, RecipeName, built_recipe
from training.data.checking import MAX_UNUSABLE_SHARE
from training.data.formats import Dataset, Format
from training.distributed import from_main, is_main, process_group
from training.pretrain import Start
from training.run import RunOptions, prepare
from training.run_directory import check_taken

LOG_INTERVAL = {"cpu": 1, "cuda": 10}
"""Steps between looks at the figures: on a processor they cost nothing, and steps are slow."""


class SeveralLabelsName(StrEnum):
    """What a clip of several labels stands for (`training.batches.SeveralLabels`)."""

    DRAW = "draw"
    SHARE = "share"


SEVERAL_LABELS = {RecipeName.FCVID: SeveralLabelsName.SHARE}
"""What the literature's targets are, where they are not one label drawn each epoch."""


def train(
    recipe: RecipeArgument,
    *,
    output: Annotated[Path, typer.Option(help="Directory of the run, and of the model that comes out.")],
    data: Annotated[
        Path | None, typer.Option(help="Dataset folder, or its list; none trains on rendered clips alone.")
    ] = None,
    format: FormatOption = Format.AUTO,  # noqa: A002  # the option's name
    split: SplitOption = "split1",
    videos: VideosOption = None,
    test: TestOption = None,
    classes: ClassesOption = None,
    max_unusable: ShareOption = MAX_UNUSABLE_SHARE,
    several_labels: Annotated[
        SeveralLabelsName | None,
        typer.Option(
            help="Learn one of a clip's labels, drawn each epoch, or all in equal shares; "
            "share for fcvid, draw for others, if not given."
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="ImageNet weights that both networks start from.")
    ] = None,
    static_weights: Annotated[
        Path | None, typer.Option(help="Those of the static network, where the two are not alike.")
    ] = None,
    dynamic_weights: Annotated[Path | None, typer.Option(help="Those of the dynamic network.")] = None,
    rendered: Annotated[
        int, typer.Option(min=0, help="Rendered clips of each of 21 actions to train on besides.")
    ] = 0,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "0",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A field of the recipe, by its dotted name (policy.optimization.epochs=5); may repeat.",
        ),
    ] = None,
    fields: FieldsOption = None,  # noqa: ARG001  # its callback has done all when this is reached
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that OUTPUT holds.")] = False,
    from_supernet: Annotated[
        Path | None, typer.Option(help="Directory of a run whose first stage to take, and train the second.")
    ] = None,
    refit: Annotated[
        Path | None,
        typer.Option(
            help="Directory of a finished run of this recipe and data: train its policy again on all clips, "
            "those that it held out too; its networks and its calibration are taken.",
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Read frames when they are wanted; clips do not fit in memory.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads that read clips.")] = 2,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write OUTPUT/tensorboard besides OUTPUT/steps.jsonl.")
    ] = False,
) -> None:
    """Train every stage, calibrate, and write a model directory."""
    dataset = None if data is None else Dataset(data, format, split, videos, test, classes)
    start = Start(static_weights or weights, dynamic_weights or weights)
    built = partial(
        built_recipe,
        recipe,
        seed=seed,
        start=start,
        settings=settings or (),
        from_supernet=from_supernet or refit,
    )
    built(ANY_LABELS)  # what is wrong whatever the clips is said before they are looked at
    check_taken(output, resume=resume)
    with (
        process_group(chosen_device(device)) as own_device,
        ProgressBar(progress, shown=is_main()) as bar,
    ):
        options = RunOptions(
            version=version,
            device=own_device,
            start=start if start.files else None,
            from_supernet=from_supernet,
            refit=refit,
            resume=resume,
            several_labels=(several_labels or SEVERAL_LABELS.get(recipe, SeveralLabelsName.DRAW)).value,
            stream=stream,
            num_threads=threads,
            tensorboard=tensorboard,
            log_interval=LOG_INTERVAL[own_device.type],
        )
        clips = from_main(
            lambda: training_clips(
                dataset,
                rendered,
                output,
                num_threads=threads,
                max_unusable=max_unusable,
                tracked=bar.tracked,
            )
        )
        run = prepare(
            built(clips.labels),
            clips.real,
            output,
            options,
            [bar],
            synthetic=clips.rendered,
            tracked=bar.tracked,
        )
        if is_main():
            data_name = "rendered clips" if dataset is None else dataset.name
            say(*summary(run, data_name, len(clips.rendered)))
        info = run.train()
    if info is not None:
        _conclude(info, output, clips.to_evaluate)


def _conclude(info: ModelInfo, output: Path, to_evaluate: Dataset | None) -> None:
    """Print how good the model is, as far as that is known, and what to do with it."""
    say(outcome(info, output))
    progress.print(figures(info))
    warn(doubts(info))
    words = None if to_evaluate is None else dataset_words(to_evaluate)
    say("go on with:", *(f"    {command}" for command in next_commands(output, words)))
