"""The governor on a clock of its own: it rises while requests wait, and lets go when none does."""

from dataclasses import dataclass

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcom.checkpoint import CalibrationPoint
from service.admission import Admission
from service.engine import Engine
from service.governor import Governor

POINTS = tuple(
    CalibrationPoint(lam=lam, gmacs=share, share=share, top1=0.5, width_shares=(1.0,))
    for lam, share in ((0.0, 0.6), (1.0, 0.4), (4.0, 0.2), (50.0, 0.1))
)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def governor(clock: Clock) -> Governor:
    return Governor(POINTS, target_wait_s=1.0, clock=clock)


def _wait(governor: Governor, clock: Clock, wait_s: float, for_s: float) -> None:
    for _ in range(10):
        clock.now += for_s / 10
        governor.observe(wait_s)


def test_while_nobody_waits_the_policy_is_the_trained_one(governor: Governor, clock: Clock) -> None:
    _wait(governor, clock, 0.5, 60)
    assert governor.min_lam() == 0


def test_a_long_wait_raises_the_price_to_the_cheapest_and_an_empty_queue_lets_go(
    governor: Governor, clock: Clock
) -> None:
    prices = [governor.min_lam()]
    for _ in range(3):
        _wait(governor, clock, 2.0, 0.4 * Governor.HORIZON_S + 1e-6)
        prices.append(governor.min_lam())
    assert prices == [0.0, 1.0, 4.0, 50.0]
    clock.now += Governor.HORIZON_S
    governor.observe(0.0)
    assert governor.min_lam() == 0


def test_a_request_may_bound_how_far_it_is_pushed(governor: Governor, clock: Clock) -> None:
    _wait(governor, clock, 10.0, 60)
    assert [governor.min_lam(share) for share in (0, 0.15, 0.3, 0.5, 1.0)] == [50.0, 4.0, 1.0, 0.0, 0.0]


def test_a_model_without_calibration_is_left_alone(clock: Clock) -> None:
    governor = Governor((), target_wait_s=1.0, clock=clock)
    _wait(governor, clock, 100.0, 60)
    assert governor.min_lam() == 0


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=30), st.floats(0, 1))
def test_the_price_is_always_a_calibrated_one_and_a_bound_never_raises_it(
    history: list[tuple[float, float]], bound: float
) -> None:
    clock = Clock()
    governor = Governor(POINTS, target_wait_s=1.0, clock=clock)
    for wait_s, passed_s in history:
        clock.now += passed_s
        governor.observe(wait_s)
        assert 0 <= governor.level <= 1
        assert governor.min_lam() in {point.lam for point in POINTS}
        assert governor.min_lam(bound) <= governor.min_lam()


def test_one_long_wait_after_a_quiet_hour_does_not_make_it_jump(governor: Governor, clock: Clock) -> None:
    clock.now += 3600
    governor.observe(2.0)
    assert governor.level == pytest.approx(0.5 / Governor.HORIZON_S)
    assert governor.min_lam() == 0


async def test_the_price_reaches_the_recognizer_the_answer_and_the_metrics(
    engine: Engine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    engine.governor = Governor(POINTS, target_wait_s=1.0, clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr(Admission, "expected_turn_s", 9.0)
        _wait(engine.governor, clock, 9.0, 60)
        answers = [
            (await client.post(f"/recognize?min_budget={bound}", content=b"x" * 9, headers=VIDEO)).json()
            for bound in (0, 0.3, 1)
        ]
        assert [answer["compute"]["min_lam"] for answer in answers] == [50.0, 1.0, 0.0]
        assert "sdcom_governor_lambda 50.0" in (await client.get("/metrics")).text
    clock.now += 60
    assert "sdcom_governor_lambda 0.0" in (await client.get("/metrics")).text


VIDEO = {"Content-Type": "video/mp4"}
