"""Whose turn it is: in order, to the deadline, and nobody left waiting when the networks close."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from sdcom.budget import choose_widths
from sdcom.cancellation import Cancellation
from sdcom.engine.backend import UInt8Array
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.composition import compose_video
from sdcom.engine.stream import CausalStream
from sdcom.engine.torch_backend import TorchBackend
from sdcom.engine.turns import OneByOne, Together, Turns
from sdcom.errors import DeadlineExceededError, OverloadedError
from sdcom.model import Model
from tests.sdcom.conftest import always, patterned_frames
from tests.sdcom.engine.alone import in_flight

BOTH: dict[str, Callable[[TorchBackend], Turns]] = {
    "one by one": OneByOne,
    "together": lambda backend: Together(backend, num_videos=3),
}


@pytest.fixture(params=BOTH)
def turns(request: pytest.FixtureRequest, tiny_model: Model) -> Iterator[Turns]:
    turns = BOTH[request.param](TorchBackend(tiny_model))
    yield turns
    turns.close()


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
    assert turns.backend.executed() == sum((answer.ledger.macs for answer in answers), Counter())


def test_other_work_runs_on_one_thread_and_its_error_is_its_callers(turns: Turns) -> None:
    idents = {turns.call(threading.get_ident) for _ in range(4)}
    assert len(idents) == 1
    assert idents != {threading.get_ident()}
    with pytest.raises(ZeroDivisionError):
        turns.call(lambda: 1 // 0)
    assert turns.call(lambda: "on") == "on"


def test_a_deadline_that_passes_while_others_compute_is_kept(turns: Turns, tiny_model: Model) -> None:
    begun, release = threading.Event(), threading.Event()

    def occupy() -> None:
        begun.set()
        release.wait(20)

    with ThreadPoolExecutor(2) as threads:
        threads.submit(turns.call, occupy)
        begun.wait(20)
        deadline = time.monotonic() + 0.05
        waiting = threads.submit(_composed, turns, patterned_frames(4, 0), _policy(tiny_model), deadline)
        while time.monotonic() <= deadline:
            time.sleep(0.01)
        release.set()
        assert isinstance(waiting.exception(20), DeadlineExceededError)


@contextmanager
def _full(turns: Turns, model: Model) -> Iterator[ThreadPoolExecutor]:
    """Have the networks busy, with no room for a video; yield threads to ask from."""
    begun, release = threading.Event(), threading.Event()

    def occupy() -> None:
        begun.set()
        release.wait(60)

    with ThreadPoolExecutor(8) as threads:
        threads.submit(turns.call, occupy)
        begun.wait(20)
        inside = [
            threads.submit(_composed, turns, patterned_frames(4, seed), _policy(model)) for seed in range(3)
        ]
        try:
            while isinstance(turns, Together) and in_flight(turns._scheduler).num_videos < 3:
                time.sleep(0.01)
            yield threads
        finally:
            release.set()
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
        turns = OneByOne(UnpreparedBackend(tiny_model))
        with ThreadPoolExecutor(1) as threads:
            for _ in range(2):
                assert isinstance(threads.submit(ask, turns).exception(20), BrokenThreadPool)
        turns.close()


def test_closing_ends_what_waits_and_refuses_what_comes(turns: Turns, tiny_model: Model) -> None:
    begun, release = threading.Event(), threading.Event()

    def occupy() -> str:
        begun.set()
        release.wait(20)
        return "was at work"

    with ThreadPoolExecutor(8) as threads:
        working = threads.submit(turns.call, occupy)
        begun.wait(20)
        clip, plan = patterned_frames(4, 0), always(tiny_model, [0] * 4)
        waiting: list[Future[str] | Future[Composed]] = [
            threads.submit(turns.call, lambda: "too late"),
            threads.submit(_composed, turns, clip, plan),
        ]
        closing = threads.submit(turns.close)
        release.set()
        closing.result(20)
        assert working.result(20) == "was at work"
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
