"""A recogniser without networks for the seams, and the service around it."""

import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import BinaryIO

import httpx
import numpy as np
import pytest
import structlog
from fastapi import FastAPI
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from structlog.testing import LogCapture

from sdcom.answer import Submitted
from sdcom.budget import WidthPlan
from sdcom.cancellation import Cancellation
from sdcom.checkpoint import ModelInfo
from sdcom.config import ModelConfig
from sdcom.engine.composed import Composed
from sdcom.engine.ledger import Ledger, Part
from sdcom.recognition import (
    Budget,
    FrameResult,
    Prediction,
    Provider,
    Recognition,
    StreamPrediction,
    VideoFacts,
)
from service.app import create_app
from service.calls import CallLog
from service.engine import Engine
from service.metrics import Metrics
from service.settings import Settings

INFO = ModelInfo(name="fake", version="1", config=ModelConfig(labels=("stand", "wave")))


@dataclass
class FakeRecognizer:
    """Warm at once, or with `warmth`; answers at once, when `gate` opens, or with `error`.

    It remembers what it was given.
    """

    info: ModelInfo = INFO
    provider: Provider = field(default_factory=lambda: Provider("torch-cpu", "0"))
    executed: Counter[Part] = field(default_factory=Counter)
    gate: threading.Event = field(default_factory=threading.Event)
    warmth: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    num_unreadable_frames: int = 0
    num_missing_frames: int = 0
    received: list[bytes] = field(default_factory=list)
    budgets: list[Budget | None] = field(default_factory=list)
    confidences: list[float | None] = field(default_factory=list)
    jpeg_deadlines: list[float | None] = field(default_factory=list)
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self.gate.set()
        self.warmth.set()

    def warm_up(self) -> None:
        assert self.warmth.wait(20)

    def close(self) -> None:
        """Hold nothing."""

    def executed_macs(self) -> Counter[Part]:
        return Counter(self.executed)

    def submit(
        self,
        source: BinaryIO,
        *,
        top_k: int = 5,
        budget: Budget | None = None,
        min_confidence: float | None = None,
        max_budget: float = 1.0,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Submitted:
        self.started.release()
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        self.received.append(source.read())
        self.budgets.append(budget)
        self.confidences.append(min_confidence)
        size = len(self.received[-1])
        ledger = Ledger(
            1000 * size,
            Counter({Part.STATIC: size, Part.DYNAMIC: 7}),
            Counter({0.0: 15, 0.25: 1}),
            max_budget=max_budget,
        )
        self.executed.update(ledger.macs)
        recognition = Recognition(
            model=INFO.full_name,
            predictions=(Prediction("wave", 1, 0.7000000000000001), Prediction("stand", 0, 0.3))[:top_k],
            frames=(FrameResult(0.1, 0.25, "wave", 1 / 3),),
            ledger=ledger,
            timing_ms=dict.fromkeys(("queue", "decode", "static", "gate", "dynamic", "fusion"), 1.0),
            video=VideoFacts(
                1.5, 320, 240, "mp4", "h264", "decord", self.num_unreadable_frames, self.num_missing_frames
            ),
        )
        composed = Future[Composed]()
        composed.set_result(Composed(np.zeros((1, 2), np.float32), WidthPlan((0,), 0.0, 0), ledger))
        return Submitted(composed, lambda _: recognition)

    def open_stream(self, *, budget: Budget | None = None) -> "FakeStream":
        self.budgets.append(budget)
        return FakeStream(self)


@dataclass
class FakeStream:
    """Scores a frame by its mean."""

    recognizer: FakeRecognizer

    def push(self, frame_HWC: NDArray[np.uint8]) -> StreamPrediction:
        assert self.recognizer.gate.wait(20)
        ledger = Ledger(100, Counter({Part.STATIC: 3, Part.GATE: 2}), Counter({0.5: 1}))
        self.recognizer.executed.update(ledger.macs)
        return StreamPrediction(Prediction("wave", 1, float(frame_HWC.mean()) / 255), 0.5, ledger)

    def push_jpeg(self, data: bytes, *, deadline: float | None = None) -> StreamPrediction:
        self.recognizer.jpeg_deadlines.append(deadline)
        if self.recognizer.error is not None:
            raise self.recognizer.error
        return self.push(np.full((2, 2, 3), len(data), np.uint8))


@pytest.fixture
def recognizer() -> Iterator[FakeRecognizer]:
    fake = FakeRecognizer()
    yield fake
    fake.gate.set()
    fake.warmth.set()


@pytest.fixture
def settings() -> Settings:
    return Settings(decode_workers=2, queue_size=1, max_video_bytes=100_000, request_timeout_s=10)


@pytest.fixture
def cold_engine(recognizer: FakeRecognizer, settings: Settings) -> Iterator[Engine]:
    engine = Engine(recognizer, settings, Metrics(CollectorRegistry()))
    yield engine
    recognizer.gate.set()
    engine.close()


@pytest.fixture
async def engine(cold_engine: Engine) -> Engine:
    await cold_engine.warm_up()
    return cold_engine


@pytest.fixture
def events() -> LogCapture:
    return LogCapture()


@pytest.fixture
def call_log(cold_engine: Engine, events: LogCapture) -> CallLog:
    logger = structlog.wrap_logger(None, processors=[events], wrapper_class=structlog.stdlib.BoundLogger)
    return CallLog(cold_engine.metrics, logger)


@pytest.fixture
def rest_app(cold_engine: Engine, call_log: CallLog) -> FastAPI:
    return create_app(cold_engine, call_log)


@pytest.fixture
async def cold_client(rest_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=rest_app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sdcom") as client:
        yield client


@pytest.fixture
async def client(cold_client: httpx.AsyncClient, engine: Engine) -> httpx.AsyncClient:
    return cold_client
