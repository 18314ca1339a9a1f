"""`python -m training.rendered OUT --clips-per-action N --seed S`: render a set of clips."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.rendered.actions import ACTIONS
from training.rendered.dataset import generate


def _main(
    out_dir: Annotated[Path, typer.Argument(help="Folder to write into.")],
    clips_per_action: Annotated[int, typer.Option(min=1)] = 40,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    action: Annotated[list[str] | None, typer.Option(help="Only this action; may be repeated.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="All cores by default.")] = None,
) -> None:
    """Render clips of figures performing everyday actions, one folder a class, and splits.tsv."""
    rows = generate(
        out_dir,
        clips_per_action=clips_per_action,
        seed=seed,
        actions=action or tuple(ACTIONS),
        num_processes=processes,
    )
    Console().print(f"{len(rows)} clips of {len({row.label for row in rows})} actions in {out_dir}")


if __name__ == "__main__":
    typer.run(_main)
