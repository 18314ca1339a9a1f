"""The thread that calls the networks, for whoever wants something run on it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from typing import TypeVar

from sdcom.errors import OverloadedError

Answer = TypeVar("Answer")


def fulfil(answer: Future[Answer], work: Callable[[], Answer]) -> None:
    """End a future with what work returns or raises, unless it was cancelled before."""
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(work())
    except BaseException as exc:
        answer.set_exception(exc)


def submit_on(thread: ThreadPoolExecutor, work: Callable[[], Answer]) -> Future[Answer]:
    """Have work run on a thread when its turn comes, unless its future is cancelled before.

    Returns:
        A future of what the work returns; it ends with OverloadedError if the thread ends before the work's
        turn comes, or with BrokenThreadPool if it could not be prepared for any work.

    Raises:
        OverloadedError: the thread has ended.
        BrokenThreadPool: it could not be prepared for any work.
    """
    answer: Future[Answer] = Future()

    def end(place: Future[None]) -> None:
        never_ran = _closed() if place.cancelled() else place.exception()
        if never_ran is not None and answer.set_running_or_notify_cancel():
            answer.set_exception(never_ran)

    try:
        place = thread.submit(fulfil, answer, work)
    except BrokenThreadPool:
        raise
    except RuntimeError as exc:
        raise _closed() from exc
    place.add_done_callback(end)
    return answer


def result_on(thread: ThreadPoolExecutor, work: Callable[[], Answer]) -> Answer:
    """Run work on a thread when its turn comes; return what it returns.

    Raises:
        OverloadedError: the thread has ended, or ends before the work's turn comes.
        BrokenThreadPool: it could not be prepared for any work.
    """
    return submit_on(thread, work).result()


def _closed() -> OverloadedError:
    return OverloadedError("the networks are closed", retry_after_s=1.0)
