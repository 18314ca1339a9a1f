"""Places for so many videos at once, given out first come, first served."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TypeVar

from sdcom.cancellation import Cancellation
from sdcom.errors import DeadlineExceededError

Answer = TypeVar("Answer")


class Places:
    """A line for places, which who is cancelled or too late leaves at once. For any thread.

    Args:
        num_places: given out at once.
    """

    def __init__(self, num_places: int) -> None:
        self._lock = threading.Lock()
        self._num_free = num_places
        self._line: deque[Future[None]] = deque()

    def submit(
        self,
        begin: Callable[[], Future[Answer]],
        *,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Future[Answer]:
        """Wait in line for a place, then begin, and hold the place until what was begun is done.

        Args:
            begin: called once, by this thread, in the place.
            deadline: `time.monotonic()` value after which a place is not wanted.
            cancellation: ends the wait, and then cancels what was begun.

        Returns:
            What `begin` returned; a cancelled future where the wait was ended.

        Raises:
            DeadlineExceededError: the deadline passed first.
            Exception: whatever `begin` raises.
        """
        try:
            self._take(deadline, cancellation)
        except CancelledError:
            return _cancelled()
        try:
            future = begin()
        except BaseException:
            self._give_back()
            raise
        future.add_done_callback(self._give_back)
        if cancellation is not None:
            cancellation.follow(future)
        return future

    def _take(self, deadline: float | None, cancellation: Cancellation | None) -> None:
        with self._lock:
            if self._num_free and not self._line:
                self._num_free -= 1
                return
            place = Future[None]()
            self._line.append(place)
        if cancellation is not None:
            cancellation.follow(place)
        try:
            place.result(left_s(deadline))
        except TimeoutError:
            if place.cancel():  # or it came at the last moment
                raise too_late() from None

    def _give_back(self, _done: Future[Answer] | None = None) -> None:
        with self._lock:
            self._num_free += 1
            while self._num_free and self._line:
                place = self._line.popleft()
                if place.set_running_or_notify_cancel():  # False for who has left the line
                    self._num_free -= 1
                    place.set_result(None)


def _cancelled() -> Future[Answer]:
    future = Future[Answer]()
    future.cancel()
    return future


def left_s(deadline: float | None) -> float | None:
    """Return how long a thread may wait for something that is wanted by the deadline; None is for ever."""
    if deadline is None:
        return None
    return min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)


def too_late() -> DeadlineExceededError:
    """Return the error of a video whose deadline passed before the networks had room for it."""
    return DeadlineExceededError("the deadline passed while waiting for room; allow a larger deadline_ms")
