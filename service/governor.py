"""The governor: while requests wait, the gate's price rises: the service gets cheaper before it refuses.

Pure but for the clock that is handed in; used from one event loop.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol


class Priced(Protocol):
    """A calibrated point: what a price costs on average."""

    @property
    def lam(self) -> float:
        """The price."""

    @property
    def share(self) -> float:
        """Mean cost of a video over the baseline's."""


class Governor:
    """A floor under the gate's price, between none and the calibration table's largest price.

    A level between 0 and 1 follows the wait for a turn: it rises while the wait is over the target, at twice
    the target from nothing to full within `HORIZON_S`, and falls as fast while nobody waits. A gap between
    observations counts as half a second at most when it rises: one long wait after a quiet hour is new.

    The level decides the mean cost, from the trained policy's at 0 to the cheapest at 1, and the calibration
    table the price that has it.

    Args:
        points: the model's calibration table; without one there is no floor.
        target_wait_s: the wait that is accepted at full accuracy.
        clock: monotonic seconds.
    """

    HORIZON_S = 5.0
    _MOST_OVER = 4.0  # a longer queue does not make it jump
    _LONGEST_GAP_S = 0.5

    def __init__(
        self,
        points: Sequence[Priced],
        *,
        target_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._points = sorted(points, key=lambda point: point.lam)
        self._target_wait_s = target_wait_s
        self._clock = clock
        self._observed = clock()
        self.level = 0.0

    def observe(self, wait_s: float) -> None:
        """Take note of how long a newcomer would wait for a turn."""
        now = self._clock()
        over = min(wait_s / self._target_wait_s - 1, self._MOST_OVER)
        passed_s = now - self._observed
        if over > 0:
            passed_s = min(passed_s, self._LONGEST_GAP_S)
        self.level += over * passed_s / self.HORIZON_S
        self.level = min(max(self.level, 0.0), 1.0)
        self._observed = now

    def min_lam(self, min_share: float = 0.0) -> float:
        """Return the least price at which the gate may choose now.

        Args:
            min_share: mean share of the baseline's cost below which this request does not want to be pushed.
        """
        if not self._points or self.level == 0:
            return 0.0
        dearest, cheapest = self._points[0].share, min(point.share for point in self._points)
        wanted = max(dearest - self.level * (dearest - cheapest), min_share)
        lams = [point.lam for point in self._points if point.share >= wanted]
        return max(lams, default=0.0)
