"""`sdcom bench plots`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sdcom.errors import SettingsError


def plots(
    records: Annotated[Path, typer.Argument(help="Folder of what the other commands saved with --output.")],
    *,
    output: Annotated[Path, typer.Option(help="Folder for the figures.")],
) -> None:
    """Draw what was saved as {parts,engine}[-paper].json, serve[-governor].json, decode.json, peers*.json.

    A figure whose records are not all there is left out.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError("plots need matplotlib: in a checkout, pip install '.[train]'")
    from service.bench.plots.figures import draw_all  # noqa: PLC0415 - optional, and heavy

    for path in draw_all(records, output):
        typer.echo(path)
