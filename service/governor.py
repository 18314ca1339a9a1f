"""The governor: while requests wait, each video may cost less: the service gets cheaper before it refuses.

Pure but for the clock that is handed in; used from one event loop.
"""

import time
from collections.abc import Callable

from sdcom.checkpoint import ModelInfo


class Governor:
    """A ceiling on what each video may cost, as a share of the baseline's FLOPs.

    A level between 0 and 1 follows the wait for a turn: it rises while the wait is over the target, at twice
    the target from nothing to full within `HORIZON_S`, and falls as fast while nobody waits. A gap between
    observations counts as half a second at most when it rises: one long wait after a quiet hour is new.

    At level 0 there is no ceiling. Above it the ceiling comes down in step, from `highest` to `lowest`.

    Args:
        highest: where the ceiling begins: what requests that name no budget may cost anyway.
        lowest: where it ends; where that is above `highest`, it is there at every level.
        target_wait_s: the wait that is accepted at full accuracy.
        clock: monotonic seconds.
    """

    HORIZON_S = 5.0
    _MOST_OVER = 4.0  # a longer queue does not make it jump
    _LONGEST_GAP_S = 0.5

    def __init__(
        self,
        *,
        highest: float,
        lowest: float,
        target_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._highest = max(highest, lowest)
        self._lowest = lowest
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

    def max_budget(self, min_budget: float = 0.0) -> float:
        """Return the share of the baseline's FLOPs that a video may cost now; 1 is no limit.

        Args:
            min_budget: share to which, and no further, this request wants to be limited; 1 is not at all.
        """
        if self.level == 0:
            return 1.0
        return max(self._lowest + (1 - self.level) * (self._highest - self._lowest), min_budget)


def one_frame_budget(info: ModelInfo) -> float:
    """Return the share of the baseline's FLOPs, at most 1, that one frame at full width costs a video.

    Static network, gate and fusion on every frame are in it: below that, no frame is seen whole.
    """
    macs, num_frames = info.macs, info.config.clip.num_frames
    one_frame = macs.floor(num_frames) + macs.dynamic_by_choice[-1]
    return min(one_frame / macs.baseline(num_frames), 1.0)
