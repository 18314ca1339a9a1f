"""The governor on a clock of its own: it limits videos while requests wait, and lets go when none does."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import LogCapture

from sdcom.checkpoint import ModelInfo
from sdcom.recognizer import Recognizer
from service.admission import Admission
from service.app import create_app
from service.calls import CallLog
from service.engine import Engine
from service.governor import Governor, one_frame_budget
from service.metrics import Metrics
from service.settings import Settings
from tests.conftest import TINY_CONFIG
from tests.sdcom.video.videos import encode
from tests.service.conftest import FakeRecognizer

VIDEO = {"Content-Type": "video/mp4"}
HIGHEST, LOWEST = 0.5, 0.1


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
    return _governor(clock)


def _governor(clock: Clock, lowest: float = LOWEST) -> Governor:
    return Governor(highest=HIGHEST, lowest=lowest, target_wait_s=1.0, clock=clock)


def _wait(governor: Governor, clock: Clock, wait_s: float, for_s: float) -> None:
    for _ in range(10):
        clock.now += for_s / 10
        governor.observe(wait_s)


def test_while_nobody_waits_there_is_no_ceiling(governor: Governor, clock: Clock) -> None:
    _wait(governor, clock, 0.5, 60)
    assert governor.max_budget() == 1


def test_a_long_wait_brings_the_ceiling_down_and_an_empty_queue_lets_go(
    governor: Governor, clock: Clock
) -> None:
    ceilings = []
    for _ in range(5):
        _wait(governor, clock, 2.0, 0.25 * Governor.HORIZON_S)
        ceilings.append(governor.max_budget())
    assert ceilings == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.1])
    clock.now += 0.75 * Governor.HORIZON_S
    governor.observe(0.0)
    assert governor.max_budget() == pytest.approx(0.4)
    clock.now += 0.25 * Governor.HORIZON_S + 1e-6
    governor.observe(0.0)
    assert governor.max_budget() == 1


def test_a_request_may_bound_how_far_it_is_pushed(governor: Governor, clock: Clock) -> None:
    _wait(governor, clock, 10.0, 60)
    assert [governor.max_budget(least) for least in (0, 0.1, 0.3, 0.8, 1.0)] == [0.1, 0.1, 0.3, 0.8, 1.0]


def test_a_lowest_ceiling_above_the_highest_is_the_only_one(clock: Clock) -> None:
    governor = _governor(clock, lowest=0.7)
    for _ in range(3):
        _wait(governor, clock, 2.0, 0.3 * Governor.HORIZON_S)
        assert governor.max_budget() == 0.7


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=30), st.floats(0, 1))
def test_the_ceiling_stays_between_its_ends_and_a_bound_never_lowers_it(
    history: list[tuple[float, float]], bound: float
) -> None:
    clock = Clock()
    governor = _governor(clock)
    for wait_s, passed_s in history:
        clock.now += passed_s
        governor.observe(wait_s)
        assert 0 <= governor.level <= 1
        ceiling, own = governor.max_budget(), governor.max_budget(bound)
        assert ceiling == 1 if governor.level == 0 else LOWEST <= ceiling <= HIGHEST + 1e-9
        assert own == max(ceiling, bound)


def test_one_long_wait_after_a_quiet_hour_does_not_make_it_jump(governor: Governor, clock: Clock) -> None:
    clock.now += 3600
    governor.observe(2.0)
    assert governor.level == pytest.approx(0.5 / Governor.HORIZON_S)
    assert governor.max_budget() == pytest.approx(HIGHEST - 0.1 * (HIGHEST - LOWEST))


def test_one_frame_at_full_width_is_what_its_budget_pays_for() -> None:
    info = ModelInfo(name="tiny", version="0", config=TINY_CONFIG)
    macs = info.macs
    assert one_frame_budget(info) * macs.baseline(4) == pytest.approx(macs.total([1, 0, 0, 0]))


async def test_the_ceiling_reaches_the_recognizer_the_answer_the_log_and_the_metrics(
    engine: Engine, client: httpx.AsyncClient, events: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    engine.governor = _governor(clock)
    with monkeypatch.context() as patch:
        patch.setattr(Admission, "expected_turn_s", 9.0)
        _wait(engine.governor, clock, 9.0, 60)
        answers = [
            (await client.post(f"/recognize?min_budget={bound}", content=b"x" * 9, headers=VIDEO)).json()
            for bound in (0, 0.3, 1)
        ]
        assert [answer["compute"]["max_budget"] for answer in answers] == [0.1, 0.3, 1.0]
        logged = [event for event in events.entries if event.get("outcome") == "ok"]
        assert [event.get("max_budget") for event in logged] == [0.1, 0.3, None]
        assert "sdcom_governor_max_budget 0.1\n" in (await client.get("/metrics")).text
    clock.now += 60
    assert "sdcom_governor_max_budget 1.0\n" in (await client.get("/metrics")).text


@pytest.mark.parametrize(("lowest", "expected"), [(None, one_frame_budget(FakeRecognizer.info)), (0.2, 0.2)])
def test_the_lowest_ceiling_is_the_setting_or_one_frame(lowest: float | None, expected: float) -> None:
    settings = Settings(governor=True, governor_min_budget=lowest)
    engine = Engine(FakeRecognizer(), settings, Metrics(CollectorRegistry()))
    assert engine.governor is not None
    engine.governor.level = 1.0
    assert engine.governor.max_budget() == expected
    engine.close()


@pytest.fixture(scope="module")
def tiny_recognizer(tiny_model_dir: Path) -> Iterator[Recognizer]:
    with Recognizer.load(tiny_model_dir, num_decode_workers=1, num_threads=1) as recognizer:
        yield recognizer


@asynccontextmanager
async def _served(recognizer: Recognizer, settings: Settings) -> AsyncIterator[tuple[Engine, Any]]:
    engine = Engine(recognizer, settings, Metrics(CollectorRegistry()))
    await engine.warm_up()
    log = CallLog(engine.metrics, structlog.wrap_logger(None, processors=[LogCapture()]))
    transport = httpx.ASGITransport(app=create_app(engine, log))
    async with httpx.AsyncClient(transport=transport, base_url="http://sdcom", timeout=60) as client:

        async def post(query: str) -> dict[str, Any]:
            response = await client.post(f"/recognize?{query}", content=CLIP, headers=VIDEO)
            answer: dict[str, Any] = response.json()
            del answer["request_id"], answer["timing_ms"]
            return answer

        yield engine, post
    engine.admission.join()


CLIP = encode(num_frames=12)
QUERIES = ("", "budget=0.5", "budget=1&min_budget=0.4", "max_gflops=0.06", "min_confidence=1", "top_k=1")


async def test_at_level_0_every_answer_is_as_without_a_governor(tiny_recognizer: Recognizer) -> None:
    async with _served(tiny_recognizer, Settings()) as (_, post):
        without = [await post(query) for query in QUERIES]
    async with _served(tiny_recognizer, Settings(governor=True)) as (engine, post):
        assert [await post(query) for query in QUERIES] == without
        assert engine.governor is not None
        assert engine.governor.level == 0


async def test_at_level_1_no_answer_costs_more_than_the_ceiling_or_its_own_bounds(
    tiny_recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Admission, "expected_turn_s", 100.0)
    async with _served(tiny_recognizer, Settings(governor=True, governor_min_budget=0.3)) as (engine, post):
        assert engine.governor is not None
        engine.governor.level = 1.0
        for query, limit in (
            ("", 0.3),
            ("budget=1", 0.3),
            ("budget=0.27", 0.27),
            ("budget=1&min_budget=0.4", 0.4),
            ("budget=1&min_confidence=1", 0.3),
            ("max_gflops=0.06&min_budget=0.2", 0.3),
        ):
            compute = (await post(query))["compute"]
            assert compute["gflops"] <= limit * compute["baseline_gflops"], query
            assert compute["max_budget"] == (0.4 if "0.4" in query else 0.3)
        free = (await post("budget=1&min_budget=1"))["compute"]
        assert free["gflops"] > 0.4 * free["baseline_gflops"]
        assert free["max_budget"] == 1
