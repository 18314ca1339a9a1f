"""The scheduler on real threads: same answers as frame by frame, and trouble stays with whom it concerns."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.budget import WidthPlan
from sdcom.engine.backend import Begun, Float32Array, Gathered, Picked, UInt8Array
from sdcom.engine.costs import MACHINES, Lane, Stage
from sdcom.engine.ledger import Part
from sdcom.engine.limits import Limits
from sdcom.engine.on_host import HostRoom
from sdcom.engine.queues import Batch
from sdcom.engine.scheduler import Scheduler
from sdcom.engine.work import lane_macs
from sdcom.errors import OverloadedError
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
    T,
    Turnstile,
    Watched,
    at_price,
    frames,
    metered,
)


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
def test_any_mix_of_videos_is_answered_as_each_alone_and_every_mac_is_a_ledgers_or_padding(
    videos: list[tuple[int, float]], limits: Limits, machine: str, num_in_hand: int
) -> None:
    clips = [frames(seed, num_frames) for seed, (num_frames, _) in enumerate(videos)]
    planners = [at_price(lam) for _, lam in videos]
    backend, batches, costs = metered(), list[Batch](), MACHINES[machine]
    with scheduling(
        backend,
        limits,
        costs=costs,
        num_in_hand=num_in_hand,
        on_batch=lambda batch, _: batches.append(batch),
    ) as scheduler:
        futures = [scheduler.submit(*video) for video in zip(clips, planners, strict=True)]
        answers = [future.result(WAIT_S) for future in futures]
        assert in_flight(scheduler).num_frames == 0
    for clip, planner, answer in zip(clips, planners, answers, strict=True):
        assert_same(answer, alone(clip, planner))
    padding = (lane_macs(batch.lane, batch.num_padding, MACS) for batch in batches)
    assert backend.executed() == sum((*(answer.ledger.macs for answer in answers), *padding), Counter[Part]())


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
    backend = metered()
    with scheduling(backend, limits) as scheduler:
        answer = scheduler.submit(frames(0), planned(4, 4, 0, 0, 0, 0)).result(WAIT_S)
    assert_same(answer, alone(frames(0), planned(4, 4, 0, 0, 0, 0)))
    assert backend.executed() - answer.ledger.macs == Counter(
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

    with scheduling(Watched(BACKEND, before), Limits(buckets=(16,))) as scheduler:
        scheduler.submit(frames(0, 6), at_price(0)).result(WAIT_S)
        scheduler.submit(frames(1, 2), at_price(0)).result(WAIT_S)
    for rows, seed, num_frames in zip(batches, (0, 1), (6, 2), strict=True):
        np.testing.assert_array_equal(rows[:num_frames], frames(seed, num_frames))
        assert not rows[num_frames:].any()


def test_every_batch_that_ran_is_told_of() -> None:
    batches: list[tuple[Batch, float]] = []
    with scheduling(BACKEND, on_batch=lambda *told: batches.append(told)) as scheduler:
        scheduler.submit(frames(0), planned(1, 1, 0, 0, 0, 0)).result(WAIT_S)
    assert [batch.lane.stage for batch, _ in batches] == [Stage.LOOK, Stage.DECIDE, Stage.FILL, Stage.FUSE]
    assert [batch.num_units for batch, _ in batches] == [T, 1, 2, 1]
    assert all(seconds > 0 for _, seconds in batches)


def test_the_backend_is_called_from_one_thread_however_many_batches_are_in_hand() -> None:
    threads: set[int] = set()

    def before(*_: object) -> None:
        threads.add(threading.get_ident())

    initializer = partial(before, None)
    with scheduling(Watched(BACKEND, before), num_in_hand=3, initializer=initializer) as scheduler:
        wait([scheduler.submit(frames(seed), at_price(0)) for seed in range(30)], WAIT_S)
    assert len(threads) == 1


class Ahead(HostRoom):
    """A room like a GPU's, that computes beside its caller: looks have begun at once, and end later."""

    def __init__(self, before_end: Callable[[], object]) -> None:
        super().__init__(BACKEND, CONFIG)
        self._before_end = before_end
        self.num_begun = 0

    def look(self, picked: Picked) -> Begun[None]:
        self.num_begun += 1

        def end() -> None:
            self._before_end()
            super(Ahead, self).look(picked)()

        return end


