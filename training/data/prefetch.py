"""Work done ahead of its use, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    function: Callable[[_Item], _Result],
    batches: Iterable[Sequence[_Item]],
    *,
    num_threads: int,
    num_ahead: int = 2,
) -> Iterator[list[_Result]]:
    """Yield the results of each batch's items, in order, while threads work on the batches that follow.

    Args:
        function: called in threads; must not depend on the order of calls.
        batches: consumed `num_ahead` batches ahead.
        num_threads: 0 calls the function in the caller's thread, when its results are asked for.
        num_ahead: batches begun beyond the one that is waited for.

    Raises:
        Exception: whatever the function raises, once its batch's turn has come.
    """
    if num_threads == 0:
        yield from ([function(item) for item in batch] for batch in batches)
        return
    threads = ThreadPoolExecutor(num_threads, thread_name_prefix="read-ahead")
    try:
        waiting: deque[list[Future[_Result]]] = deque()
        submitted = ([threads.submit(function, item) for item in batch] for batch in batches)
        waiting.extend(islice(submitted, num_ahead))
        for futures in submitted:
            waiting.append(futures)
            yield [future.result() for future in waiting.popleft()]
        for futures in waiting:
            yield [future.result() for future in futures]
    finally:
        threads.shutdown(cancel_futures=True)
