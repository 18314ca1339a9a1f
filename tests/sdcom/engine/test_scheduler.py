"""The scheduler on real threads: same answers as frame by frame, and trouble stays with whom it concerns."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.budget import WidthPlan
from sdcom.engine.backend import Float32Array, UInt8Array
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.costs import MACHINES, Lane, Stage
from sdcom.engine.ledger import Ledger, Part
from sdcom.engine.limits import Limits
from sdcom.engine.queues import Batch
from sdcom.engine.scheduler import Scheduler
from sdcom.engine.work import Work
from sdcom.errors import DeadlineExceededError, OverloadedError
from tests.sdcom.engine.numpy_backend import (
    CONFIG,
    MACS,
    NumpyBackend,
    T,
    Turnstile,
    Watched,
    at_price,
    frames,
)

BACKEND = NumpyBackend()
NUM_WIDTHS = CONFIG.num_widths
WAIT_S = 60


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    with Scheduler(BACKEND, CONFIG) as running:
        yield running


def planned(*choices: int) -> Planner:
    plan = WidthPlan(choices, 0.0, sum(MACS.dynamic_by_choice[choice] for choice in choices))
    return lambda _: plan


def alone(frames_THWC: UInt8Array, planner: Planner) -> Composed:
    """Compose in the plainest way: the backend's functions, frame by frame."""
    backend, num_frames = BACKEND, len(frames_THWC)
    looks = [backend.look(frame_NHWC) for frame_NHWC in frames_THWC[:, None]]
    logits_BTK, _ = backend.decide(np.stack([look.embeddings_NE for look in looks], axis=1))
    plan = planner(logits_BTK[0])
    z_TF = np.zeros((num_frames, CONFIG.fusion_features), dtype=np.float32)
    for position, choice in enumerate(plan.choices):
        filled_ND = np.zeros((1, 1280), dtype=np.float32)
        if choice > 0:
            filled_ND = backend.fill(frames_THWC[position : position + 1], CONFIG.widths[choice])
        z_TF[position] = backend.fuse(looks[position].features_ND, filled_ND)[0]
    logits_TL = backend.classify(np.maximum.accumulate(z_TF)[None])[0]
    ledger = Ledger(MACS.baseline(num_frames), lam=plan.lam)
    ledger.width_counts.update(CONFIG.widths[choice] for choice in plan.choices)
    ledger.macs.update(
        {
            Part.STATIC: num_frames * MACS.static,
            Part.GATE: num_frames * MACS.gate,
            Part.DYNAMIC: plan.macs,
            Part.FUSION: num_frames * MACS.fusion,
        }
    )
    return Composed(logits_TL, plan, ledger)


def assert_same(composed: Composed, expected: Composed) -> None:
    np.testing.assert_allclose(composed.logits_TL, expected.logits_TL, rtol=1e-4, atol=1e-5)
    assert composed.plan.choices == expected.plan.choices
    assert composed.ledger == expected.ledger


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, T), st.sampled_from([0.0, 0.5, 2.0, 9.0])), min_size=1, max_size=12),
    st.builds(
        Limits,
        max_batch_frames=st.integers(1, 20),
        max_batch_videos=st.integers(1, 5),
        max_frames_in_flight=st.just(100),
        buckets=st.sampled_from([(), (4, 8), (16,)]),
    ),
    st.sampled_from(["cpu", "h200"]),
    st.integers(1, 3),
)
def test_any_mix_of_videos_is_answered_as_each_alone_and_every_mac_is_in_the_books(
    videos: list[tuple[int, float]], limits: Limits, machine: str, num_in_hand: int
) -> None:
    clips = [frames(seed, num_frames) for seed, (num_frames, _) in enumerate(videos)]
    planners = [at_price(lam) for _, lam in videos]
    costs = MACHINES[machine]
    with Scheduler(BACKEND, CONFIG, limits, costs=costs, num_in_hand=num_in_hand) as scheduler:
        futures = [scheduler.submit(*video) for video in zip(clips, planners, strict=True)]
        answers = [future.result(WAIT_S) for future in futures]
        work = scheduler.work()
        assert scheduler.load().num_frames == 0
    for clip, planner, answer in zip(clips, planners, answers, strict=True):
        assert_same(answer, alone(clip, planner))
    assert sum((answer.ledger.macs for answer in answers), Counter[Part]()) == work.macs
    assert not work.failed_macs
    assert not work.abandoned_macs
    assert bool(work.padded_macs.total()) == bool(work.num_padding.total())


