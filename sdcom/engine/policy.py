"""Which batch runs next: every decision of the scheduler, without threads, clock, arrays or torch.

Each video in flight passes through the stages; what waits stands in one queue per lane (a stage, and for the
dynamic network a width), videos in the order in which they are due. `next_batch` fills a batch from one
lane with frames of any videos, whenever the device can take one: it never idles while something waits.
Whatever drives the policy, real threads or a simulation, calls it from one thread at a time.

Which lane (docs/adr/0007-scheduler.md): the one whose batch turns most of its device time into work, which
is the fullest where a batch has a fixed cost, weighed against how much earlier another lane's first video is
due. So work waits for a fuller batch only while the device has one to run, and never for long.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from sdcom.engine.costs import CostTable, Lane, Stage
from sdcom.engine.limits import BatchSizes, Limits
from sdcom.engine.queues import Batch, LaneQueue, Rank
from sdcom.engine.repeats import Repeats
from sdcom.engine.service_time import ServiceTime
from sdcom.errors import OverloadedError

FINISHING = 0.02
"""How much less efficient a batch may be than one of frames not begun, and still go first."""

_LEAST_RETRY_S = 0.1
_LOOK = Lane(Stage.LOOK)
_FOLLOWING: Mapping[Stage, Stage] = {Stage.LOOK: Stage.DECIDE, Stage.FILL: Stage.FUSE}
"""Where the whole video waits next. Rounds of frames would lead from FUSE back to LOOK here."""


@dataclass(slots=True)
class _Video:
    """A video in flight.

    Attributes:
        rank: its place in every queue. It is late if it has not begun and is not expected to be answered in
            time; it then yields to all others.
        num_frames: of the video.
        deadline_s: when its answer is no longer wanted.
        num_unfinished: frames (or 1, the whole video) of its stage that wait or run.
        begun_s: when its first frame went into a batch; None before.
    """

    rank: Rank
    num_frames: int
    deadline_s: float
    num_unfinished: int
    begun_s: float | None = None

    @property
    def ticket(self) -> int:
        return self.rank.ticket


class Policy:
    """The state of all videos in flight. Times are seconds of one clock, passed in.

    Args:
        limits: bounds and fairness.
        costs: what batches take on this machine.
    """

    def __init__(self, limits: Limits, costs: CostTable) -> None:
        self.limits = limits
        self._sizes = BatchSizes(limits, costs)
        self._tickets = count()
        self._videos: dict[int, _Video] = {}
        self._queues: dict[Lane, LaneQueue] = {}
        self._apart: set[int] = set()
        self._num_frames = 0
        self._service = ServiceTime()
        self._next_check_s = math.inf

    @property
    def num_frames_in_flight(self) -> int:
        """Frames of the videos admitted and not yet answered, dropped or expired."""
        return self._num_frames

    @property
    def num_videos_in_flight(self) -> int:
        """Videos admitted and not yet answered, dropped or expired."""
        return len(self._videos)

    def num_waiting(self) -> dict[Lane, int]:
        """Return the frames, or whole videos, that wait in each lane; empty lanes are left out."""
        return {lane: queue.num_units for lane, queue in self._queues.items()}

    def backlog_s(self) -> float:
        """Return the device time of what waits now, in full batches; later stages are not foreseen."""
        queues = self._queues.items()
        return sum(queue.num_units * self._sizes.ideal_unit_s(lane) for lane, queue in queues)

    def has_room(self, num_frames: int) -> bool:
        """Return whether a video of this many frames would be admitted now."""
        return self._num_frames + num_frames <= self.limits.max_frames_in_flight

    # --- the life of a video ---

    def admit(
        self,
        num_frames: int,
        now_s: float,
        deadline_s: float = math.inf,
        repeats: Repeats = (),
    ) -> int:
        """Take a video in; return its ticket.

        Args:
            num_frames: that it has.
            now_s: the time.
            deadline_s: when its answer is no longer wanted.
            repeats: its frames that are not looked at, because others show the same picture.

        Raises:
            ValueError: it has no frames, or more than may ever be in flight.
            OverloadedError: there is no room now.
        """
        most = self.limits.max_frames_in_flight
        if not 1 <= num_frames <= most:
            raise ValueError(f"a video must have 1 to {most} frames, got {num_frames}")
        if not self.has_room(num_frames):
            raise OverloadedError(
                f"{self._num_frames} of at most {most} frames are in flight, no room for {num_frames} more",
                retry_after_s=max(_LEAST_RETRY_S, self.backlog_s()),
            )
        due_s = min(now_s + self.limits.due_s, deadline_s)
        shown = _shown(num_frames, repeats)
        video = _Video(Rank(False, due_s, next(self._tickets)), num_frames, deadline_s, len(shown))
        self._videos[video.ticket] = video
        self._num_frames += num_frames
        self._wait(video, _LOOK, shown)
        self._check(video, now_s)
        return video.ticket

    def plan(self, ticket: int, widths: Sequence[float]) -> None:
        """Say at which width each frame of a video is to be filled, after its DECIDE; 0 is not run."""
        video = self._videos.get(ticket)
        if video is None:
            return
        assert video.num_unfinished == 0
        assert len(widths) == video.num_frames
        filled = [position for position, width in enumerate(widths) if width > 0]
        if not filled:
            self._wait_whole(video, Stage.FUSE)
            return
        video.num_unfinished = len(filled)
        for width in {widths[position] for position in filled}:
            positions = tuple(position for position in filled if widths[position] == width)
            self._wait(video, Lane(Stage.FILL, width), positions)

    def drop(self, ticket: int) -> bool:
        """Forget a video, wherever it is; return whether it was in flight. What runs of it is ignored."""
        video = self._videos.get(ticket)
        if video is None:
            return False
        self._forget(video)
        for lane in list(self._queues):
            self._queues[lane].remove(video.rank)
            self._leave(lane)
        return True

    def expire(self, now_s: float) -> list[int]:
        """Drop the videos whose deadline has passed; return their tickets."""
        if now_s < self._next_check_s:
            return []
        expired = [video for video in self._videos.values() if video.deadline_s <= now_s]
        for video in expired:
            self._learn(video, now_s)
            self.drop(video.ticket)
        self._next_check_s = math.inf
        for video in self._videos.values():
            self._check(video, now_s)
        return [video.ticket for video in expired]

    # --- the life of a batch ---

    def next_batch(self, now_s: float, *, only_full: bool = False) -> Batch | None:
        """Take the batch that helps most out of its queue; None if nothing waits.

        Args:
            now_s: when it is begun.
            only_full: others run before it, so it has time: None if more may come to it until then.
        """
        if not self._queues:
            return None
        lane = max(self._queues, key=self._preference)
        queue = self._queues[lane]
        num_units, _ = self._sizes.best(lane, queue.num_at_once(self._apart))
        if only_full and num_units < self._sizes.most(lane):
            return None
        shares = queue.take(num_units, self._apart)
        self._leave(lane)
        for share in shares:
            video = self._videos[share.ticket]
            if video.begun_s is None:
                video.begun_s = now_s
        num_taken = sum(len(share.positions) for share in shares)
        return Batch(lane, shares, self._sizes.padded(lane, num_taken))

    def complete(self, batch: Batch, now_s: float) -> list[int]:
        """Note that a batch ran; return the tickets of the videos whose stage it ended, first due first.

        After DECIDE such a video waits for `plan`; after FUSE it has left.
        """
        done = []
        following, has_left = _FOLLOWING.get(batch.lane.stage), batch.lane.stage is Stage.FUSE
        for ticket, positions in batch.shares:
            video = self._videos.get(ticket)
            if video is None:
                continue
            self._apart.discard(ticket)
            video.num_unfinished -= len(positions)
            if video.num_unfinished == 0:
                done.append(ticket)
                if following is not None:
                    self._wait_whole(video, following)
                elif has_left:
                    self._learn(video, now_s)
                    self._forget(video)
        return done

    def put_back(self, batch: Batch, *, apart: bool) -> None:
        """Return a batch that failed to its queue.

        Args:
            batch: as `next_batch` returned it.
            apart: each of its videos runs alone until it gets through a batch.
        """
        for share in batch.shares:
            video = self._videos.get(share.ticket)
            if video is not None:
                self._wait(video, batch.lane, share.positions)
                if apart:
                    self._apart.add(share.ticket)

    def shrink(self, batch: Batch) -> None:
        """Remember that a batch did not fit into memory: at most half its size from now on."""
        self._sizes.shrink(batch.lane, batch.size)

    def _preference(self, lane: Lane) -> tuple[bool, float, Stage]:
        """Return what orders the lanes; the highest runs.

        Efficiency is at most 1, so a lane whose first video is due `patience_s * (1 + FINISHING)` before
        another's goes before it, however empty its batch.
        """
        queue = self._queues[lane]
        _, efficiency = self._sizes.best(lane, queue.num_at_once(self._apart))
        finishing = FINISHING if lane.stage > Stage.LOOK else 0.0
        score = efficiency + finishing - queue.first.due_s / self.limits.patience_s
        return (not queue.first.is_late, score, lane.stage)

    # --- from stage to stage ---

    def _wait_whole(self, video: _Video, stage: Stage) -> None:
        video.num_unfinished = 1
        self._wait(video, Lane(stage, 0.0, video.num_frames), (0,))

    def _wait(self, video: _Video, lane: Lane, positions: tuple[int, ...]) -> None:
        queue = self._queues.get(lane)
        if queue is None:
            queue = self._queues[lane] = LaneQueue()
        queue.add(video.rank, positions)

    def _forget(self, video: _Video) -> None:
        ticket = video.rank.ticket
        del self._videos[ticket]
        self._apart.discard(ticket)
        self._num_frames -= video.num_frames

    def _leave(self, lane: Lane) -> None:
        if not self._queues[lane]:
            del self._queues[lane]

    # --- deadlines ---

    def _learn(self, video: _Video, now_s: float) -> None:
        if video.begun_s is not None:
            self._service.add(now_s - video.begun_s)
            if self._next_check_s < math.inf:  # some have deadlines: judge them by what is now known
                self._next_check_s = min(self._next_check_s, now_s)

    def _check(self, video: _Video, now_s: float) -> None:
        """Put a video that began too late to be answered in time behind all others; note when to look again.

        It still runs when nothing else does, so a pessimistic estimate corrects itself.
        """
        may_turn_late = video.begun_s is None and not video.rank.is_late
        late_from_s = video.deadline_s - self._service.most_s
        if may_turn_late and late_from_s < now_s:
            late = video.rank._replace(is_late=True)
            for queue in self._queues.values():
                if positions := queue.remove(video.rank):
                    queue.add(late, positions)
            video.rank = late
            may_turn_late = False
        check_s = late_from_s if may_turn_late else video.deadline_s
        self._next_check_s = min(self._next_check_s, check_s)


def _shown(num_frames: int, repeats: Repeats) -> tuple[int, ...]:
    again = {position for _, position in repeats}
    return tuple(each for each in range(num_frames) if each not in again)
