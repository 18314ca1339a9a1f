"""Whose turn it is: in order, to the deadline, and nobody left waiting when the networks close."""

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures.thread import BrokenThreadPool
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import pytest

from sdcom.budget import WidthPlan, choose_widths
from sdcom.cancellation import Cancellation
from sdcom.engine.backend import Looked, Room, UInt8Array
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.composition import compose_video
from sdcom.engine.dense_backend import DenseBackend
from sdcom.engine.dense_room import DenseRoom
from sdcom.engine.stream import CausalStream
from sdcom.engine.torch_backend import TorchBackend
from sdcom.engine.turns import Apart, Together, Turns, turns_for
from sdcom.errors import DeadlineExceededError, OverloadedError, SettingsError
from sdcom.model import Model
from sdcom.recognition import Provider
from tests.sdcom.conftest import always, patterned_frames
from tests.sdcom.engine.alone import in_flight

WAYS: dict[str, Callable[[TorchBackend], Turns]] = {
    "one by one": Apart,
    "side by side": lambda backend: Apart(backend, num_workers=3),
    "together": lambda backend: Together(backend, num_videos=3),
}


@pytest.fixture(params=WAYS)
def turns(request: pytest.FixtureRequest, tiny_model: Model) -> Iterator[Turns]:
    turns = WAYS[request.param](TorchBackend(tiny_model))
    yield turns
    turns.close()


@contextmanager
def _occupied(turns: Turns, threads: ThreadPoolExecutor) -> Iterator[list[Future[str]]]:
    """Keep every thread of the networks busy."""
    num_threads = turns._workers._max_workers if isinstance(turns, Apart) else 1
    begun, release = threading.Barrier(num_threads + 1), threading.Event()

    def occupy() -> str:
        begun.wait(20)
        release.wait(60)
        return "was at work"

    working = [threads.submit(turns.call, occupy) for _ in range(num_threads)]
    try:
        begun.wait(20)
        yield working
    finally:
        release.set()


def _policy(model: Model) -> Planner:
    macs_K = model.info.macs.dynamic_by_choice
    return lambda logits_TK: choose_widths(logits_TK, macs_K, 0.0)


def _composed(
    turns: Turns, frames_THWC: UInt8Array, planner: Planner, deadline: float | None = None
) -> Composed:
    return turns.submit(frames_THWC, planner, deadline=deadline).result()


def test_every_video_gets_its_own_answer_whoever_asks_with_it(turns: Turns, tiny_model: Model) -> None:
    plan = _policy(tiny_model)
    clips = [patterned_frames(4, seed) for seed in range(12)]
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda clip: turns.submit(clip, plan).result(), clips))
    for clip, answer in zip(clips, answers, strict=True):
        expected = compose_video(TorchBackend(tiny_model), clip, plan)
        assert (answer.plan, answer.ledger) == (expected.plan, expected.ledger)
        np.testing.assert_allclose(answer.logits_TL, expected.logits_TL, rtol=0, atol=1e-4)
        if isinstance(turns, Apart):
            np.testing.assert_array_equal(answer.logits_TL, expected.logits_TL)
    assert turns.backend.executed() == sum((answer.ledger.macs for answer in answers), Counter())


def test_as_many_videos_are_computed_at_once_as_there_are_workers(tiny_model: Model) -> None:
    all_three = threading.Barrier(3)

    class MeetingBackend(TorchBackend):
        def look(self, frames_NHWC: UInt8Array) -> Looked:
            all_three.wait(20)
            return super().look(frames_NHWC)

    turns = Apart(MeetingBackend(tiny_model), num_workers=3)
    answers = [turns.submit(patterned_frames(4, seed), _policy(tiny_model)) for seed in range(3)]
    assert all(answer.result(20) for answer in answers)
    turns.close()


def test_several_workers_are_refused_where_one_thread_calls_the_networks(tiny_model: Model) -> None:
    with pytest.raises(SettingsError, match="torch-cpu in batches: 2 network workers"):
        turns_for(TorchBackend(tiny_model), True, num_videos=3, num_workers=2)


@pytest.mark.parametrize("batching", [None, False])
def test_several_workers_are_refused_on_a_gpu(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch, batching: bool | None
) -> None:
    on_gpu = Provider("torch-cuda-mixed", "2.13", "NVIDIA H100")
    monkeypatch.setattr(TorchBackend, "provider", on_gpu)
    with pytest.raises(SettingsError, match=r"torch-cuda-mixed.*2 network workers"):
        turns_for(TorchBackend(tiny_model), batching, num_videos=3, num_workers=2)


