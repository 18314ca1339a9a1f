"""`sdcom train`."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from sdcom.errors import InvalidParameterError
from training.cli.console import progress
from training.data import Clip, read_split
from training.recipes import Recipe, jhmdb_mini, tiny
from training.rendered import generate
from training.run import Start
from training.run import train as run

RENDERED_SEED = 7


class RecipeName(StrEnum):
    """The recipes of `training/recipes.py`, by their names on the command line."""

    TINY = "tiny"
    JHMDB_MINI = "jhmdb-mini"


RECIPES: dict[RecipeName, Callable[..., Recipe]] = {
    RecipeName.TINY: tiny,
    RecipeName.JHMDB_MINI: jhmdb_mini,
}


def train(
    recipe: Annotated[RecipeName, typer.Argument(help="What to train.")],
    *,
    output: Annotated[Path, typer.Option(help="Model directory to write.")],
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
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is if not given.")] = None,
) -> None:
    """Train both stages, calibrate, and write a model directory."""
    labels, clips = _training_clips(data, split, rendered, output.with_name(output.name + "-rendered"))
    info = run(
        RECIPES[recipe](labels, seed=seed),
        clips,
        output,
        version=version,
        start=None if weights is None else Start(static_weights=weights, dynamic_weights=weights),
        device=torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")),
        report=_print_losses,
    )
    progress.print(f"{info.full_name} is in {output}; try: sdcom info {output}")


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


def _print_losses(stage: str, epoch: int, losses: dict[str, float]) -> None:
    terms = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
    progress.print(f"{stage}, epoch {epoch + 1}: {terms}")
