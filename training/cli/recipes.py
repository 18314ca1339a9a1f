"""The recipes by the names that the command line gives them."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sdcom.errors import InvalidParameterError, UnknownNameError
from training.overrides import assignments_of, override
from training.pretrain import FOLDED_SUFFIX, Start
from training.published import activitynet, fcvid, mini_kinetics, something_v2
from training.recipes import Recipe, for_weights
from training.small import jhmdb_mini, own_videos, tiny


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
ANY_LABELS = ("one", "other")


def recipe_name(text: str) -> RecipeName:
    """Return the recipe that a word names.

    Raises:
        BadParameter: there is none; the message has the nearest.
    """
    try:
        return RecipeName(text)
    except ValueError:
        raise typer.BadParameter(str(UnknownNameError("recipe", text, map(str, RecipeName)))) from None


def print_fields(recipe: RecipeName | None) -> None:
    """Print every field of a recipe as `--set` takes it, and end the command; do nothing without one."""
    if recipe is None:
        return
    for assignment in assignments_of(RECIPES[recipe](ANY_LABELS)):
        typer.echo(assignment)
    raise typer.Exit


RecipeArgument = Annotated[
    RecipeName,
    typer.Argument(help="What to train (docs/training.md).", metavar="RECIPE", parser=recipe_name),
]
FieldsOption = Annotated[
    RecipeName | None,
    typer.Option(
        "--fields",
        help="Print every field of a recipe, and its value, as --set takes it, and exit.",
        metavar="RECIPE",
        parser=recipe_name,
        callback=print_fields,
        is_eager=True,
        show_default=False,
    ),
]


def built_recipe(
    name: RecipeName,
    labels: Sequence[str],
    *,
    seed: int,
    start: Start,
    settings: Sequence[str],
    from_supernet: Path | None,
) -> Recipe:
    """Return the recipe as the weights need it and the command line sets it.

    Raises:
        InvalidParameterError: the networks' weights expect pixels of two kinds, a setting is wrong, or a
            network would hold on to random weights.
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
    recipe = override(recipe, settings)
    _check_start(recipe, start, from_supernet)
    return recipe


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
