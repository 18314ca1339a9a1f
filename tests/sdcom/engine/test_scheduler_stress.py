"""Everything at once, from many threads: nothing stays in flight, and whoever stays is answered rightly."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from random import Random

import numpy as np
import pytest

from sdcom.engine.backend import Float32Array, UInt8Array
from sdcom.engine.composed import Composed
from sdcom.engine.costs import MACHINES, Stage
from sdcom.engine.ledger import Part
from sdcom.engine.limits import Limits
from sdcom.engine.places import Places
from sdcom.errors import DeadlineExceededError
from tests.sdcom.engine.alone import in_flight, scheduling
from tests.sdcom.engine.numpy_backend import NumpyBackend, T, at_price, frames, metered

NUM_VIDEOS, NUM_CALLERS, NUM_PLACES, WAIT_S = 120, 6, 10, 60
LIMITS = Limits(
    max_batch_frames=24,
    max_batch_videos=5,
    max_frames_in_flight=NUM_PLACES * T,
    buckets=(4, 8, 24),
    patience_s=0.01,
)


class Trouble:
    """Now and then a call fails, and now and then it does not fit; and a bystander cancels a video."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._lock = threading.Lock()
        self.futures: dict[int, Future[Composed]] = {}

    def __call__(self, stage: Stage, rows: Float32Array | UInt8Array) -> None:
        with self._lock:
            draw, victim = self._random.random(), self._random.randrange(NUM_VIDEOS)
        if draw < 0.2 and victim in self.futures:
            self.futures[victim].cancel()
        if draw < 0.1:
            raise RuntimeError("once in a while")
        if draw > 0.97:
            raise MemoryError


@pytest.mark.parametrize("num_in_hand", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_in_any_turmoil_every_future_ends_nothing_stays_and_answers_are_right(
    seed: int, num_in_hand: int
) -> None:
    trouble, random = Trouble(seed), Random(seed)
    clips = [frames(i % 20, random.randint(1, T)) for i in range(NUM_VIDEOS)]
    backend, costs, places = metered(trouble), MACHINES["h200"], Places(NUM_PLACES)
    with scheduling(backend, LIMITS, costs=costs, num_in_hand=num_in_hand) as scheduler:

        def submit(index: int) -> None:
            planner, deadline = at_price(index % 3), None if index % 10 else 0.0
            trouble.futures[index] = places.submit(
                lambda: scheduler.submit(clips[index], planner, deadline=deadline), deadline=deadline
            )

        with ThreadPoolExecutor(NUM_CALLERS) as callers:
            submitted = [callers.submit(submit, index) for index in range(NUM_VIDEOS)]
        late = [future for future in submitted if isinstance(future.exception(), DeadlineExceededError)]
        assert len(late) + len(trouble.futures) == NUM_VIDEOS
        assert not wait(trouble.futures.values(), WAIT_S).not_done
        load = in_flight(scheduler)
    answers = {index: future.result() for index, future in trouble.futures.items() if _was_answered(future)}
    assert answers, "some get through"
    assert (load.num_frames, load.num_videos, load.num_waiting) == (0, 0, {})
    answered = sum((answer.ledger.macs for answer in answers.values()), Counter[Part]())
    assert all(macs > answered[part] for part, macs in backend.executed().items()), "failures, and padding"
    _assert_right(answers, clips)


def _was_answered(future: Future[Composed]) -> bool:
    return not future.cancelled() and future.exception() is None


def _assert_right(answers: dict[int, Composed], clips: Sequence[UInt8Array]) -> None:
    with scheduling(NumpyBackend()) as peaceful:
        for index, answer in answers.items():
            expected = peaceful.submit(clips[index], at_price(index % 3)).result(WAIT_S)
            np.testing.assert_allclose(answer.logits_TL, expected.logits_TL, rtol=1e-4, atol=1e-5)
            assert answer.plan == expected.plan
            assert answer.ledger == expected.ledger
