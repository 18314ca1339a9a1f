"""How far long work is: who does it passes what it goes through to one of these, who shows it makes them."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

ItemT = TypeVar("ItemT")


class Track(Protocol):
    """Passes an iterable on, and shows how far it is."""

    def __call__(self, items: Iterable[ItemT], total: int, /) -> Iterable[ItemT]:
        """Return the items, of which there are `total`."""


Tracked = Callable[[str], Track]
"""Returns what shows how far the work of that description is."""


def not_shown(items: Iterable[ItemT], _total: int) -> Iterable[ItemT]:
    """Show nothing."""
    return items


def untracked(_description: str) -> Track:
    """Return what shows nothing."""
    return not_shown
