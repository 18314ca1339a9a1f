"""Work done ahead: in order, no further ahead than asked, and over when its user is gone."""

import threading
import time
from collections.abc import Iterator

import pytest

from training.data.prefetch import map_ahead


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_results_come_in_the_order_of_the_batches(num_threads: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.01 if item % 3 == 0 else 0)
        return item * item

    batches = [[0, 1, 2], [3], [], [4, 5]]
    assert list(map_ahead(slow_first, batches, num_threads=num_threads)) == [[0, 1, 4], [9], [], [16, 25]]


@pytest.mark.parametrize("num_threads", [0, 2])
def test_an_error_comes_when_its_batch_is_due(num_threads: int) -> None:
    results = map_ahead(lambda item: 1 // item, [[1], [2], [0], [3]], num_threads=num_threads)
    assert next(results) == [1]
    assert next(results) == [0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_it_reads_as_far_ahead_as_asked_and_no_further() -> None:
    taken = []

    def batches() -> Iterator[list[int]]:
        for number in range(100):
            taken.append(number)
            yield [number]

    results = map_ahead(lambda item: item, batches(), num_threads=1, num_ahead=3)
    for number in range(5):
        assert next(results) == [number]
        assert len(taken) == number + 4


def test_closing_it_ends_its_threads() -> None:
    before = threading.active_count()
    results = map_ahead(lambda item: item, ([number] for number in range(1000)), num_threads=4)
    next(results)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert threading.active_count() == before
