"""One lane's queue: what waits there, by video, first due first; and the batches taken from it."""

from bisect import bisect_left, insort
from collections.abc import Container
from dataclasses import dataclass
from typing import NamedTuple

from sdcom.engine.costs import Lane


class Rank(NamedTuple):
    """A video's place in every queue: those that can meet their deadline first, then the first due."""

    is_late: bool
    due_s: float
    ticket: int


class Share(NamedTuple):
    """One video's part of a batch: its ticket, and the positions of its frames; (0,) is a whole video."""

    ticket: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Work to run at once: frames, or whole videos, of one lane, padded to `size`."""

    lane: Lane
    shares: tuple[Share, ...]
    size: int

    @property
    def num_units(self) -> int:
        """Frames, or videos where the lane takes whole ones, without padding."""
        return sum(len(share.positions) for share in self.shares)

    @property
    def num_padding(self) -> int:
        """Units computed for nothing."""
        return self.size - self.num_units


class LaneQueue:
    """The videos with work waiting in one lane, in the order of their ranks.

    Attributes:
        num_units: frames, or whole videos, that wait.
    """

    def __init__(self) -> None:
        self._ranks: list[Rank] = []
        self._positions: dict[int, tuple[int, ...]] = {}
        self.num_units = 0

    def __len__(self) -> int:
        return len(self._ranks)

    @property
    def first(self) -> Rank:
        """The rank of the video whose turn it is."""
        return self._ranks[0]

    def num_at_once(self, apart: Container[int]) -> int:
        """Return how many units could run at once if there were no limit.

        Args:
            apart: tickets of videos that share no batch.
        """
        ticket = self.first.ticket
        return len(self._positions[ticket]) if ticket in apart else self.num_units

    def add(self, rank: Rank, positions: tuple[int, ...]) -> None:
        """Put work of a video, by ascending positions, into its place; it may have some here already."""
        waiting = self._positions.get(rank.ticket)
        self.num_units += len(positions)
        if waiting is None:
            insort(self._ranks, rank)
            self._positions[rank.ticket] = positions
        else:
            self._positions[rank.ticket] = tuple(sorted(waiting + positions))

    def remove(self, rank: Rank) -> tuple[int, ...]:
        """Take all work of a video out; return its positions, none if it has nothing here."""
        positions = self._positions.pop(rank.ticket, ())
        if positions:
            del self._ranks[bisect_left(self._ranks, rank)]
            self.num_units -= len(positions)
        return positions

    def take(self, num_units: int, apart: Container[int]) -> tuple[Share, ...]:
        """Take up to so many units out, first due first; a video of `apart` comes alone."""
        shares: list[Share] = []
        num_left, num_emptied = num_units, 0
        for _, _, ticket in self._ranks:
            is_apart = ticket in apart
            if num_left == 0 or (is_apart and shares):
                break
            waiting = self._positions[ticket]
            if len(waiting) <= num_left:
                del self._positions[ticket]
                num_emptied += 1
            else:
                self._positions[ticket] = waiting[num_left:]
                waiting = waiting[:num_left]
            shares.append(Share(ticket, waiting))
            num_left -= len(waiting)
            if is_apart:
                break
        del self._ranks[:num_emptied]
        self.num_units -= num_units - num_left
        return tuple(shares)
