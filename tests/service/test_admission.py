"""Turns, the queue, and the end."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sdcom.errors import OverloadedError
from service.admission import Admission
from service.errors import retry_after_s


@pytest.fixture
def admission() -> Iterator[Admission]:
    admission = Admission(num_threads=1, queue_size=1)
    yield admission
    admission.join()


def returning(value: str) -> Callable[[], Callable[[], str]]:
    return lambda: lambda: value


async def test_turns_come_in_the_order_of_arrival(admission: Admission) -> None:
    begun: list[int] = []

    def begin(number: int) -> Callable[[], None]:
        begun.append(number)
        return lambda: None

    await asyncio.gather(*(admission.run(lambda number=number: begin(number)) for number in range(20)))  # type: ignore[misc]  # a default argument
    assert begun == list(range(20))


async def test_the_wait_for_a_turn_is_measured() -> None:
    now = 100.0
    admission = Admission(num_threads=1, queue_size=1, clock=lambda: now)
    opened = threading.Event()
    busy = asyncio.create_task(admission.run(lambda: opened.wait))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(admission.run(returning("done")))
    await asyncio.sleep(0)
    now += 5
    opened.set()
    assert (await busy)[1] == 0
    assert await waiting == ("done", 5)
    admission.join()


async def test_a_full_house_refuses_and_says_when_to_come_back(admission: Admission) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(admission.admitted())
        with pytest.raises(OverloadedError) as caught, admission.admitted():
            pass
        assert caught.value.retry_after_s > 0
    with admission.admitted():
        assert admission.num_admitted == 1


async def test_the_time_to_come_back_follows_the_service_time() -> None:
    seconds = iter(range(0, 1000, 10))  # every look at the clock is ten seconds later
    admission = Admission(num_threads=1, queue_size=0, clock=lambda: float(next(seconds)))
    for _ in range(30):
        await admission.run(returning("slow"))
    with admission.admitted(), pytest.raises(OverloadedError) as caught, admission.admitted():
        pass
    assert caught.value.retry_after_s == pytest.approx(10, rel=0.1)
    admission.join()


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def taking(self, seconds: float) -> Callable[[], Callable[[], None]]:
        def work() -> None:
            self.now_s += seconds

        return lambda: work


async def timed(clock: Clock, *, turn_s: float, rest_s: float) -> Admission:
    """Return a house of one thread that has seen many take exactly so long."""
    admission = Admission(num_threads=1, queue_size=99, clock=clock)
    for _ in range(100):
        await admission.run(clock.taking(turn_s))
        with admission.past_turn():
            clock.now_s += rest_s
    clock.now_s = 0.0
    return admission


@asynccontextmanager
async def before(admission: Admission, num_before: int) -> AsyncIterator[None]:
    """Have so many take their turn or wait for it."""
    opened = threading.Event()
    calls = [asyncio.create_task(admission.run(lambda: opened.wait)) for _ in range(num_before)]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        opened.set()
        await asyncio.gather(*calls)


@given(num_before=st.integers(1, 9), left_s=st.floats(0, 200))
async def test_whose_answer_would_come_after_his_deadline_is_refused_at_once(
    num_before: int, left_s: float
) -> None:
    admission = await timed(Clock(), turn_s=10, rest_s=5)
    takes_s = 10 * num_before + 10 + 5
    assume(abs(left_s / takes_s - 1) > 0.01)
    async with before(admission, num_before):
        if left_s > takes_s:
            with admission.admitted(left_s):
                pass
        else:
            with pytest.raises(OverloadedError, match="deadline_ms") as caught, admission.admitted(left_s):
                pass
            assert caught.value.retry_after_s == pytest.approx(10 * num_before, rel=0.01)
    admission.join()


@pytest.mark.parametrize(
    ("turn_s", "takes", "again"),
    [
        (0.0001, "about 1 ms,", "in about 1 s"),
        (0.06, "about 120 ms,", "in about 1 s"),
        (1.4, r"about 2\.8 s,", "in about 2 s"),
    ],
)
async def test_short_times_are_told_in_words_that_mean_something(
    turn_s: float, takes: str, again: str
) -> None:
    admission = await timed(Clock(), turn_s=turn_s, rest_s=0)
    async with before(admission, 1):
        with pytest.raises(OverloadedError, match=f"{takes}.*{again}$") as caught, admission.admitted(0):
            pass
        assert again == f"in about {retry_after_s(caught.value)} s", "as the header says"
    admission.join()


async def test_a_house_full_of_uploads_does_not_say_to_try_again_at_once(admission: Admission) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(admission.admitted())
        await admission.run(returning("quick"))
        with pytest.raises(OverloadedError, match=r"in about 1 s$"), admission.admitted():
            pass


async def test_slow_uploads_alone_make_nobody_late() -> None:
    clock = Clock()
    admission = Admission(num_threads=2, queue_size=64, clock=clock)
    for _ in range(20):
        await admission.run(clock.taking(0.1))
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(admission.admitted(clock.now_s + 60))
        assert admission.expected_wait_s == 0
        async with before(admission, 1):  # the other thread is free
            with admission.admitted(clock.now_s + 0.15):
                pass
    admission.join()


async def test_only_work_gone_through_to_its_end_counts_as_a_turn() -> None:
    clock = Clock()
    admission = await timed(clock, turn_s=10, rest_s=5)

    def rejecting() -> None:
        clock.now_s += 0.001
        raise ValueError("a broken file")

    async def leave() -> None:
        with admission.past_turn():
            clock.now_s += 0.001
            raise asyncio.CancelledError

    for _ in range(50):
        with pytest.raises(ValueError, match="broken"):
            await admission.run(lambda: rejecting)
        with pytest.raises(asyncio.CancelledError):
            await leave()
    async with before(admission, 1):
        assert admission.expected_wait_s == pytest.approx(10, rel=0.01)
        with pytest.raises(OverloadedError, match="deadline_ms"), admission.admitted(clock.now_s + 24):
            pass
    admission.join()


async def test_nobody_is_refused_for_an_estimate_while_no_one_waits_and_it_is_put_right() -> None:
    clock = Clock()
    admission = await timed(clock, turn_s=1000, rest_s=0)
    for _ in range(100):
        with admission.admitted(clock.now_s + 20):
            assert (await admission.run(clock.taking(10), clock.now_s + 20))[1] == 0
    async with before(admission, 1):
        with admission.admitted(clock.now_s + 21):
            pass
    admission.join()


async def test_nobody_is_refused_for_lateness_before_a_turn_has_been_measured(admission: Admission) -> None:
    async with before(admission, 1):
        with admission.admitted(deadline=0.0):
            assert admission.expected_wait_s > 0


async def test_whose_turn_comes_too_late_is_dropped_for_those_who_wait_but_not_the_last() -> None:
    clock = Clock()
    admission = await timed(clock, turn_s=10, rest_s=5)
    opened, begun = threading.Event(), list[str]()

    def begin(name: str) -> Callable[[], None]:
        begun.append(name)
        return lambda: None

    busy = asyncio.create_task(admission.run(lambda: opened.wait))
    await asyncio.sleep(0)
    deadlines = {"hopeless": 24.0, "in time": 26.0, "hopeless too": 24.0, "hopeless and last": 24.0}
    waiting = [
        asyncio.create_task(admission.run(lambda name=name: begin(name), deadline))  # type: ignore[misc]  # a default argument
        for name, deadline in deadlines.items()
    ]
    await asyncio.sleep(0)
    clock.now_s = 10.0
    opened.set()
    await busy
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert begun == ["in time", "hopeless and last"]
    assert [isinstance(each, OverloadedError) for each in ended] == [True, False, True, False]
    admission.join()


async def test_work_given_up_while_waiting_never_begins(admission: Admission) -> None:
    opened = threading.Event()
    busy = asyncio.create_task(admission.run(lambda: opened.wait))
    await asyncio.sleep(0)
    begun: list[str] = []
    waiting = asyncio.create_task(admission.run(lambda: lambda: begun.append("never")))
    await asyncio.sleep(0.01)
    waiting.cancel()
    opened.set()
    await busy
    await admission.run(returning("next"))
    assert begun == []


async def test_work_given_up_half_way_keeps_its_turn_to_the_end(admission: Admission) -> None:
    opened = threading.Event()
    given_up = asyncio.create_task(admission.run(lambda: opened.wait))
    await asyncio.sleep(0.01)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    following = asyncio.create_task(admission.run(returning("next")))
    await asyncio.sleep(0.05)
    assert not following.done()
    opened.set()
    assert (await following)[0] == "next"


async def test_work_that_fails_gives_its_turn_back(admission: Admission) -> None:
    def broken() -> Callable[[], str]:
        raise ValueError("cannot begin")

    def failing() -> str:
        raise ValueError("cannot go on")

    for begin in (broken, lambda: failing):
        with pytest.raises(ValueError, match="cannot"):
            await admission.run(begin)
    assert (await admission.run(returning("next")))[0] == "next"


async def test_a_closed_house_takes_nobody_and_empties(admission: Admission) -> None:
    with admission.admitted():
        admission.close()
        assert not await admission.emptied(0.01)
        with pytest.raises(OverloadedError, match="shutting down"), admission.admitted():
            pass
    assert await admission.emptied(0.01)


async def test_only_those_who_wait_for_a_turn_make_a_newcomer_wait_for_his() -> None:
    admission = Admission(num_threads=1, queue_size=8)
    opened = threading.Event()
    with contextlib.ExitStack() as stack:
        for _ in range(5):  # still uploading
            stack.enter_context(admission.admitted())
        assert admission.expected_turn_s == admission.expected_wait_s == 0
        calls = [asyncio.create_task(admission.run(lambda: opened.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        assert admission.expected_turn_s > 0
        calls[2].cancel()
        opened.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert admission.expected_turn_s == 0
    admission.join()
