"""Continuous batching: the frames of every video in flight share batches, by stage and by width.

`Scheduler.submit` takes a video into the room where the backend computes, and returns a future. One thread
takes the batches that the policy (`sdcom/engine/policy.py`) picks, begins them, waits for their ends and
answers. A video is computed as the reference computes it, and its ledger says the same.

What goes wrong stays with whom it concerns. A batch that fails is run again video by video, so that only the
culprit fails; one that does not fit into memory is run again at half its size, which is remembered. A
cancelled future's video, or one whose deadline passed, is not computed any further.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Self

import numpy as np

from sdcom.config import ModelConfig
from sdcom.cost import model_macs
from sdcom.engine.backend import PATIENCE_S, Answer, Float32Array, Held, Room, UInt8Array
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.costs import CostTable, Stage
from sdcom.engine.execution import VideoWork, begin_batch
from sdcom.engine.flight import Entry, Flight, Running
from sdcom.engine.ledger import Ledger
from sdcom.engine.limits import Limits
from sdcom.engine.planning import plan_each
from sdcom.engine.policy import Policy
from sdcom.engine.queues import Batch
from sdcom.engine.repeats import Pictures, Repeats, repeats_of
from sdcom.engine.threads import fulfil
from sdcom.errors import DeadlineExceededError, OverloadedError

NUM_EAGER = 2
"""Batches in hand beyond which others are begun only if they are full: what is not has time to become so."""


class Scheduler:
    """A backend and the thread that keeps it busy.

    Args:
        room: where the backend computes; called from that thread, but for taking videos in.
        config: of the model; without temporal shift, which batches of single frames cannot have.
        limits: what may be in flight and in one batch.
        costs: what batches take on this machine; the empty table serves first come, first served.
        clock: seconds; deadlines are values of it.
        num_in_hand: batches begun at once. With 1, each is chosen once the last one's results are in. With
            more, the next ones have begun when the first of them is waited for, entered into the books and
            answered: for a device that would wait for Python meanwhile.
        initializer: called first on that thread.
        on_batch: called after every batch that ran, with it and the backend's seconds; must not raise.

    Raises:
        ValueError: the model has temporal shift, a video of it never fits into the limits, or no batch may be
            in hand.
    """

    def __init__(
        self,
        room: Room,
        config: ModelConfig,
        limits: Limits | None = None,
        *,
        costs: CostTable | None = None,
        clock: Callable[[], float] = time.monotonic,
        num_in_hand: int = 1,
        initializer: Callable[[], object] | None = None,
        on_batch: Callable[[Batch, float], object] = lambda _batch, _seconds: None,
    ) -> None:
        limits = limits or Limits()
        if config.temporal_shift:
            raise ValueError("a model with temporal shift cannot be scheduled frame by frame")
        if limits.max_frames_in_flight < config.clip.num_frames:
            raise ValueError(
                f"a video of {config.clip.num_frames} frames never fits into {limits.max_frames_in_flight=}"
            )
        if num_in_hand < 1:
            raise ValueError(f"at least one batch must be in hand, got {num_in_hand=}")
        self._room = room
        self._config = config
        self._macs = model_macs(config)
        self._clock = clock
        self._on_batch = on_batch
        self._changed = threading.Condition()  # guards everything in flight
        self._flight = Flight(Policy(limits, costs or CostTable()), self._macs, room.release)
        self._calls: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._closed = False
        self._num_in_hand = num_in_hand
        self._last_ended_s = -math.inf
        self._thread = threading.Thread(
            target=self._run, args=(initializer or (lambda: None),), name="device", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def submit(
        self,
        frames_THWC: UInt8Array,
        planner: Planner,
        pictures_T: Pictures | None = None,
        *,
        deadline: float | None = None,
    ) -> Future[Composed]:
        """Take a video in, if there is room; its frames are brought to the backend by the calling thread.

        Args:
            frames_THWC: its cropped RGB frames in feeding order, at most as many as the model has; not to be
                changed before the future is done.
            planner: turns the gate's logits into widths; called on the scheduler's threads.
            pictures_T: what each frame shows; None: each another picture.
            deadline: value of the clock after which the answer is not wanted; None is never.

        Returns:
            A future, which may be cancelled until it is done. Its callbacks run on the scheduler's thread and
            must wait for none of its answers. It ends with the answer, with what the planner
            or the backend raised for this video alone, with DeadlineExceededError (noticed between
            batches), or with OverloadedError if the scheduler is closed first.

        Raises:
            ValueError: the frames are not this model's.
            OverloadedError: there is no room, for which `sdcom.engine.places` waits; or it is closed.
            Exception: whatever the backend raises when it takes the frames.
        """
        self._check_frames(frames_THWC)
        if self._closed:
            raise _closed()
        patience_s = PATIENCE_S if deadline is None else min(PATIENCE_S, deadline - self._clock())
        repeats = repeats_of(pictures_T) if pictures_T else ()
        held = self._room.hold(frames_THWC, patience_s)
        try:
            with self._changed:
                return self._admit(held, len(frames_THWC), repeats, planner, deadline)
        except OverloadedError:
            self._room.release(held)
            raise

    def call(self, work: Callable[[], Answer]) -> Answer:
        """Run other work on the thread that calls the backend, between batches; return what it returns.

        On that thread itself, in a planner or a future's callback, it runs at once.

        Raises:
            OverloadedError: the scheduler is closed.
        """
        if threading.current_thread() is self._thread:
            return work()
        answer: Future[Answer] = Future()
        with self._changed:
            if self._closed:
                raise _closed()
            self._calls.append((answer, work))
            self._changed.notify()
        return answer.result()

    def close(self) -> None:
        """Fail what is in flight with OverloadedError, and end once the batches that run are through."""
        self._end(_closed)
        if threading.current_thread() is not self._thread:  # a future's callback cannot wait for itself
            self._thread.join()

    # --- entering ---

    def _check_frames(self, frames_THWC: UInt8Array) -> None:
        clip = self._config.clip
        num_frames, *shape = frames_THWC.shape
        if frames_THWC.dtype != np.uint8 or shape != [clip.crop, clip.crop, 3]:
            raise ValueError(
                f"frames must be uint8 [T, {clip.crop}, {clip.crop}, 3], "
                f"got {frames_THWC.dtype} {list(frames_THWC.shape)}"
            )
        if not 1 <= num_frames <= clip.num_frames:
            raise ValueError(f"a video must have 1 to {clip.num_frames} frames, got {num_frames}")

    def _admit(
        self, held: Held, num_frames: int, repeats: Repeats, planner: Planner, deadline: float | None
    ) -> Future[Composed]:
        if self._closed:
            raise _closed()
        ledger = Ledger(baseline_macs=self._macs.baseline(num_frames))
        entry = Entry(VideoWork(held, num_frames, ledger, repeats), planner, Future())
        ticket = self._flight.admit(entry, self._clock(), deadline)
        entry.future.add_done_callback(partial(self._on_done, ticket))
        self._changed.notify()
        return entry.future

    # --- leaving ---

    def _on_done(self, ticket: int, future: Future[Composed]) -> None:
        if future.cancelled():
            with self._changed:
                left = self._flight.abandon([ticket])
            for entry in left:
                entry.future.set_running_or_notify_cancel()

    def _end(self, error: Callable[[], BaseException]) -> None:
        with self._changed:
            self._closed = True
            left = self._flight.abandon_all()
            calls, self._calls = self._calls, []
            self._changed.notify()
        for entry in left:
            entry.fail(error())
        for answer, _ in calls:
            answer.set_exception(error())

    # --- the thread ---

    def _run(self, initializer: Callable[[], object]) -> None:
        in_hand: deque[Running] = deque()
        try:
            initializer()
            while self._fill(in_hand):
                self._finish(in_hand)
        except BaseException as exc:
            broken = exc
            self._end(lambda: broken)  # nobody may wait for a thread that is gone
            raise

    def _fill(self, in_hand: deque[Running]) -> bool:
        """Begin batches until enough are in hand or nothing waits; return whether there are any."""
        while len(in_hand) < self._num_in_hand and (step := self._next(len(in_hand))):
            batch, entries = step
            begun_s = self._clock()
            try:
                end = begin_batch(self._room, batch, [entry.work for entry in entries])
            except Exception as exc:  # whatever it is, it is this batch's
                self._failed(batch, entries, exc)
            else:
                in_hand.append(Running(batch, entries, begun_s, end))
        return bool(in_hand)

    def _next(self, num_in_hand: int) -> tuple[Batch, list[Entry]] | None:
        """Return the next batch and the videos of its shares, None if others are in hand or at the end."""
        or_wait = num_in_hand == 0
        while True:
            with self._changed:
                if self._closed:
                    return None
                now_s = self._clock()
                expired = self._flight.expire(now_s)
                calls, self._calls = self._calls, []
                step = self._flight.next_batch(now_s, only_full=num_in_hand >= NUM_EAGER)
                if or_wait and not (expired or calls or step):
                    self._changed.wait()
            for answer, work in calls:
                fulfil(answer, work)
            if calls:
                self._last_ended_s = self._clock()  # their time is no batch's
            for entry in expired:
                entry.fail(DeadlineExceededError("the deadline passed; allow a larger deadline_ms"))
            if step or not or_wait:
                return step

    def _finish(self, in_hand: deque[Running]) -> None:
        """Wait for the end of the batch in hand that began first, and lead its videos on.

        It took the backend from when it had begun, or the batch before had ended, if that was later.
        """
        running = in_hand.popleft()
        batch, entries = running.batch, running.entries
        try:
            rows = running.rows()
        except Exception as exc:  # whatever it is, it is this batch's
            self._failed(batch, entries, exc)
            return
        with self._changed:
            ended_s = self._clock()
            seconds = max(0.0, ended_s - max(running.begun_s, self._last_ended_s))
            self._last_ended_s = ended_s
            done = set(self._flight.ran(batch, entries, seconds, ended_s))
        self._on_batch(batch, seconds)
        if rows is None:
            return
        answered = zip(batch.shares, entries, rows, strict=False)  # rows beyond are padding
        led_on = [(share.ticket, entry, row) for share, entry, row in answered if share.ticket in done]
        if batch.lane.stage is Stage.DECIDE:
            self._plan(led_on)
            return
        try:
            if in_hand:  # to answer takes as long as several batches: they are to have begun
                self._fill(in_hand)
        finally:
            for _, entry, logits_TL in led_on:
                entry.answer(logits_TL.copy())  # not a view that keeps all of the batch

    def _failed(self, batch: Batch, entries: list[Entry], exc: Exception) -> None:
        with self._changed:
            left = self._flight.failed(batch, entries, exc)
        for entry in left:
            entry.fail(exc)

    def _plan(self, decided: Sequence[tuple[int, Entry, Float32Array]]) -> None:
        """Plan videos, and let them go on together."""
        plans = plan_each([(entry.planner, logits_TK) for _, entry, logits_TK in decided])
        planned: list[tuple[int, list[float]]] = []
        failed: list[tuple[int, Exception]] = []
        for (ticket, entry, _), plan in zip(decided, plans, strict=True):
            try:
                planned.append((ticket, entry.work.enter_plan(plan, self._config)))
            except Exception as exc:  # whatever it is, it is this video's
                failed.append((ticket, exc))
        with self._changed:
            for ticket, widths in planned:
                self._flight.policy.plan(ticket, widths)
            left = [(entry, error) for ticket, error in failed for entry in self._flight.abandon([ticket])]
        for entry, error in left:
            entry.fail(error)


def _closed() -> OverloadedError:
    return OverloadedError("the scheduler is closed", retry_after_s=1.0)
