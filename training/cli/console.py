"""Where the commands report: results on standard output, what happens meanwhile on standard error."""

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.progress import track

from training.data.tracking import ItemT, Track

progress = Console(stderr=True)


def tracked(description: str) -> Track:
    """Return what shows a bar over so many items while they are gone through."""

    def shown(items: Iterable[ItemT], total: int) -> Iterable[ItemT]:
        return track(items, description, total=total, console=progress, transient=True)

    return shown


def say(*lines: str) -> None:
    """Print lines as they are, however long."""
    for line in lines:
        progress.print(line, markup=False, highlight=False, soft_wrap=True)


def warn(text: str | None) -> None:
    """Print a warning, if there is one to print."""
    if text is not None:
        progress.print(f"[yellow]warning:[/yellow] {escape(text)}", highlight=False, soft_wrap=True)
