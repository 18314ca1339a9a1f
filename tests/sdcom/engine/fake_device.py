"""A made-up device that drives the policy in virtual time, and writes down everything that happens."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdcom.engine.costs import CostTable, Lane, Stage
from sdcom.engine.limits import Limits
from sdcom.engine.policy import Policy
from sdcom.engine.queues import Batch
from sdcom.errors import OverloadedError

LEAST_BATCH_S = 0.001

Unit = tuple[Stage, float, int]
"""A stage, a width, and the position of a frame (0 for a whole video)."""


@dataclass(frozen=True)
class Script:
    """One video: when it comes, what the gate will say, and what will go wrong with it."""

    at_s: float
    widths: tuple[float, ...]
    patience_s: float = math.inf
    cancel_after: int | None = None
    """Batches of anybody's that run between its arrival and its cancellation."""
    poisons: Stage | None = None
    """Every batch of this stage that it is in fails."""

    def units(self) -> Counter[Unit]:
        """Everything that has to be computed for it, once each."""
        frames = range(len(self.widths))
        looks = [(Stage.LOOK, 0.0, position) for position in frames]
        fills = [(Stage.FILL, self.widths[i], i) for i in frames if self.widths[i] > 0]
        return Counter([*looks, (Stage.DECIDE, 0.0, 0), *fills, (Stage.FUSE, 0.0, 0)])


@dataclass
class Ran:
    """A batch that was started: at what time, and which videos were in flight."""

    batch: Batch
    at_s: float
    in_flight: frozenset[int]


@dataclass
class History:
    """What happened: `outcomes` by ticket are answered, failed, cancelled or expired."""

    scripts: dict[int, Script] = field(default_factory=dict)
    outcomes: dict[int, str] = field(default_factory=dict)
    ended_s: dict[int, float] = field(default_factory=dict)
    computed: dict[int, Counter[Unit]] = field(default_factory=dict)
    ran: list[Ran] = field(default_factory=list)
    num_refused: int = 0
    most_in_flight: int = 0
    most_waiting: int = 0

    def end(self, ticket: int, outcome: str, now_s: float) -> None:
        assert ticket not in self.outcomes, "a video ended twice"
        self.outcomes[ticket] = outcome
        self.ended_s[ticket] = now_s


class FakeDevice:
    """Runs scripts through a policy until all have ended.

    Args:
        limits: of the policy.
        costs: of the policy and, in virtual time, of the device.
        memory: rows that fit into a batch; a larger one runs out of memory.
    """

    def __init__(self, limits: Limits, costs: CostTable, memory: float = math.inf) -> None:
        self.policy = Policy(limits, costs)
        self.costs = costs
        self.memory = memory
        self.now_s = 0.0
        self.history = History()

    def run(self, scripts: Sequence[Script]) -> History:
        coming = sorted(scripts, key=lambda script: script.at_s)
        while coming or self.in_flight:
            while coming and coming[0].at_s <= self.now_s:
                self._admit(coming.pop(0))
            for ticket in self.policy.expire(self.now_s):
                self.history.end(ticket, "expired", self.now_s)
            self._watch()
            batch = self.policy.next_batch(self.now_s)
            if batch is None:
                assert not self.in_flight, "idle while a video waits"
                self.now_s = coming[0].at_s if coming else self.now_s
                continue
            self._run_batch(batch)
        assert self.policy.num_frames_in_flight == self.policy.num_videos_in_flight == 0
        assert not self.policy.num_waiting()
        return self.history

    @property
    def in_flight(self) -> frozenset[int]:
        return frozenset(self.history.scripts.keys() - self.history.outcomes.keys())

    def _admit(self, script: Script) -> None:
        try:
            ticket = self.policy.admit(len(script.widths), self.now_s, script.at_s + script.patience_s)
        except OverloadedError:
            self.history.num_refused += 1
            return
        self.history.scripts[ticket] = script
        self.history.computed[ticket] = Counter()

    def _watch(self) -> None:
        history, policy = self.history, self.policy
        history.most_in_flight = max(history.most_in_flight, policy.num_frames_in_flight)
        history.most_waiting = max(history.most_waiting, *policy.num_waiting().values(), 0)

    def _run_batch(self, batch: Batch) -> None:
        history = self.history
        history.ran.append(Ran(batch, self.now_s, self.in_flight))
        self.now_s += max(LEAST_BATCH_S, self.costs.cost_s(batch.lane, batch.size))
        self._cancel_some()  # while the batch runs
        tickets = [share.ticket for share in batch.shares]
        if batch.size > self.memory:
            self.policy.shrink(batch)
            self.policy.put_back(batch, apart=False)
        elif any(history.scripts[ticket].poisons is batch.lane.stage for ticket in tickets):
            if len(tickets) > 1:
                self.policy.put_back(batch, apart=True)
            elif self.policy.drop(tickets[0]):
                history.end(tickets[0], "failed", self.now_s)
        else:
            self._complete(batch)

    def _cancel_some(self) -> None:
        for ticket in self.in_flight:
            after = self.history.scripts[ticket].cancel_after
            if after is not None and sum(ticket in ran.in_flight for ran in self.history.ran) > after:
                assert self.policy.drop(ticket)
                self.history.end(ticket, "cancelled", self.now_s)

    def _complete(self, batch: Batch) -> None:
        lane: Lane = batch.lane
        for share in batch.shares:
            units = [(lane.stage, lane.width, position) for position in share.positions]
            self.history.computed[share.ticket].update(units)
        for ticket in self.policy.complete(batch, self.now_s):
            if lane.stage is Stage.DECIDE:
                self.policy.plan(ticket, self.history.scripts[ticket].widths)
            elif lane.stage is Stage.FUSE:
                self.history.end(ticket, "answered", self.now_s)
