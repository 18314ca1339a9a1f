"""Who may come in, who waits, and who has his turn: bounded, first come first served, and closable."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sdcom.engine.service_time import ServiceTime
from sdcom.errors import OverloadedError
from service.errors import whole_seconds

Answer = TypeVar("Answer")

FIRST_GUESS_S = 1.0  # what a turn takes, before the first has been measured


class Admission:
    """Bounds the requests in the house and runs their work on a fixed number of threads.

    A request is admitted before its body is read, so that the disk space of uploads is bounded too. Used
    from one event loop.

    Nobody is worked on in vain, as far as can be foreseen from what turns took of late. Whose answer would
    come after his deadline is refused at once, and dropped at his turn if that took longer to come than was
    expected; but only where others wait, because an estimate that is too high would else never be put right.

    Args:
        num_threads: turns at once: videos being decoded.
        queue_size: requests that may be uploading or waiting beyond those.
        clock: monotonic seconds; deadlines are values of it.
    """

    def __init__(
        self,
        num_threads: int,
        queue_size: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="recognize")
        self._turns = asyncio.Semaphore(num_threads)
        self._num_threads = num_threads
        self._capacity = num_threads + queue_size
        self._clock = clock
        self._turn, self._rest = ServiceTime(), ServiceTime()
        self._empty = asyncio.Event()
        self._empty.set()
        self.closed = asyncio.Event()
        self.num_admitted = 0
        self._num_waiting = 0
        self._num_at_work = 0
        self._num_past_turn = 0

    @contextmanager
    def admitted(self, deadline: float = math.inf) -> Iterator[None]:
        """Hold one place in the house.

        Args:
            deadline: after which the answer is not wanted.

        Raises:
            OverloadedError: every place is taken, the answer would come too late, or the house is closed.
        """
        self._refuse_if_full()
        if self.expected_wait_s > 0 and self._turn.mean_s > 0:  # a guess is no ground for refusal
            self._refuse_if_late(deadline, self.expected_wait_s)
        self.num_admitted += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.num_admitted -= 1
            if self.num_admitted == 0:
                self._empty.set()

    @property
    def expected_wait_s(self) -> float:
        """How long a newcomer would wait for a turn, by the turns before him and what they took of late.

        Who is still uploading stands before nobody: a slow upload says nothing about the work.
        """
        num_before = max(0, self._num_waiting + self._num_at_work - self._num_threads + 1)
        return num_before * self._turn_s / self._num_threads

    @property
    def expected_turn_s(self) -> float:
        """How long it takes until those who wait for a turn now, their uploads complete, have had it."""
        return self._num_waiting * self._turn_s / self._num_threads

    @property
    def _turn_s(self) -> float:
        return self._turn.mean_s or FIRST_GUESS_S

    def _refuse_if_full(self) -> None:
        if self.closed.is_set():
            raise draining_error()
        if self.num_admitted < self._capacity:
            return
        num_before = max(0, self.num_admitted - self._num_past_turn - self._num_threads + 1)
        wait_s = num_before * self._turn_s / self._num_threads  # once all of their uploads are complete
        raise OverloadedError(
            f"{self.num_admitted} requests are being served or wait, all that there is room for "
            f"(SDCOM_QUEUE_SIZE); try again in about {whole_seconds(wait_s)} s",
            wait_s,
        )

    def _refuse_if_late(self, deadline: float, wait_s: float) -> None:
        takes_s = wait_s + self._turn.most_s + self._rest.most_s
        if self._clock() + takes_s > deadline:
            raise OverloadedError(
                f"the answer would take about {_in_words(takes_s)}, longer than is left "
                "(deadline_ms, SDCOM_REQUEST_TIMEOUT_S); "
                f"try again in about {whole_seconds(self.expected_wait_s)} s",
                self.expected_wait_s,
            )

    @contextmanager
    def past_turn(self) -> Iterator[None]:
        """Be one of those admitted who have had their turn, and whom no newcomer waits for any more.

        How long it took counts for the estimates only if it was gone through to its end.
        """
        began = self._clock()
        self._num_past_turn += 1
        try:
            yield
            self._rest.add(self._clock() - began)
        finally:
            self._num_past_turn -= 1

    async def run(
        self, begin: Callable[[], Callable[[], Answer]], deadline: float = math.inf
    ) -> tuple[Answer, float]:
        """Wait for a turn, then run work on a thread; the turn is over when the work is.

        Args:
            begin: called on the loop once the turn has come; returns what the thread runs. What the work
                needs for itself, it takes here.
            deadline: after which the answer is not wanted.

        A caller cancelled while waiting leaves the queue and its work never begins. Work that has begun
        cannot be stopped: it keeps its turn to its end, whoever still listens.

        Returns:
            What the work returned, and the seconds waited for the turn.

        Raises:
            OverloadedError: the turn came too late for an answer by the deadline, and others wait.
        """
        arrived = self._clock()
        self._num_waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._num_waiting -= 1
        began = self._clock()
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._begun(begin, deadline))
        self._num_at_work += 1
        running.add_done_callback(lambda work: self._turn_over(work, began))
        return await asyncio.shield(running), began - arrived

    def _begun(self, begin: Callable[[], Callable[[], Answer]], deadline: float) -> Callable[[], Answer]:
        try:
            if self._num_waiting:
                self._refuse_if_late(deadline, 0.0)
            return begin()
        except BaseException:
            self._turns.release()
            raise

    def _turn_over(self, work: asyncio.Future[Answer], began: float) -> None:
        if not work.cancelled() and work.exception() is None:  # a broken file's milliseconds are no turn
            self._turn.add(self._clock() - began)
        self._num_at_work -= 1
        self._turns.release()

    def close(self) -> None:
        """Refuse newcomers from now on."""
        self.closed.set()

    async def emptied(self, timeout_s: float) -> bool:
        """Wait until everyone admitted has left; False if `timeout_s` passed first."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def join(self) -> None:
        """Wait for work that has begun, and end the threads."""
        self._threads.shutdown()


def _in_words(seconds: float) -> str:
    """Return a duration as people say it: in whole milliseconds, at least one, below a second."""
    return f"{max(1.0, seconds * 1e3):.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def draining_error() -> OverloadedError:
    """Return what newcomers are told while the service shuts down."""
    return OverloadedError("the service is shutting down; another replica, or a later try, will answer", 5.0)
