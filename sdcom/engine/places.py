"""Places for so many videos at once, given out first come, first served."""

import threading
import time
from collections import deque
from concurrent.futures import Future

from sdcom.cancellation import Cancellation
from sdcom.errors import DeadlineExceededError


class Places:
    """A line for places, which who is cancelled or too late leaves at once. For any thread.

    Args:
        num_places: given out at once.
    """

    def __init__(self, num_places: int) -> None:
        self._lock = threading.Lock()
        self._num_free = num_places
        self._line: deque[Future[None]] = deque()

    def take(self, deadline: float | None, cancellation: Cancellation | None) -> None:
        """Wait in line for a place.

        Args:
            deadline: `time.monotonic()` value after which it is not wanted.
            cancellation: ends the wait.

        Raises:
            DeadlineExceededError: the deadline passed first.
            CancelledError: it was cancelled first.
        """
        place = Future[None]()
        with self._lock:
            self._line.append(place)
            self._give_out()
        if cancellation is not None:
            cancellation.follow(place)
        try:
            place.result(left_s(deadline))
        except TimeoutError:
            if place.cancel():  # or it came at the last moment
                raise too_late() from None

    def give_back(self) -> None:
        """Let the next in line have a place that was taken."""
        with self._lock:
            self._num_free += 1
            self._give_out()

    def _give_out(self) -> None:
        while self._num_free and self._line:
            place = self._line.popleft()
            if place.set_running_or_notify_cancel():  # False for who has left the line
                self._num_free -= 1
                place.set_result(None)


def left_s(deadline: float | None) -> float | None:
    """Return how long a thread may wait for something that is wanted by the deadline; None is for ever."""
    if deadline is None:
        return None
    return min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)


def too_late() -> DeadlineExceededError:
    """Return the error of a video whose deadline passed before the networks had room for it."""
    return DeadlineExceededError("the deadline passed while waiting for room; allow a larger deadline_ms")
