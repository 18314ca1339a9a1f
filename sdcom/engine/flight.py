"""The books of the videos in flight: the policy's tickets, each video's work and future.

One caller at a time; the scheduler holds its lock around every call. Whoever takes a video out of here, and
nobody else, ends its future, after the lock is free: futures call back.
"""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from sdcom.cost import ModelMacs
from sdcom.engine.backend import Begun, Float32Array, Held
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.costs import Stage
from sdcom.engine.execution import VideoWork
from sdcom.engine.memory import ran_out_of_memory
from sdcom.engine.policy import Policy
from sdcom.engine.queues import Batch
from sdcom.engine.work import PART_TIMED, lane_macs


@dataclass(slots=True)
class Entry:
    """A video in flight, whose answer its future is."""

    work: VideoWork
    planner: Planner
    future: Future[Composed]

    def answer(self, logits_TL: Float32Array) -> None:
        """End with what was computed, unless it was cancelled."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(self.work.composed(logits_TL))

    def fail(self, error: BaseException) -> None:
        """End with an error, unless it was cancelled."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class Running:
    """A batch in hand: the videos of its shares, when it began, and what waits for its end."""

    batch: Batch
    entries: list[Entry]
    begun_s: float
    end: Begun[Float32Array | None]

    def rows(self) -> Float32Array | None:
        """Wait for its end; return the decisions or answers of its videos, padding after them.

        Raises:
            Exception: whatever the room raises; ValueError if rows are missing.
        """
        rows = self.end()
        if rows is not None and len(rows) < len(self.entries):
            raise ValueError(f"{len(rows)} rows came back of {len(self.entries)} videos")
        return rows


class Flight:
    """All videos in flight.

    Args:
        policy: decides; all of its videos are entered here.
        macs: of the model.
        release: called with what is held of a video that has left, once no batch in hand has frames of it.
    """

    def __init__(self, policy: Policy, macs: ModelMacs, release: Callable[[Held], None]) -> None:
        self.policy = policy
        self._macs = macs
        self._release = release
        self._entries: dict[int, Entry] = {}

    def admit(self, entry: Entry, now_s: float, deadline: float | None) -> int:
        """Enter a video; return its ticket.

        Raises:
            OverloadedError: there is no room now.
        """
        deadline_s = math.inf if deadline is None else deadline
        work = entry.work
        ticket = self.policy.admit(work.num_frames, now_s, deadline_s, work.repeats)
        self._entries[ticket] = entry
        work.came_s = now_s
        return ticket

    def abandon(self, tickets: Iterable[int]) -> list[Entry]:
        """Take out videos that will not be answered; return those that were here."""
        left = []
        for ticket in tickets:
            self.policy.drop(ticket)
            if entry := self._entries.pop(ticket, None):
                self._leave(entry)
                left.append(entry)
        return left

    def abandon_all(self) -> list[Entry]:
        """Take out every video."""
        return self.abandon(list(self._entries))

    def expire(self, now_s: float) -> list[Entry]:
        """Take out the videos whose deadline has passed."""
        return self.abandon(self.policy.expire(now_s))

    def next_batch(self, now_s: float, *, only_full: bool) -> tuple[Batch, list[Entry]] | None:
        """Return the batch to run, and the videos of its shares; None as `Policy.next_batch` does."""
        batch = self.policy.next_batch(now_s, only_full=only_full)
        if batch is None:
            return None
        entries = [self._entries[share.ticket] for share in batch.shares]
        for entry in entries:
            entry.work.num_batches += 1
            if entry.work.begun_s is None:
                entry.work.begun_s = now_s
        return batch, entries

    def failed(self, batch: Batch, entries: Iterable[Entry], exc: Exception) -> list[Entry]:
        """Put a batch that raised back, smaller or apart; or take out its only video, the culprit."""
        self._end_batch(batch, entries)
        if ran_out_of_memory(exc) and batch.size > 1:
            self.policy.shrink(batch)
            self.policy.put_back(batch, apart=False)
        elif len(batch.shares) > 1:
            self.policy.put_back(batch, apart=True)
        else:
            return self.abandon([batch.shares[0].ticket])
        return []

    def ran(self, batch: Batch, entries: Iterable[Entry], seconds: float, now_s: float) -> list[int]:
        """Enter a batch that ran for so many seconds into the books, and lead its videos on.

        Returns:
            Tickets of the videos whose stage it ended: after DECIDE they need a plan, after FUSE an answer,
            and have left.
        """
        part, unit_s = PART_TIMED[batch.lane.stage], seconds / batch.num_units
        unit_macs = lane_macs(batch.lane, 1, self._macs).items()
        for share, entry in zip(batch.shares, entries, strict=True):
            work, num_units = entry.work, len(share.positions)
            for each, count in unit_macs:
                work.ledger.macs[each] += num_units * count
            work.stage_s[part] += num_units * unit_s
        done = self.policy.complete(batch, now_s)
        if batch.lane.stage is Stage.FUSE:
            for ticket in done:
                del self._entries[ticket]
        self._end_batch(batch, entries)
        return done

    def _end_batch(self, batch: Batch, entries: Iterable[Entry]) -> None:
        for share, entry in zip(batch.shares, entries, strict=True):
            entry.work.num_batches -= 1
            if share.ticket not in self._entries:
                self._leave(entry)

    def _leave(self, entry: Entry) -> None:
        """Let a video that was taken out leave its room, or the last of its batches do so later."""
        if entry.work.num_batches == 0:
            self._release(entry.work.held)
