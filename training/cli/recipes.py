"""The recipes by the names that the command line gives them."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from sdcom.errors import UnknownNameError
from training.overrides import assignments_of
from training.published import activitynet, fcvid, mini_kinetics, something_v2
from training.recipes import Recipe, jhmdb_mini, own_videos, tiny


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
_ANY_LABELS = ("one", "other")


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
    for assignment in assignments_of(RECIPES[recipe](_ANY_LABELS)):
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
