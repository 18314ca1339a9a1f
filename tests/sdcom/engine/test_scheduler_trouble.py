"""Whoever leaves or fails does so alone: cancelled, expired, closed, poisoned, out of memory."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait

import numpy as np
import pytest

from sdcom.budget import WidthPlan
from sdcom.engine.backend import PATIENCE_S, Float32Array, Held, Parts, UInt8Array
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.costs import MACHINES, Stage
from sdcom.engine.ledger import Part
from sdcom.engine.limits import Limits
from sdcom.engine.metered import Metered
from sdcom.engine.on_host import HostRoom
from sdcom.engine.queues import Batch
from sdcom.engine.scheduler import Scheduler
from sdcom.errors import DeadlineExceededError, OverloadedError
from tests.sdcom.engine.alone import (
    BACKEND,
    NUM_WIDTHS,
    WAIT_S,
    alone,
    assert_same,
    in_flight,
    planned,
    scheduling,
)
from tests.sdcom.engine.numpy_backend import (
    CONFIG,
    MACS,
    NumpyBackend,
    T,
    Turnstile,
    Watched,
    at_price,
    frames,
    metered,
)

# --- leaving ---


async def test_a_coroutine_that_stops_waiting_cancels_its_video() -> None:
    turnstile = Turnstile(0)
    with scheduling(Watched(BACKEND, turnstile)) as scheduler:
        waiting = asyncio.wrap_future(scheduler.submit(frames(0), at_price(0)))
        waiting.cancel()
        await asyncio.sleep(0)  # the loop passes it on
        assert in_flight(scheduler).num_videos == 0
        turnstile.let_go()


@pytest.mark.parametrize("stop_at", range(6))
def test_a_video_may_be_cancelled_at_every_point_and_the_others_never_notice(stop_at: int) -> None:
    """Two videos in the same six batches: looks, decisions, fills at three widths, fusion."""
    entrance, turnstile = Turnstile(0), Turnstile(stop_at)
    plans = (planned(0, 1, 2, 3, 0, 1), planned(1, 1, 2, 2, 3, 3))
    batches: list[Batch] = []
    with scheduling(
        Watched(BACKEND, turnstile),
        initializer=entrance,
        on_batch=lambda batch, _: batches.append(batch),
    ) as scheduler:
        stays, leaves = (scheduler.submit(frames(seed), plan) for seed, plan in enumerate(plans))
        entrance.let_go()
        turnstile.wait_until_stopped()
        assert leaves.cancel()
        assert wait([leaves], WAIT_S).done
        turnstile.let_go()
        answer = stays.result(WAIT_S)
        assert in_flight(scheduler).num_frames == 0
    assert_same(answer, alone(frames(0), plans[0]))
    with pytest.raises(CancelledError):
        leaves.result()
    assert len(batches) == 6


def test_cancelling_what_is_done_changes_nothing(scheduler: Scheduler) -> None:
    future = scheduler.submit(frames(0), at_price(0))
    answer = future.result(WAIT_S)
    assert not future.cancel()
    assert future.result() is answer


def test_a_deadline_that_passes_ends_a_video_before_more_of_it_is_computed() -> None:
    now_s = [0.0]
    turnstile = Turnstile(0)
    backend = metered(turnstile)
    with scheduling(backend, clock=lambda: now_s[0]) as scheduler:
        hurried = scheduler.submit(frames(0), at_price(0), deadline=5.0)
        patient = scheduler.submit(frames(1), at_price(0), deadline=50.0)
        turnstile.wait_until_stopped()
        now_s[0] = 6.0
        turnstile.let_go()
        with pytest.raises(DeadlineExceededError, match="deadline_ms"):
            hurried.result(WAIT_S)
        answer = patient.result(WAIT_S)
    assert_same(answer, alone(frames(1), at_price(0)))
    assert backend.executed()[Part.STATIC] == 2 * T * MACS.static
    assert backend.executed()[Part.DYNAMIC] == answer.ledger.macs[Part.DYNAMIC]


def test_closing_ends_everything_in_flight_and_refuses_what_comes() -> None:
    turnstile = Turnstile(1)
    scheduler = scheduling(Watched(BACKEND, turnstile))
    futures = [scheduler.submit(frames(seed), at_price(0)) for seed in range(5)]
    turnstile.wait_until_stopped()
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    for future in futures:
        with pytest.raises(OverloadedError, match="closed"):
            future.result(WAIT_S)
    assert closing.is_alive(), "the batch that runs is waited for"
    turnstile.let_go()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    with pytest.raises(OverloadedError, match="closed"):
        scheduler.submit(frames(0), at_price(0))
    scheduler.close()


def test_closing_from_a_callback_does_not_hang() -> None:
    scheduler = scheduling()
    future = scheduler.submit(frames(0), at_price(0))
    closed = threading.Event()

    def close(_: Future[Composed]) -> None:
        scheduler.close()
        closed.set()

    future.add_done_callback(close)
    assert closed.wait(WAIT_S)
    scheduler.close()


# --- failing ---


def breaking(breaks: Callable[[Stage, Float32Array | UInt8Array], Exception | None]) -> Metered:
    """Return a backend that raises what `breaks` returns."""

    def before(stage: Stage, rows: Float32Array | UInt8Array) -> None:
        if error := breaks(stage, rows):
            raise error

    return metered(before)


def run_three(backend: Parts, planner: Planner, limits: Limits | None = None) -> list[object]:
    """Run three videos, the second one black; return answers or errors."""
    entrance = Turnstile(0)  # so that all three are there before the first batch
    with scheduling(backend, limits, costs=MACHINES["h200"], initializer=entrance) as scheduler:
        clips = [frames(0), np.zeros_like(frames(1)), frames(2)]
        futures = [scheduler.submit(clip, planner) for clip in clips]
        entrance.let_go()
        return [future.exception(WAIT_S) or future.result() for future in futures]


def test_a_poisoned_video_fails_alone_and_what_ran_for_nothing_is_counted() -> None:
    def breaks(stage: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        black = stage is Stage.LOOK and not rows.any(axis=(1, 2, 3)).all()
        return RuntimeError("cannot look at black") if black else None

    backend = breaking(breaks)
    one, black, other = run_three(backend, at_price(0), Limits(max_batch_frames=32))
    assert isinstance(black, RuntimeError)
    for answer, seed in ((one, 0), (other, 2)):
        assert isinstance(answer, Composed)
        assert_same(answer, alone(frames(seed), at_price(0)))
    assert backend.executed()[Part.STATIC] == 2 * 3 * T * MACS.static, "together, and once more alone"


@pytest.mark.parametrize("stage", Stage, ids=lambda stage: stage.label)
def test_a_backend_that_fails_once_costs_nobody_an_answer(stage: Stage) -> None:
    failures = [RuntimeError("once")]

    def breaks(now: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        return failures.pop() if now is stage and failures else None

    planner = planned(1, 1, 1, 1, 1, 1)
    outcomes = run_three(breaking(breaks), planner, Limits(max_batch_frames=32))
    assert all(isinstance(outcome, Composed) for outcome in outcomes)
    assert not failures, "it did fail"


def test_a_backend_that_always_fails_fails_every_video_and_the_scheduler_lives_on() -> None:
    broken = [True]

    def breaks(stage: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        return RuntimeError("no device") if broken[0] else None

    with scheduling(breaking(breaks)) as scheduler:
        for future in [scheduler.submit(frames(seed), at_price(0)) for seed in range(4)]:
            assert isinstance(future.exception(WAIT_S), RuntimeError)
        broken[0] = False
        assert_same(scheduler.submit(frames(0), at_price(0)).result(WAIT_S), alone(frames(0), at_price(0)))


@pytest.mark.parametrize(
    "planner",
    [planned(0), lambda _: WidthPlan((NUM_WIDTHS,) * T, 0.0, 0), lambda _: WidthPlan((), 1 / 0, 0)],
    ids=["too short", "unknown width", "raises"],
)
def test_a_bad_planner_fails_its_own_video_alone(scheduler: Scheduler, planner: Planner) -> None:
    bad, good = scheduler.submit(frames(0), planner), scheduler.submit(frames(1), at_price(0))
    assert isinstance(bad.exception(WAIT_S), ValueError | ZeroDivisionError)
    assert_same(good.result(WAIT_S), alone(frames(1), at_price(0)))
    assert in_flight(scheduler).num_frames == 0


def test_a_backend_that_answers_too_few_rows_fails_the_video() -> None:
    class Short(NumpyBackend):
        def fill(self, frames_NHWC: UInt8Array, width: float) -> Float32Array:
            return super().fill(frames_NHWC, width)[:-1]

    with (
        scheduling(Short()) as scheduler,
        pytest.raises(ValueError, match="1 rows of 2"),
    ):
        scheduler.submit(frames(0), planned(1, 1, 0, 0, 0, 0)).result(WAIT_S)


def test_running_out_of_memory_halves_the_batch_for_good() -> None:
    sizes: list[int] = []

    def breaks(stage: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        if stage is not Stage.LOOK:
            return None
        sizes.append(len(rows))
        return MemoryError() if len(rows) > 5 else None

    backend = breaking(breaks)
    outcomes = run_three(backend, at_price(0), Limits(max_batch_frames=16))
    assert all(isinstance(outcome, Composed) for outcome in outcomes)
    assert sizes == [16, 8, 4, 4, 4, 4, 2]
    assert backend.executed()[Part.STATIC] == sum(sizes) * MACS.static, "those that did not fit, too"


def test_a_frame_that_never_fits_fails_its_video_alone() -> None:
    def breaks(stage: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        never = stage is Stage.LOOK and not rows.any(axis=(1, 2, 3)).all()
        return MemoryError("too black") if never else None

    outcomes = run_three(breaking(breaks), at_price(0), Limits(max_batch_frames=16))
    assert [isinstance(outcome, MemoryError) for outcome in outcomes] == [False, True, False]


class Choosy(HostRoom):
    """A room that takes no black videos in."""

    def hold(self, frames_THWC: UInt8Array, patience_s: float = PATIENCE_S) -> Held:
        if not frames_THWC.any():
            raise MemoryError("no room for one more video")
        return super().hold(frames_THWC, patience_s)


def test_a_video_that_cannot_be_brought_is_not_taken_in_and_leaves_nothing_behind() -> None:
    with Scheduler(Choosy(BACKEND, CONFIG), CONFIG, Limits(max_frames_in_flight=2 * T)) as scheduler:
        first = scheduler.submit(frames(0), at_price(0))
        with pytest.raises(MemoryError, match="one more video"):
            scheduler.submit(np.zeros_like(frames(1)), at_price(0))
        answers = [first.result(WAIT_S), scheduler.submit(frames(2), at_price(0)).result(WAIT_S)]
    for answer, seed in zip(answers, (0, 2), strict=True):
        assert_same(answer, alone(frames(seed), at_price(0)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_if_the_thread_itself_breaks_nobody_waits_for_it() -> None:
    turnstile = Turnstile(0)

    def broken() -> None:
        turnstile()
        raise RuntimeError("no such device")

    scheduler = scheduling(BACKEND, initializer=broken)
    future = scheduler.submit(frames(0), at_price(0))
    turnstile.let_go()
    with pytest.raises(RuntimeError, match="no such device"):
        future.result(WAIT_S)
    scheduler.close()
    with pytest.raises(OverloadedError):
        scheduler.submit(frames(0), at_price(0))
