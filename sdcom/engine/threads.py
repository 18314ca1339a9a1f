"""The thread that calls the networks, for whoever wants something run on it."""

from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TypeVar

from sdcom.errors import OverloadedError

Answer = TypeVar("Answer")


def result_on(thread: ThreadPoolExecutor, work: Callable[[], Answer]) -> Answer:
    """Run work on a thread when its turn comes; return what it returns.

    Raises:
        OverloadedError: the thread has ended, or ends before the work's turn comes.
    """
    try:
        running = thread.submit(work)
    except RuntimeError as exc:
        raise _closed() from exc
    try:
        return running.result()
    except CancelledError as exc:
        raise _closed() from exc


def _closed() -> OverloadedError:
    return OverloadedError("the networks are closed", retry_after_s=1.0)