def test_the_gate_really_chooses_several_widths() -> None:
    """Guards the other tests: one width for every frame would hide mix-ups."""
    choices = {choice for seed in range(12) for choice in alone(frames(seed), at_price(0)).plan.choices}
    assert len(choices) == NUM_WIDTHS


def test_every_part_is_timed_and_a_batch_is_shared_out(scheduler: Scheduler) -> None:
    stage_s = scheduler.submit(frames(0), planned(*[0] * T)).result(WAIT_S).stage_s
    assert list(stage_s) == list(Part)
    assert stage_s[Part.DYNAMIC] == 0
    assert all(stage_s[part] > 0 for part in (Part.STATIC, Part.GATE, Part.FUSION))


def test_rows_that_fill_a_bucket_are_counted_as_padding_and_belong_to_no_video() -> None:
    limits = Limits(max_batch_frames=8, max_batch_videos=8, buckets=(8,))
    with Scheduler(BACKEND, CONFIG, limits) as scheduler:
        answer = scheduler.submit(frames(0), planned(4, 4, 0, 0, 0, 0)).result(WAIT_S)
        work = scheduler.work()
    assert_same(answer, alone(frames(0), planned(4, 4, 0, 0, 0, 0)))
    assert work.num_padding == Counter({Stage.LOOK: 8 - T, Stage.DECIDE: 7, Stage.FILL: 6, Stage.FUSE: 7})
    assert work.padded_macs == Counter(
        {
            Part.STATIC: 2 * MACS.static,
            Part.GATE: 2 * (MACS.gate - MACS.gate_step) + 7 * T * MACS.gate_step,
            Part.DYNAMIC: 6 * MACS.dynamic[1.0],
            Part.FUSION: 7 * T * MACS.fusion,
        }
    )


def test_padding_is_black_and_never_another_videos_frames() -> None:
    batches: list[Float32Array | UInt8Array] = []

    def before(stage: Stage, rows: Float32Array | UInt8Array) -> None:
        if stage is Stage.LOOK:
            batches.append(rows.copy())

    with Scheduler(Watched(BACKEND, before), CONFIG, Limits(buckets=(16,))) as scheduler:
        scheduler.submit(frames(0, 6), at_price(0)).result(WAIT_S)
        scheduler.submit(frames(1, 2), at_price(0)).result(WAIT_S)
    for rows, seed, num_frames in zip(batches, (0, 1), (6, 2), strict=True):
        np.testing.assert_array_equal(rows[:num_frames], frames(seed, num_frames))
        assert not rows[num_frames:].any()


def test_every_batch_that_ran_is_told_of() -> None:
    batches: list[tuple[Batch, float]] = []
    with Scheduler(BACKEND, CONFIG, on_batch=lambda *told: batches.append(told)) as scheduler:
        scheduler.submit(frames(0), planned(1, 1, 0, 0, 0, 0)).result(WAIT_S)
        work = scheduler.work()
    assert Counter(batch.lane.stage for batch, _ in batches) == work.num_batches
    assert [batch.num_units for batch, _ in batches] == [T, 1, 2, 1]
    assert all(seconds > 0 for _, seconds in batches)


def test_the_backend_is_called_from_one_thread_however_many_batches_are_in_hand() -> None:
    threads: set[int] = set()

    def before(*_: object) -> None:
        threads.add(threading.get_ident())

    initializer = partial(before, None)
    with Scheduler(Watched(BACKEND, before), CONFIG, num_in_hand=3, initializer=initializer) as scheduler:
        wait([scheduler.submit(frames(seed), at_price(0)) for seed in range(30)], WAIT_S)
    assert len(threads) == 1


