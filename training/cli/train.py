"""`sdcom train`."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from sdcom.errors import InvalidParameterError
from training.cli.console import progress, tracked
from training.cli.data import (
    ClassesOption,
    FormatOption,
    ShareOption,
    SplitOption,
    TestOption,
    VideosOption,
)
from training.cli.models import chosen_device
from training.cli.recipes import RECIPES, FieldsOption, RecipeArgument, RecipeName
from training.data import Clip, read_split
from training.data.checking import MAX_UNUSABLE_SHARE, usable_split
from training.data.formats import Dataset, Format, read_dataset
from training.distributed import from_main, is_main, process_group
from training.overrides import override
from training.pretrain import FOLDED_SUFFIX
from training.recipes import Recipe, for_weights
from training.records import ProgressBar
from training.rendered import generate
from training.run import RunOptions, Start
from training.run import train as run
from training.run_directory import recipe_document

RENDERED_SEED = 7


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
    labels_learnt = several_labels or SEVERAL_LABELS.get(recipe, SeveralLabelsName.DRAW)
    rendered_dir = output.with_name(output.name + "-rendered")
    with (
        process_group(chosen_device(device)) as own_device,
        ProgressBar(progress, shown=is_main()) as bar,
    ):
        clips = from_main(
            lambda: _training_clips(
                dataset, rendered, rendered_dir, num_threads=threads, max_unusable=max_unusable
            )
        )
        built = _built(recipe, clips.labels, seed, start, settings or ())
        _check_start(built, start, from_supernet)
        if is_main():
            progress.print_json(data=recipe_document(built))
        info = run(
            built,
            clips.real,
            output,
            RunOptions(
                version=version,
                device=own_device,
                start=start if start.files else None,
                from_supernet=from_supernet,
                resume=resume,
                several_labels=labels_learnt.value,
                stream=stream,
                num_threads=threads,
                tensorboard=tensorboard,
            ),
            [bar],
            synthetic=clips.rendered,
        )
    if info is not None:
        progress.print(f"{info.full_name} is in {output}; try: sdcom info {output}")


def _built(
    name: RecipeName, labels: Sequence[str], seed: int, start: Start, settings: Sequence[str]
) -> Recipe:
    """Return the recipe as the weights need it and the command line sets it.

    Raises:
        InvalidParameterError: the networks' weights expect pixels of two kinds, or a setting is wrong.
    """
    recipe = RECIPES[name](labels, seed=seed)
    of_tensorflow = {file.suffix == FOLDED_SUFFIX for file in start.files}
    if len(of_tensorflow) > 1:
        raise InvalidParameterError(
            f"{' and '.join(map(str, start.files))} expect pixels normalised in two ways: "
            f"{FOLDED_SUFFIX} files are TensorFlow's, others torchvision's"
        )
    if of_tensorflow:
        recipe = for_weights(recipe, of_tensorflow=of_tensorflow.pop())
    return override(recipe, settings)


def _check_start(recipe: Recipe, start: Start, from_supernet: Path | None) -> None:
    """Raise if the recipe keeps what a network starts with, and it would start from random weights.

    Raises:
        InvalidParameterError: so it is; the message names the option.
    """
    keeps_static = recipe.static is not None or recipe.policy.static_multiplier == 0
    keeps_dynamic = from_supernet is None and recipe.supernet.frozen_statistics
    for keeps, weights, name in (
        (keeps_static, start.static_weights, "static"),
        (keeps_dynamic, start.dynamic_weights, "dynamic"),
    ):
        if keeps and weights is None:
            raise InvalidParameterError(
                f"{recipe.name} holds on to what its {name} network starts with, and random weights are "
                f"nothing to hold on to: give ImageNet weights with --weights or --{name}-weights"
            )


class _TrainingClips(NamedTuple):
    """Class names, the dataset's training side, and rendered clips, which are never held out."""

    labels: tuple[str, ...]
    real: tuple[Clip, ...]
    rendered: tuple[Clip, ...]


def _training_clips(
    dataset: Dataset | None, rendered: int, rendered_dir: Path, *, num_threads: int, max_unusable: float
) -> _TrainingClips:
    """Return what to train on: a dataset's clips that can be read, rendered ones, made here, or both.

    Raises:
        InvalidParameterError: there would be nothing.
        DataError: a list is malformed, or too much of what it names cannot be used.
    """
    real = None
    if dataset is not None:
        real = usable_split(
            read_dataset(dataset),
            rendered_dir.with_name(rendered_dir.name.removesuffix("-rendered") + "-unusable.tsv"),
            num_threads=num_threads,
            max_share=max_unusable,
            track=tracked("checking"),
        )
    if not rendered:
        if real is None:
            raise InvalidParameterError("nothing to train on: give --data, or --rendered above 0")
        return _TrainingClips(real.labels, real.train, ())
    generate(rendered_dir, clips_per_action=rendered, seed=RENDERED_SEED)
    drawn = read_split(rendered_dir, "split", None if real is None else real.labels)
    if real is None:
        return _TrainingClips(drawn.labels, drawn.train, ())
    return _TrainingClips(real.labels, real.train, drawn.train + drawn.test)  # real ones are the test
