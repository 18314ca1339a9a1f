"""How much may be in flight and in one batch, and how large the best batch is."""

from dataclasses import dataclass

from sdcom.engine.costs import CostTable, Lane, Stage


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of what is in flight, and how fairness is weighed.

    Attributes:
        max_batch_frames: frames of one batch of LOOK or FILL.
        max_batch_videos: videos of one batch of DECIDE or FUSE.
        max_frames_in_flight: frames of all videos admitted and not yet answered.
        buckets: the only batch sizes that the backend computes, ascending; a batch is padded to the next
            one. Empty: it computes any size.
        due_s: a video is due this long after it came, or at its deadline if that is sooner.
        patience_s: how much earlier than a full batch an empty one must be due to go before it.
    """

    max_batch_frames: int = 16
    max_batch_videos: int = 16
    max_frames_in_flight: int = 1024
    buckets: tuple[int, ...] = ()
    due_s: float = 1.0
    patience_s: float = 0.5

    def __post_init__(self) -> None:
        if min(self.max_batch_frames, self.max_batch_videos, self.max_frames_in_flight) < 1:
            raise ValueError(f"counts must be at least 1, got {self}")
        if not (self.due_s >= 0 and self.patience_s > 0):
            raise ValueError(f"due_s must be at least 0 and patience_s above 0, got {self}")
        if list(self.buckets) != sorted(set(self.buckets)) or min(self.buckets, default=1) < 1:
            raise ValueError(f"buckets must ascend from at least 1, got {self.buckets}")

    def max_units(self, lane: Lane) -> int:
        """Return the most frames, or whole videos, that a batch of this lane may hold."""
        return self.max_batch_frames if lane.stage in (Stage.LOOK, Stage.FILL) else self.max_batch_videos


class BatchSizes:
    """The sizes that batches may have, and what they cost; remembers what did not fit into memory.

    Args:
        limits: the largest sizes, and the backend's buckets.
        costs: what batches take.
    """

    def __init__(self, limits: Limits, costs: CostTable) -> None:
        self._limits = limits
        self._costs = costs
        self._fitting: dict[tuple[Stage, float], int] = {}
        self._most: dict[Lane, int] = {}
        self._ideal_s: dict[Lane, float] = {}

    def most(self, lane: Lane) -> int:
        """Return the most units of one batch: by the limits, by memory, and by the largest usable bucket."""
        if lane not in self._most:
            allowed = self._limits.max_units(lane)
            allowed = min(allowed, self._fitting.get(lane[:2], allowed))
            usable = [size for size in self._limits.buckets if size <= allowed]
            self._most[lane] = max(usable, default=allowed)
        return self._most[lane]

    def padded(self, lane: Lane, num_units: int) -> int:
        """Return the size that this many units are computed at: the next bucket, if there is one."""
        most = self.most(lane)
        return next((size for size in self._limits.buckets if num_units <= size <= most), num_units)

    def shrink(self, lane: Lane, size: int) -> None:
        """Remember that a batch of this size did not fit: at most half of it from now on."""
        self._fitting[lane[:2]] = min(self.most(lane), max(1, size // 2))
        self._most.clear()
        self._ideal_s.clear()

    def ideal_unit_s(self, lane: Lane) -> float:
        """Return the device time of one unit in a full batch."""
        if lane not in self._ideal_s:
            most = self.most(lane)
            self._ideal_s[lane] = self._costs.cost_s(lane, most) / most
        return self._ideal_s[lane]

    def best(self, lane: Lane, num_waiting: int) -> tuple[int, float]:
        """Return how many of those waiting make the best batch, and its efficiency in (0, 1].

        Efficiency is what its work would take in full batches, over what it takes. All that wait, padded,
        may be worth less than the next smaller bucket now and the rest later.
        """
        every = min(num_waiting, self.most(lane))
        best = every, self._efficiency(lane, every)
        smaller = [size for size in self._limits.buckets if size < every]
        if smaller and (efficiency := self._efficiency(lane, smaller[-1])) > best[1]:
            best = smaller[-1], efficiency
        return best

    def _efficiency(self, lane: Lane, num_units: int) -> float:
        taken_s = self._costs.cost_s(lane, self.padded(lane, num_units))
        return min(1.0, num_units * self.ideal_unit_s(lane) / taken_s) if taken_s else 1.0