def test_while_the_device_computes_another_batch_is_made_ready() -> None:
    """The second batch is chosen while the first is stopped on the device: its frames wait in no lane."""
    turnstile = Turnstile(0)
    limits = Limits(max_batch_frames=T)
    with Scheduler(Watched(BACKEND, turnstile), CONFIG, limits, num_in_hand=2) as scheduler:
        futures = [scheduler.submit(frames(seed), at_price(0)) for seed in range(3)]
        turnstile.wait_until_stopped()
        give_up_at = time.monotonic() + WAIT_S
        while scheduler.load().num_waiting != {Lane(Stage.LOOK): T}:
            assert time.monotonic() < give_up_at
            time.sleep(0.001)
        turnstile.let_go()
        for seed, future in enumerate(futures):
            assert_same(future.result(WAIT_S), alone(frames(seed), at_price(0)))


# --- leaving ---


async def test_a_coroutine_that_stops_waiting_cancels_its_video() -> None:
    turnstile = Turnstile(0)
    with Scheduler(Watched(BACKEND, turnstile), CONFIG) as scheduler:
        waiting = asyncio.wrap_future(scheduler.submit(frames(0), at_price(0)))
        waiting.cancel()
        await asyncio.sleep(0)  # the loop passes it on
        assert scheduler.load().num_videos == 0
        turnstile.let_go()


@pytest.mark.parametrize("stop_at", range(6))
def test_a_video_may_be_cancelled_at_every_point_and_the_others_never_notice(stop_at: int) -> None:
    """Two videos in the same six batches: looks, decisions, fills at three widths, fusion."""
    entrance, turnstile = Turnstile(0), Turnstile(stop_at)
    plans = (planned(0, 1, 2, 3, 0, 1), planned(1, 1, 2, 2, 3, 3))
    with Scheduler(Watched(BACKEND, turnstile), CONFIG, initializer=entrance) as scheduler:
        stays, leaves = (scheduler.submit(frames(seed), plan) for seed, plan in enumerate(plans))
        entrance.let_go()
        turnstile.wait_until_stopped()
        assert leaves.cancel()
        assert wait([leaves], WAIT_S).done
        turnstile.let_go()
        answer = stays.result(WAIT_S)
        work = scheduler.work()
        assert scheduler.load().num_frames == 0
    assert_same(answer, alone(frames(0), plans[0]))
    with pytest.raises(CancelledError):
        leaves.result()
    assert work.macs == answer.ledger.macs + work.abandoned_macs
    assert work.num_batches.total() == 6


def test_cancelling_what_is_done_changes_nothing(scheduler: Scheduler) -> None:
    future = scheduler.submit(frames(0), at_price(0))
    answer = future.result(WAIT_S)
    assert not future.cancel()
    assert future.result() is answer


def test_a_deadline_that_passes_ends_a_video_before_more_of_it_is_computed() -> None:
    now_s = [0.0]
    turnstile = Turnstile(0)
    backend = Watched(BACKEND, turnstile)
    with Scheduler(backend, CONFIG, clock=lambda: now_s[0]) as scheduler:
        hurried = scheduler.submit(frames(0), at_price(0), deadline=5.0)
        patient = scheduler.submit(frames(1), at_price(0), deadline=50.0)
        turnstile.wait_until_stopped()
        now_s[0] = 6.0
        turnstile.let_go()
        with pytest.raises(DeadlineExceededError, match="deadline_ms"):
            hurried.result(WAIT_S)
        assert_same(patient.result(WAIT_S), alone(frames(1), at_price(0)))
        work = scheduler.work()
    assert work.abandoned_macs[Part.STATIC] == T * MACS.static
    assert not work.abandoned_macs[Part.DYNAMIC]


def test_closing_ends_everything_in_flight_and_refuses_what_comes() -> None:
    turnstile = Turnstile(1)
    scheduler = Scheduler(Watched(BACKEND, turnstile), CONFIG)
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
    scheduler = Scheduler(BACKEND, CONFIG)
    future = scheduler.submit(frames(0), at_price(0))
    closed = threading.Event()

    def close(_: Future[Composed]) -> None:
        scheduler.close()
        closed.set()

    future.add_done_callback(close)
    assert closed.wait(WAIT_S)
    scheduler.close()


# --- failing ---


