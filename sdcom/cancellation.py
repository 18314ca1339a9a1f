"""A caller's word that its answer is not wanted any more, for work that spans threads."""

import threading
from concurrent.futures import CancelledError, Future
from typing import Any


class Cancellation:
    """Given along with a piece of work; `cancel` ends it at its next step. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._future: Future[Any] | None = None

    def cancel(self) -> None:
        """Say that the answer is not wanted; nothing happens if it is there already."""
        with self._lock:
            self._is_cancelled, future = True, self._future
        if future is not None:
            future.cancel()

    def follow(self, future: Future[Any]) -> None:
        """Cancel this future, which holds the rest of the work, with the caller, or now if he has gone."""
        with self._lock:
            self._future, is_cancelled = future, self._is_cancelled
        if is_cancelled:
            future.cancel()

    def check(self) -> None:
        """Go on only for a caller who still waits.

        Raises:
            CancelledError: he does not.
        """
        if self._is_cancelled:
            raise CancelledError
