"""Where the commands report: results on standard output, what happens meanwhile on standard error."""

from collections.abc import Iterable

from rich.console import Console
from rich.progress import track

from training.data.checking import Track

progress = Console(stderr=True)


def tracked(description: str) -> Track:
    """Return what shows a bar over so many items while they are gone through."""

    def shown(items: Iterable[None], total: int) -> Iterable[None]:
        return track(items, description, total=total, console=progress, transient=True)

    return shown
