"""The line before the scheduler: in order, bounded, and left at once by who is too late or cancelled."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from sdcom.cancellation import Cancellation
from sdcom.engine.limits import Limits
from sdcom.engine.places import Places
from sdcom.errors import DeadlineExceededError, OverloadedError
from tests.sdcom.engine.alone import BACKEND, WAIT_S, alone, assert_same, in_flight, scheduling
from tests.sdcom.engine.numpy_backend import T, Turnstile, Watched, at_price, frames


def _line_up(
    places: Places,
    callers: ThreadPoolExecutor,
    begin: Callable[[], Future[int]],
    cancellation: Cancellation | None = None,
) -> Future[Future[int]]:
    """Have a thread wait in line; return once it does."""
    num_before = len(places._line)
    waiting = callers.submit(places.submit, begin, cancellation=cancellation)
    give_up_at = time.monotonic() + WAIT_S
    while len(places._line) == num_before:
        assert time.monotonic() < give_up_at
        time.sleep(0.001)
    return waiting


def test_who_came_first_is_first_and_a_place_is_held_until_its_work_is_done() -> None:
    places, begun = Places(1), list[int]()

    def begin(number: int) -> Future[int]:
        begun.append(number)
        return Future()

    work = places.submit(Future[int])
    with ThreadPoolExecutor(4) as callers:
        in_line = [_line_up(places, callers, partial(begin, number)) for number in range(4)]
        for number, waiting in enumerate(in_line):
            assert begun == list(range(number))
            work.set_result(0)
            work = waiting.result(WAIT_S)
    assert begun == [0, 1, 2, 3]


def test_a_place_whose_work_cannot_begin_or_is_cancelled_is_the_nexts() -> None:
    places, cancellation = Places(1), Cancellation()

    def fail() -> Future[int]:
        raise OverloadedError("closed", 1.0)

    for _ in range(2):
        with pytest.raises(OverloadedError, match="closed"):
            places.submit(fail)
    work = places.submit(Future[int], cancellation=cancellation)
    cancellation.cancel()
    assert work.cancelled()
    assert not places.submit(Future[int]).done()


def test_who_leaves_the_line_leaves_at_once_and_takes_no_place() -> None:
    places, cancellation = Places(1), Cancellation()
    work = places.submit(Future[int])
    with pytest.raises(DeadlineExceededError, match="waiting for room"):
        places.submit(Future[int], deadline=time.monotonic() + 0.01)
    with ThreadPoolExecutor(2) as callers:
        leaving = _line_up(places, callers, Future[int], cancellation)
        cancellation.cancel()
        assert leaving.result(WAIT_S).cancelled()
        staying = _line_up(places, callers, Future[int])
        work.set_result(0)
        assert not staying.result(WAIT_S).done()


def test_more_videos_than_the_scheduler_has_room_for_are_all_answered_and_its_bound_holds() -> None:
    most, places = [0], Places(2)

    def before(*_: object) -> None:
        most[0] = max(most[0], in_flight(crowded).num_frames)

    crowded = scheduling(Watched(BACKEND, before), Limits(max_frames_in_flight=2 * T))

    def answer(seed: int) -> None:
        future = places.submit(lambda: crowded.submit(frames(seed), at_price(0)))
        assert_same(future.result(WAIT_S), alone(frames(seed), at_price(0)))

    with crowded, ThreadPoolExecutor(8) as callers:
        for done in [callers.submit(answer, seed) for seed in range(24)]:
            done.result(WAIT_S)
    assert 0 < most[0] <= 2 * T


def test_who_waits_for_a_scheduler_that_closes_is_told() -> None:
    turnstile, places = Turnstile(0), Places(1)
    full = scheduling(Watched(BACKEND, turnstile), Limits(max_frames_in_flight=T))
    places.submit(lambda: full.submit(frames(0), at_price(0)))
    turnstile.wait_until_stopped()
    with ThreadPoolExecutor(2) as callers:
        waiting = callers.submit(places.submit, lambda: full.submit(frames(1), at_price(0)))
        closing = callers.submit(full.close)
        with pytest.raises(OverloadedError, match="closed"):
            waiting.result(WAIT_S)
        turnstile.let_go()
        closing.result(WAIT_S)