def test_other_work_runs_on_the_networks_threads_and_its_error_is_its_callers(turns: Turns) -> None:
    with ThreadPoolExecutor(4) as threads, _occupied(turns, threads) as working:
        idents = [threads.submit(turns.call, threading.get_ident) for _ in range(12)]
    assert len({ident.result(20) for ident in idents}) <= len(working)
    assert threading.get_ident() not in {ident.result() for ident in idents}
    with pytest.raises(ZeroDivisionError):
        turns.call(lambda: 1 // 0)
    assert turns.call(lambda: "on") == "on"


def test_a_deadline_that_passes_while_others_compute_is_kept(turns: Turns, tiny_model: Model) -> None:
    with ThreadPoolExecutor(4) as threads, _occupied(turns, threads):
        deadline = time.monotonic() + 0.05
        waiting = threads.submit(_composed, turns, patterned_frames(4, 0), _policy(tiny_model), deadline)
        while time.monotonic() <= deadline:
            time.sleep(0.01)
    assert isinstance(waiting.exception(20), DeadlineExceededError)


@contextmanager
def _full(turns: Turns, model: Model) -> Iterator[ThreadPoolExecutor]:
    """Have the networks busy, with no room for a video; yield threads to ask from."""
    with ThreadPoolExecutor(8) as threads:
        with _occupied(turns, threads):
            inside = [
                threads.submit(_composed, turns, patterned_frames(4, seed), _policy(model))
                for seed in range(3)
            ]
            while isinstance(turns, Together) and in_flight(turns._scheduler).num_videos < 3:
                time.sleep(0.01)
            yield threads
        for each in inside:
            each.result(20)
    turns.submit(patterned_frames(4, 0), _policy(model)).result(20)  # there is room again


def test_who_waits_for_room_leaves_at_his_deadline(turns: Turns, tiny_model: Model) -> None:
    with _full(turns, tiny_model) as threads:
        deadline = time.monotonic() + 0.05
        waiting = threads.submit(_composed, turns, patterned_frames(4, 0), _policy(tiny_model), deadline)
        assert isinstance(waiting.exception(20), DeadlineExceededError)


def test_who_waits_for_room_leaves_when_he_is_cancelled(turns: Turns, tiny_model: Model) -> None:
    cancellation = Cancellation()
    with _full(turns, tiny_model) as threads:
        waiting = threads.submit(
            turns.submit, patterned_frames(4, 0), _policy(tiny_model), cancellation=cancellation
        )
        cancellation.cancel()
        assert waiting.result(20).cancelled()


def test_a_thread_that_cannot_be_prepared_fails_whoever_asks(tiny_model: Model) -> None:
    class UnpreparedBackend(TorchBackend):
        def prepare_thread(self) -> None:
            raise RuntimeError("no threads today")

    for ask in (
        lambda turns: turns.call(lambda: 0),
        lambda turns: _composed(turns, patterned_frames(4, 0), _policy(tiny_model)),
    ):
        turns = Apart(UnpreparedBackend(tiny_model))
        with ThreadPoolExecutor(1) as threads:
            for _ in range(2):
                assert isinstance(threads.submit(ask, turns).exception(20), BrokenThreadPool)
        turns.close()


def test_closing_ends_what_waits_and_refuses_what_comes(turns: Turns, tiny_model: Model) -> None:
    clip, plan = patterned_frames(4, 0), always(tiny_model, [0] * 4)
    with ThreadPoolExecutor(8) as threads:
        with _occupied(turns, threads) as working:
            waiting: list[Future[str] | Future[Composed]] = [
                threads.submit(turns.call, lambda: "too late"),
                threads.submit(_composed, turns, clip, plan),
            ]
            closing = threads.submit(turns.close)
        closing.result(20)
        assert {each.result(20) for each in working} == {"was at work"}
        for future in waiting:
            assert future.exception(20) is None or isinstance(future.exception(), OverloadedError)
    for ask in (lambda: turns.call(lambda: 0), lambda: turns.submit(clip, plan)):
        with pytest.raises(OverloadedError, match="closed"):
            ask()


def test_what_runs_for_a_video_that_fails_is_counted(turns: Turns, tiny_model: Model) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no plan today")

    with pytest.raises(RuntimeError, match="no plan today"):
        turns.submit(patterned_frames(4, 0), fail).result()  # type: ignore[arg-type]  # it raises
    macs = tiny_model.info.macs
    assert turns.backend.executed().total() == 4 * (macs.static + macs.gate)


def test_streams_are_counted_as_their_answers_say(turns: Turns, tiny_model: Model) -> None:
    stream = CausalStream(turns.backend, lam=0.0)
    frames_THWC = patterned_frames(9, 0)  # the window slides after four
    steps = [turns.call(partial(stream.push, frame_HWC)) for frame_HWC in frames_THWC]
    ledgers = [step.ledger.macs for step in steps]
    assert turns.backend.executed() == sum(ledgers, Counter())
    assert any(step.width > 0 for step in steps)


def test_measuring_and_warming_up_are_not_counted(tiny_model: Model) -> None:
    turns = Together(TorchBackend(tiny_model), num_videos=3)
    assert turns.backend.executed().total() == 0
    turns.close()


@pytest.mark.parametrize("for_batches", [False, True], ids=["for its room", "for batches beside it"])
def test_where_memory_is_short_fewer_videos_are_in_flight(tiny_model: Model, for_batches: bool) -> None:
    tried = list[int]()

    class SmallBackend(TorchBackend):
        def open_room(self, num_videos: int, /) -> Room:
            tried.append(num_videos)
            self._check(is_short=num_videos > (6 if for_batches else 3))
            return super().open_room(num_videos)

        def look(self, frames_NHWC: UInt8Array) -> Looked:
            self._check(is_short=tried[-1] > 3)
            return super().look(frames_NHWC)

        def _check(self, *, is_short: bool) -> None:
            if is_short:
                raise MemoryError

    turns = Together(SmallBackend(tiny_model), num_videos=13)
    assert tried == [13, 6, 3]
    assert len([answer.result(20) for answer in _answers(turns, 8)]) == 8
    turns.close()


# --- leaving a device's memory ---

NUM_ROWS = 4


def _answers(turns: Together, count: int = NUM_ROWS) -> list[Future[Composed]]:
    deadline = time.monotonic() + 20  # a row that was lost is missed long before patience ends
    planner = _unlimited(turns)
    return [turns.submit(patterned_frames(4, seed), planner, deadline=deadline) for seed in range(count)]


def _unlimited(turns: Together) -> Planner:
    macs_K = turns.backend.info.macs.dynamic_by_choice
    return lambda logits_TK: choose_widths(logits_TK, macs_K, 0.0)


def _fail(_: object) -> WidthPlan:
    raise ValueError("no plan for this one")


def _answered(turns: Together) -> None:
    wait(_answers(turns), 20)


def _planless(turns: Together) -> None:
    futures = [turns.submit(patterned_frames(4, seed), _fail) for seed in range(NUM_ROWS)]
    assert all(isinstance(future.exception(20), ValueError) for future in futures)


def _poisoned(turns: Together) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def broken(*_: object) -> None:
            raise RuntimeError("a kernel failed")

        patch.setattr(DenseRoom, "conclude", broken)
        assert all(isinstance(future.exception(20), RuntimeError) for future in _answers(turns))


def _cancelled(turns: Together) -> None:
    for future in _answers(turns):
        future.cancel()


def _expired(turns: Together) -> None:
    for seed in range(NUM_ROWS):
        with suppress(DeadlineExceededError, OverloadedError):
            turns.submit(patterned_frames(4, seed), _fail, deadline=time.monotonic() + 1e-4)


@pytest.mark.parametrize("leave", [_answered, _planless, _poisoned, _cancelled, _expired])
def test_however_videos_leave_a_devices_memory_has_room_for_as_many_again(
    tiny_model: Model, leave: Callable[[Together], None]
) -> None:
    """Without the garbage collector: an idle service allocates nothing, so none may come."""
    dense = DenseBackend(tiny_model, device="cpu", precision="fp32")
    turns = Together(dense, num_videos=NUM_ROWS)
    gc.disable()
    try:
        for _ in range(2):
            leave(turns)
            assert all(future.exception(20) is None for future in _answers(turns))
    finally:
        gc.enable()
        turns.close()