@pytest.mark.parametrize("num_in_hand", [1, 2, 3])
def test_while_the_device_computes_as_many_batches_have_begun_as_may_be_in_hand(num_in_hand: int) -> None:
    entrance, turnstile = Turnstile(0), Turnstile(0)
    room, limits = Ahead(turnstile), Limits(max_batch_frames=T)
    with Scheduler(room, CONFIG, limits, num_in_hand=num_in_hand, initializer=entrance) as scheduler:
        futures = [scheduler.submit(frames(seed), at_price(0)) for seed in range(4)]
        entrance.let_go()
        turnstile.wait_until_stopped()
        assert room.num_begun == num_in_hand
        assert in_flight(scheduler).num_waiting == {Lane(Stage.LOOK): (4 - num_in_hand) * T}
        turnstile.let_go()
        for seed, future in enumerate(futures):
            assert_same(future.result(WAIT_S), alone(frames(seed), at_price(0)))


def test_the_time_of_other_work_between_two_batches_in_hand_is_neithers() -> None:
    now_s, told, callers = [0.0], list[float](), list[threading.Thread]()

    def take_long() -> None:
        now_s[0] += 100

    def ask_once() -> None:
        if not callers:
            callers.append(threading.Thread(target=scheduler.call, args=(take_long,)))
            callers[0].start()
            until = time.monotonic() + WAIT_S
            while not scheduler._calls and time.monotonic() < until:
                time.sleep(0.001)

    entrance, limits = Turnstile(0), Limits(max_batch_frames=T)
    scheduler = Scheduler(
        Ahead(ask_once),
        CONFIG,
        limits,
        clock=lambda: now_s[0],
        num_in_hand=2,
        initializer=entrance,
        on_batch=lambda _, seconds: told.append(seconds),
    )
    with scheduler:
        futures = [scheduler.submit(frames(seed), at_price(0)) for seed in range(2)]
        entrance.let_go()
        wait(futures, WAIT_S)
        callers[0].join(WAIT_S)
    assert now_s == [100]
    assert set(told) == {0.0}


def test_work_for_the_schedulers_thread_that_is_asked_for_on_it_runs_at_once(scheduler: Scheduler) -> None:
    def planner(logits_TK: Float32Array) -> WidthPlan:
        assert scheduler.call(lambda: "at once") == "at once"
        return at_price(0)(logits_TK)

    assert_same(scheduler.submit(frames(0), planner).result(WAIT_S), alone(frames(0), at_price(0)))


def test_too_few_answers_are_a_failure_of_the_batch() -> None:
    class Forgetful(HostRoom):
        def conclude(self, gathered: Gathered) -> Begun[Float32Array]:
            end = super().conclude(gathered)
            return lambda: end()[:-1]

    with Scheduler(Forgetful(BACKEND, CONFIG), CONFIG) as scheduler:
        with pytest.raises(ValueError, match="0 rows came back of 1 videos"):
            scheduler.submit(frames(0), at_price(0)).result(WAIT_S)
        assert in_flight(scheduler).num_videos == 0


def test_beyond_two_batches_in_hand_what_is_not_full_waits_for_more_frames() -> None:
    entrance, turnstile = Turnstile(0), Turnstile(0)
    room, limits = Ahead(turnstile), Limits(max_batch_frames=T)
    with Scheduler(room, CONFIG, limits, num_in_hand=4, initializer=entrance) as scheduler:
        futures = [scheduler.submit(frames(seed, T if seed < 2 else 1), at_price(0)) for seed in range(4)]
        entrance.let_go()
        turnstile.wait_until_stopped()
        assert room.num_begun == 2
        assert in_flight(scheduler).num_waiting == {Lane(Stage.LOOK): 2}
        turnstile.let_go()
        assert not wait(futures, WAIT_S).not_done


# --- entering ---


def test_over_its_bound_the_scheduler_refuses_and_has_room_again_later() -> None:
    turnstile = Turnstile(0)
    limits = Limits(max_frames_in_flight=2 * T)
    with scheduling(Watched(BACKEND, turnstile), limits) as scheduler:
        inside = [scheduler.submit(frames(seed), at_price(0)) for seed in range(2)]
        with pytest.raises(OverloadedError, match=f"{2 * T} of at most {2 * T} frames"):
            scheduler.submit(frames(2), at_price(0))
        assert inside[1].cancel()
        inside[1] = scheduler.submit(frames(3), at_price(0))
        turnstile.let_go()
        assert wait(inside, WAIT_S).not_done == set()
        assert scheduler.submit(frames(2), at_price(0)).result(WAIT_S)


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
        Scheduler(HostRoom(BACKEND, config), config)


def test_what_could_never_run_is_refused() -> None:
    with pytest.raises(ValueError, match="in hand"):
        scheduling(BACKEND, num_in_hand=0)
    with pytest.raises(ValueError, match="never fits"):
        scheduling(BACKEND, Limits(max_frames_in_flight=T - 1))
