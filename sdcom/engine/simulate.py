"""The scheduler's policy in virtual time: what would this load do on that machine?

    sdcom bench schedule --machine h200

The decisions are the service's own code (`sdcom/engine/policy.py`); only the device is made up, of a cost
table. Decoding, copies and Python's own time are not in it, so read it as the scheduler's share of the truth.
"""

import json
import math
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sdcom.engine.costs import MACHINES, CostTable, Lane, Stage
from sdcom.engine.limits import BatchSizes, Limits
from sdcom.engine.policy import Policy
from sdcom.engine.queues import Batch
from sdcom.engine.traces import Arrival, poisson_trace, read_trace


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
        arrivals: in order of time, none longer than `limits.max_frames_in_flight`.
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
        """Let time pass outside: what is too late leaves; what has come enters, waits or is refused."""
        report, policy = self._report, self._policy
        for ticket in policy.expire(now):
            del self._inside[ticket]
            report.num_expired += 1
        while coming and coming[0].at_s <= now:
            self._outside.append(coming.popleft())
        in_time = deque(video for video in self._outside if video.at_s + video.deadline_s > now)
        report.num_expired += len(self._outside) - len(in_time)
        self._outside = in_time
        while self._outside and policy.has_room(len(self._outside[0].widths)):
            video = self._outside.popleft()
            ticket = policy.admit(len(video.widths), now, video.at_s + video.deadline_s)
            self._inside[ticket] = video
        while len(self._outside) > self._max_outside:
            self._outside.pop()
            report.num_refused += 1
        report.max_in_flight = max(report.max_in_flight, policy.num_frames_in_flight)
        report.max_waiting = max(report.max_waiting, *policy.num_waiting().values(), 0)

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


LIMITS: Mapping[str, Limits] = {
    "h200": Limits(max_batch_frames=256, max_batch_videos=64, max_frames_in_flight=8192),
    "cpu": Limits(),
}
"""Limits that suit the machines of `sdcom.engine.costs.MACHINES`."""

MIX: Mapping[float, float] = {0.0: 0.55, 0.25: 0.25, 0.5: 0.1, 0.75: 0.05, 1.0: 0.05}
"""How often a gate at about a tenth of the baseline's work chooses each width."""


def simulate_loads(
    limits: Limits, costs: CostTable, loads: Sequence[float], *, num_videos: int, deadline_s: float, seed: int
) -> dict[str, Report]:
    """Return what becomes of random arrivals at each load, by its name.

    Args:
        limits: the scheduler's.
        costs: the machine's.
        loads: rates of arrival over the perfectly batched throughput; infinite is an archive: all at once,
            held back while there is no room.
        num_videos: of each trace.
        deadline_s: of each video.
        seed: of the traces.
    """
    sizes, sample = BatchSizes(limits, costs), poisson_trace(num_videos, videos_per_s=math.inf, mix=MIX)
    mean_s = sum(perfect_video_s(video.widths, sizes) for video in sample) / len(sample)
    reports = {}
    for load in loads:
        trace = poisson_trace(
            num_videos, videos_per_s=load / mean_s, mix=MIX, deadline_s=deadline_s, seed=seed
        )
        max_outside = math.inf if math.isinf(load) else 0
        reports[f"{load:g}"] = simulate(trace, limits, costs, max_outside=max_outside)
    return reports


def report_table(title: str, reports: Mapping[str, Report]) -> Table:
    """Return a table with a row for each trace, by its name."""
    columns = (
        "load",
        "videos/s",
        "of perfect",
        "p50 ms",
        "p99 ms",
        "in flight",
        "batch",
        "refused",
        "expired",
    )
    table = Table(*columns, title=title, box=None)
    for name, report in reports.items():
        look_and_fill = (Stage.LOOK, Stage.FILL)
        num_frames = sum(report.num_units[stage] for stage in look_and_fill)
        num_batches = sum(report.num_batches[stage] for stage in look_and_fill)
        table.add_row(
            name,
            f"{report.videos_per_s:.1f}",
            f"{report.of_perfect:.1%}",
            f"{report.latency_s(0.5) * 1e3:.0f}",
            f"{report.latency_s(0.99) * 1e3:.0f}",
            str(report.max_in_flight),
            f"{num_frames / max(1, num_batches):.0f}",
            str(report.num_refused),
            str(report.num_expired),
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what random arrivals at several loads, or a recorded trace, come to on a machine."""
    parser = ArgumentParser(
        prog="sdcom bench schedule", description=main.__doc__, formatter_class=ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--machine", choices=sorted(MACHINES), default="cpu", help="whose costs and limits")
    parser.add_argument("--costs", type=Path, help="measured costs instead, as JSON (docs/operations.md)")
    parser.add_argument(
        "--loads",
        type=float,
        nargs="+",
        default=[0.5, 0.8, 0.95, 1.5, math.inf],
        help="shares of the perfectly batched throughput; inf is an archive",
    )
    parser.add_argument(
        "--trace", type=Path, help="recorded arrivals instead, as lines of JSON (docs/operations.md)"
    )
    parser.add_argument("--videos", type=int, default=2000, help="videos of each random trace")
    parser.add_argument("--deadline-ms", type=float, default=math.inf, help="of each random video")
    parser.add_argument("--seed", type=int, default=0, help="of the random traces")
    given = parser.parse_args(arguments)
    limits, costs = LIMITS[given.machine], MACHINES[given.machine]
    if given.costs is not None:
        costs = CostTable.from_rows(json.loads(given.costs.read_text(encoding="utf-8")))
    if given.trace is not None:
        reports = {"trace": simulate(read_trace(given.trace), limits, costs)}
    else:
        reports = simulate_loads(
            limits,
            costs,
            given.loads,
            num_videos=given.videos,
            deadline_s=given.deadline_ms / 1e3,
            seed=given.seed,
        )
    Console().print(report_table(f"{given.costs or given.machine}, simulated", reports))
