"""`sdcom train`."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from sdcom.errors import InvalidParameterError
from training.cli.console import progress
from training.data import Clip, read_split
from training.distributed import is_main, process_group
from training.overrides import override
from training.pretrain import FOLDED_SUFFIX
from training.published import activitynet, fcvid, mini_kinetics, something_v2
from training.recipes import Recipe, for_weights, jhmdb_mini, own_videos, tiny
from training.records import ProgressBar
from training.rendered import generate
from training.run import RunOptions, Start
from training.run import train as run
from training.run_directory import recipe_document

RENDERED_SEED = 7


class RecipeName(StrEnum):
    """The recipes of `training/recipes.py` and `training/published.py`, as the command line names them."""

    TINY = "tiny"
    JHMDB_MINI = "jhmdb-mini"
    OWN_VIDEOS = "own-videos"
    ACTIVITYNET = "activitynet"
    FCVID = "fcvid"
    MINI_KINETICS = "mini-kinetics"
    SOMETHING_V2 = "something-v2"


RECIPES: dict[RecipeName, Callable[..., Recipe]] = {
    RecipeName.TINY: tiny,
    RecipeName.JHMDB_MINI: jhmdb_mini,
    RecipeName.OWN_VIDEOS: own_videos,
    RecipeName.ACTIVITYNET: activitynet,
    RecipeName.FCVID: fcvid,
    RecipeName.MINI_KINETICS: mini_kinetics,
    RecipeName.SOMETHING_V2: something_v2,
}


def train(
    recipe: Annotated[RecipeName, typer.Argument(help="What to train.")],
    *,
    output: Annotated[Path, typer.Option(help="Directory of the run, and of the model that comes out.")],
    data: Annotated[
        Path | None, typer.Option(help="Dataset folder with splits.tsv; none trains on rendered clips alone.")
    ] = None,
    split: Annotated[str, typer.Option(help="Column of splits.tsv.")] = "split1",
    weights: Annotated[
        Path | None, typer.Option(help="ImageNet weights that both networks start from.")
    ] = None,
    rendered: Annotated[
        int, typer.Option(min=0, help="Rendered clips of each action to train on besides.")
    ] = 14,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "0",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A field of the recipe, by its dotted name (policy.optimization.epochs=5); may repeat.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
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
    """Train both stages, calibrate, and write a model directory."""
    labels, clips = _training_clips(data, split, rendered, output.with_name(output.name + "-rendered"))
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with process_group(chosen) as own_device, ProgressBar(progress, shown=is_main()) as bar:
        built = _built(recipe, labels, seed, weights, settings or ())
        if is_main():
            progress.print_json(data=recipe_document(built))
        info = run(
            built,
            clips,
            output,
            RunOptions(
                version=version,
                device=own_device,
                start=None if weights is None else Start(static_weights=weights, dynamic_weights=weights),
                from_supernet=from_supernet,
                resume=resume,
                stream=stream,
                num_threads=threads,
                tensorboard=tensorboard,
            ),
            [bar],
        )
    if info is not None:
        progress.print(f"{info.full_name} is in {output}; try: sdcom info {output}")


def _built(
    name: RecipeName, labels: Sequence[str], seed: int, weights: Path | None, settings: Sequence[str]
) -> Recipe:
    """Return the recipe as the weights need it and the command line sets it."""
    recipe = RECIPES[name](labels, seed=seed)
    if weights is not None:
        recipe = for_weights(recipe, of_tensorflow=weights.suffix == FOLDED_SUFFIX)
    return override(recipe, settings)


def _training_clips(
    data: Path | None, split: str, rendered: int, rendered_dir: Path
) -> tuple[tuple[str, ...], tuple[Clip, ...]]:
    """Return labels and training clips: the dataset's, if one is given, and rendered ones, made here."""
    real = read_split(data, split) if data is not None else None
    if not rendered:
        if real is None:
            raise InvalidParameterError("nothing to train on: give --data, or --rendered above 0")
        return real.labels, real.train
    generate(rendered_dir, clips_per_action=rendered, seed=RENDERED_SEED)
    drawn = read_split(rendered_dir, "split", real.labels if real is not None else None)
    return drawn.labels, (*(real.train if real is not None else ()), *drawn.train)
