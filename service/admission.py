"""Who may come in, who waits, and who has his turn: bounded, first come first served, and closable."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sdcom.errors import OverloadedError

Answer = TypeVar("Answer")

SMOOTHING = 0.2  # weight of the newest service time in the running mean
FIRST_GUESS_S = 1.0  # service time of a video before the first has been measured


class Admission:
    """Bounds the requests in the house and runs their work on a fixed number of threads.

    A request is admitted before its body is read, so that the disk space of uploads is bounded too. Used
    from one event loop.

    Args:
        num_threads: turns at once: videos being decoded.
        queue_size: requests that may be uploading or waiting beyond those.
        max_wait_s: who would wait longer for a turn is refused at once, not after having waited in vain.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        num_threads: int,
        queue_size: int,
        *,
        max_wait_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="recognize")
        self._turns = asyncio.Semaphore(num_threads)
        self._num_threads = num_threads
        self._capacity = num_threads + queue_size
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._service_s = FIRST_GUESS_S
        self._empty = asyncio.Event()
        self._empty.set()
        self.closed = asyncio.Event()
        self.num_admitted = 0
        self._num_waiting = 0
        self._num_past_turn = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold one place in the house.

        Raises:
            OverloadedError: every place is taken, the wait would be too long, or the house is closed.
        """
        self._refuse_if_full()
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
        """How long a newcomer would wait for a turn, by the turns before him and what they took of late."""
        num_before = max(0, self.num_admitted - self._num_past_turn - self._num_threads + 1)
        return num_before * self._service_s / self._num_threads

    @property
    def expected_turn_s(self) -> float:
        """How long it takes until those who wait for a turn now, their uploads complete, have had it."""
        return self._num_waiting * self._service_s / self._num_threads

    def _refuse_if_full(self) -> None:
        if self.closed.is_set():
            raise draining_error()
        wait_s = self.expected_wait_s
        if self.num_admitted >= self._capacity or wait_s > self._max_wait_s:
            raise OverloadedError(
                f"{self.num_admitted} requests are being served or wait, all that there is room for "
                f"(SDCOM_QUEUE_SIZE, SDCOM_REQUEST_TIMEOUT_S); try again in about {wait_s:.0f} s",
                wait_s,
            )

    @contextmanager
    def past_turn(self) -> Iterator[None]:
        """Be one of those admitted who have had their turn, and whom no newcomer waits for any more."""
        self._num_past_turn += 1
        try:
            yield
        finally:
            self._num_past_turn -= 1

    async def run(self, begin: Callable[[], Callable[[], Answer]]) -> tuple[Answer, float]:
        """Wait for a turn, then run work on a thread; the turn is over when the work is.

        Args:
            begin: called on the loop once the turn has come; returns what the thread runs. What the work
                needs for itself, it takes here.

        A caller cancelled while waiting leaves the queue and its work never begins. Work that has begun
        cannot be stopped: it keeps its turn to its end, whoever still listens.

        Returns:
            What the work returned, and the seconds waited for the turn.
        """
        arrived = self._clock()
        self._num_waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._num_waiting -= 1
        began = self._clock()
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._begun(begin))
        running.add_done_callback(lambda _: self._turn_over(began))
        return await asyncio.shield(running), began - arrived

    def _begun(self, begin: Callable[[], Callable[[], Answer]]) -> Callable[[], Answer]:
        try:
            return begin()
        except BaseException:
            self._turns.release()
            raise

    def _turn_over(self, began: float) -> None:
        self._service_s += SMOOTHING * (self._clock() - began - self._service_s)
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


def draining_error() -> OverloadedError:
    """Return what newcomers are told while the service shuts down."""
    return OverloadedError("the service is shutting down; another replica, or a later try, will answer", 5.0)
