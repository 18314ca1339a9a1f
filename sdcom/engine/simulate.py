"""The scheduler's policy in virtual time: what would this load do on that machine?

    python -m sdcom.engine.simulate --machine h200 --load 0.8

The decisions are the service's own code (`sdcom/engine/policy.py`); only the device is made up, of a cost
table. Decoding, copies and Python's own time are not in it, so read it as the scheduler's share of the truth.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdcom.engine.costs import CostTable, Lane, Stage
from sdcom.engine.limits import BatchSizes, Limits
from sdcom.engine.policy import Policy
from sdcom.engine.queues import Batch


@dataclass(frozen=True, slots=True)
class Arrival:
    """One video of a trace.

    Attributes:
        at_s: when it comes.
        widths: what the gate will say of each frame.
        deadline_s: seconds after it comes at which its answer is no longer wanted; infinite for none.
    """

    at_s: float
    widths: tuple[float, ...]
    deadline_s: float = math.inf


@dataclass(slots=True)
class Report:
    """What became of a trace.

    Attributes:
        perfect_s: device time of the answered videos if every batch were full.
        busy_s: device time spent.
        span_s: from the first arrival to the last answer.
        latencies_s: of the answered videos, in the order of their answers.
        num_refused: videos that found no room.
        num_expired: videos whose deadline passed.
        max_in_flight: most frames in flight at once.
        max_waiting: most frames, or whole videos, that waited in one lane.
        num_batches: by stage.
        num_units: by stage, frames or whole videos computed, padding left out.
        num_padding: by stage, those computed for nothing.
    """

    perfect_s: float = 0.0
    busy_s: float = 0.0
    span_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    num_refused: int = 0
    num_expired: int = 0
    max_in_flight: int = 0
    max_waiting: int = 0
    num_batches: Counter[Stage] = field(default_factory=Counter)
    num_units: Counter[Stage] = field(default_factory=Counter)
    num_padding: Counter[Stage] = field(default_factory=Counter)

    @property
    def videos_per_s(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.span_s if self.span_s else 0.0

    @property
    def of_perfect(self) -> float:
        """Throughput over that of perfectly batched stages that never wait, at most 1."""
        return self.perfect_s / self.span_s if self.span_s else 1.0

    def latency_s(self, share: float) -> float:
        """Return the latency that this share of the answered videos stayed within; NaN if there are none."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def perfect_video_s(widths: Sequence[float], sizes: BatchSizes) -> float:
    """Return a video's device time if all of its work ran in full batches."""
    units = [Lane(stage, num_frames=len(widths)) for stage in (Stage.DECIDE, Stage.FUSE)]
    units += [Lane(Stage.LOOK)] * len(widths)
    units += [Lane(Stage.FILL, width) for width in widths if width > 0]
    return sum(sizes.ideal_unit_s(lane) for lane in units)


def simulate(
    arrivals: Sequence[Arrival], limits: Limits, costs: CostTable, *, max_outside: float = 0
) -> Report:
    """Run a trace through the policy on one device.

    Args:
        arrivals: in order of time.
        limits: the scheduler's.
        costs: the machine's.
        max_outside: videos that wait outside while there is no room; 0 refuses them, as the service does,
            infinity holds them back, as reading an archive does.
    """
    return _Simulation(limits, costs, max_outside).run(arrivals)


class _Simulation:
    def __init__(self, limits: Limits, costs: CostTable, max_outside: float) -> None:
        self._costs, self._max_outside = costs, max_outside
        self._sizes = BatchSizes(limits, costs)
        self._policy = Policy(limits, costs)
        self._outside: deque[Arrival] = deque()
        self._inside: dict[int, Arrival] = {}
        self._report = Report()

    def run(self, arrivals: Sequence[Arrival]) -> Report:
        coming = deque(arrivals)
        now = start = coming[0].at_s if coming else 0.0
        while coming or self._inside or self._outside:
            self._let_in(coming, now)
            batch = self._policy.next_batch(now)
            if batch is None:
                if not coming:
                    break
                now = coming[0].at_s
                continue
            now += self._costs.cost_s(batch.lane, batch.size)
            self._finish(batch, now)
        self._report.span_s = now - start
        return self._report

    def _let_in(self, coming: deque[Arrival], now: float) -> None:
        """Let time pass outside: what has come enters, waits or is refused, and what is too late leaves."""
        for ticket in self._policy.expire(now):
            del self._inside[ticket]
            self._report.num_expired += 1
        while coming and coming[0].at_s <= now:
            if len(self._outside) < max(self._max_outside, 1):
                self._outside.append(coming.popleft())
                self._admit(now)
            else:
                coming.popleft()
                self._report.num_refused += 1
        self._admit(now)
        report, policy = self._report, self._policy
        report.max_in_flight = max(report.max_in_flight, policy.num_frames_in_flight)
        report.max_waiting = max(report.max_waiting, *policy.num_waiting().values(), 0)

    def _admit(self, now: float) -> None:
        while self._outside:
            first = self._outside[0]
            deadline = first.at_s + first.deadline_s
            if deadline <= now:
                self._report.num_expired += 1
            elif self._policy.has_room(len(first.widths)):
                self._inside[self._policy.admit(len(first.widths), now, deadline)] = first
            elif self._max_outside < 1:
                self._report.num_refused += 1
            else:
                return
            self._outside.popleft()

    def _finish(self, batch: Batch, now: float) -> None:
        report, stage = self._report, batch.lane.stage
        report.busy_s += self._costs.cost_s(batch.lane, batch.size)
        report.num_batches[stage] += 1
        report.num_units[stage] += batch.num_units
        report.num_padding[stage] += batch.size - batch.num_units
        for ticket in self._policy.complete(batch, now):
            if stage is Stage.DECIDE:
                self._policy.plan(ticket, self._inside[ticket].widths)
            elif stage is Stage.FUSE:
                video = self._inside.pop(ticket)
                report.latencies_s.append(now - video.at_s)
                report.perfect_s += perfect_video_s(video.widths, self._sizes)