def breaking(breaks: Callable[[Stage, Float32Array | UInt8Array], Exception | None]) -> Watched:
    """Return a backend that raises what `breaks` returns."""

    def before(stage: Stage, rows: Float32Array | UInt8Array) -> None:
        if error := breaks(stage, rows):
            raise error

    return Watched(BACKEND, before)


def run_three(backend: Watched, planner: Planner, limits: Limits | None = None) -> tuple[list[object], Work]:
    """Run three videos, the second one black; return answers or errors, and the scheduler's work."""
    entrance = Turnstile(0)  # so that all three are there before the first batch
    with Scheduler(backend, CONFIG, limits, costs=MACHINES["h200"], initializer=entrance) as scheduler:
        clips = [frames(0), np.zeros_like(frames(1)), frames(2)]
        futures = [scheduler.submit(clip, planner) for clip in clips]
        entrance.let_go()
        outcomes: list[object] = [future.exception(WAIT_S) or future.result() for future in futures]
        return outcomes, scheduler.work()


def test_a_poisoned_video_fails_alone_and_its_batch_is_counted_as_failed() -> None:
    def breaks(stage: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        black = stage is Stage.LOOK and not rows.any(axis=(1, 2, 3)).all()
        return RuntimeError("cannot look at black") if black else None

    (one, black, other), work = run_three(breaking(breaks), at_price(0), Limits(max_batch_frames=32))
    assert isinstance(black, RuntimeError)
    for answer, seed in ((one, 0), (other, 2)):
        assert isinstance(answer, Composed)
        assert_same(answer, alone(frames(seed), at_price(0)))
    assert work.failed_macs[Part.STATIC] == (3 + 1) * T * MACS.static, "together, and once more alone"


@pytest.mark.parametrize("stage", Stage, ids=lambda stage: stage.label)
def test_a_backend_that_fails_once_costs_nobody_an_answer(stage: Stage) -> None:
    failures = [RuntimeError("once")]

    def breaks(now: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        return failures.pop() if now is stage and failures else None

    planner = planned(1, 1, 1, 1, 1, 1)
    outcomes, work = run_three(breaking(breaks), planner, Limits(max_batch_frames=32))
    assert all(isinstance(outcome, Composed) for outcome in outcomes)
    assert work.failed_macs


def test_a_backend_that_always_fails_fails_every_video_and_the_scheduler_lives_on() -> None:
    broken = [True]

    def breaks(stage: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        return RuntimeError("no device") if broken[0] else None

    with Scheduler(breaking(breaks), CONFIG) as scheduler:
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
    assert scheduler.load().num_frames == 0


def test_a_backend_that_answers_too_few_rows_fails_the_video() -> None:
    class Short(NumpyBackend):
        def fill(self, frames_NHWC: UInt8Array, width: float) -> Float32Array:
            return super().fill(frames_NHWC, width)[:-1]

    with Scheduler(Short(), CONFIG) as scheduler, pytest.raises(ValueError, match="1 rows of 2"):
        scheduler.submit(frames(0), planned(1, 1, 0, 0, 0, 0)).result(WAIT_S)


def test_running_out_of_memory_halves_the_batch_for_good() -> None:
    sizes: list[int] = []

    def breaks(stage: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        if stage is not Stage.LOOK:
            return None
        sizes.append(len(rows))
        return MemoryError() if len(rows) > 5 else None

    outcomes, work = run_three(breaking(breaks), at_price(0), Limits(max_batch_frames=16))
    assert all(isinstance(outcome, Composed) for outcome in outcomes)
    assert sizes == [16, 8, 4, 4, 4, 4, 2]
    assert work.failed_macs[Part.STATIC] == 24 * MACS.static


def test_a_frame_that_never_fits_fails_its_video_alone() -> None:
    def breaks(stage: Stage, rows: Float32Array | UInt8Array) -> Exception | None:
        never = stage is Stage.LOOK and not rows.any(axis=(1, 2, 3)).all()
        return MemoryError("too black") if never else None

    outcomes, _ = run_three(breaking(breaks), at_price(0), Limits(max_batch_frames=16))
    assert [isinstance(outcome, MemoryError) for outcome in outcomes] == [False, True, False]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_if_the_thread_itself_breaks_nobody_waits_for_it() -> None:
    turnstile = Turnstile(0)

    def broken() -> None:
        turnstile()
        raise RuntimeError("no such device")

    scheduler = Scheduler(BACKEND, CONFIG, initializer=broken)
    future = scheduler.submit(frames(0), at_price(0))
    turnstile.let_go()
    with pytest.raises(RuntimeError, match="no such device"):
        future.result(WAIT_S)
    scheduler.close()
    with pytest.raises(OverloadedError):
        scheduler.submit(frames(0), at_price(0))


# --- entering ---


def test_over_its_bound_the_scheduler_refuses_and_has_room_again_later() -> None:
    turnstile = Turnstile(0)
    limits = Limits(max_frames_in_flight=2 * T)
    with Scheduler(Watched(BACKEND, turnstile), CONFIG, limits) as scheduler:
        inside = [scheduler.submit(frames(seed), at_price(0)) for seed in range(2)]
        with pytest.raises(OverloadedError, match=f"{2 * T} of at most {2 * T} frames"):
            scheduler.submit(frames(2), at_price(0))
        assert inside[1].cancel()
        inside[1] = scheduler.submit(frames(3), at_price(0))
        turnstile.let_go()
        assert wait(inside, WAIT_S).not_done == set()
        assert scheduler.submit(frames(2), at_price(0)).result(WAIT_S)


def test_in_line_more_videos_than_fit_are_all_answered_and_the_bound_holds() -> None:
    limits = Limits(max_frames_in_flight=2 * T)
    most = [0]

    def before(*_: object) -> None:
        most[0] = max(most[0], crowded.load().num_frames)

    crowded = Scheduler(Watched(BACKEND, before), CONFIG, limits)
    with crowded, ThreadPoolExecutor(8) as callers:
        futures = [callers.submit(crowded.submit_in_line, frames(i), at_price(0)) for i in range(24)]
        for seed, future in enumerate(futures):
            assert_same(future.result(WAIT_S).result(WAIT_S), alone(frames(seed), at_price(0)))
    assert 0 < most[0] <= 2 * T


def test_whoever_waits_in_line_is_told_when_the_deadline_passes_or_the_scheduler_closes() -> None:
    turnstile = Turnstile(0)
    full = Scheduler(Watched(BACKEND, turnstile), CONFIG, Limits(max_frames_in_flight=T))
    full.submit(frames(0), at_price(0))
    turnstile.wait_until_stopped()
    with pytest.raises(DeadlineExceededError, match="waiting for room"):
        full.submit_in_line(frames(1), at_price(0), deadline=time.monotonic() + 0.01)
    with ThreadPoolExecutor(2) as callers:
        waiting = callers.submit(full.submit_in_line, frames(1), at_price(0))
        closing = callers.submit(full.close)
        with pytest.raises(OverloadedError, match="closed"):
            waiting.result(WAIT_S)
        turnstile.let_go()
        closing.result(WAIT_S)


@pytest.mark.parametrize(
    "clip",
    [
        frames(0)[:0],
        np.concatenate((frames(0), frames(1))),
        frames(0)[:, :16],
        frames(0).astype(np.float32),
    ],
    ids=["none", "too many", "too small", "not bytes"],
)
def test_frames_that_are_not_the_models_are_refused_at_once(scheduler: Scheduler, clip: UInt8Array) -> None:
    with pytest.raises(ValueError, match="frames"):
        scheduler.submit(clip, at_price(0))


def test_a_model_with_temporal_shift_is_refused() -> None:
    config = CONFIG.model_copy(
        update={"temporal_shift": True, "clip": CONFIG.clip.model_copy(update={"order": "time"})}
    )
    with pytest.raises(ValueError, match="temporal shift"):
        Scheduler(BACKEND, config)


def test_what_could_never_run_is_refused() -> None:
    with pytest.raises(ValueError, match="in hand"):
        Scheduler(BACKEND, CONFIG, num_in_hand=0)
    with pytest.raises(ValueError, match="never fits"):
        Scheduler(BACKEND, CONFIG, Limits(max_frames_in_flight=T - 1))
