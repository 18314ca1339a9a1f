"""Decoders that misbehave, met over HTTP: real workers that do it on request stand in for the real ones."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import LogCapture

from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import load_model
from sdcom.recognizer import Recognizer
from sdcom.video import DecodeLimits, DecoderPool
from service.app import create_app
from service.calls import CallLog
from service.engine import Engine
from service.metrics import Metrics
from service.settings import Settings
from tests.sdcom.video.rogue_worker import misdeed_file
from tests.sdcom.video.videos import encode

VIDEO = {"Content-Type": "video/mp4"}
ROGUE = (sys.executable, "-m", "tests.sdcom.video.rogue_worker")


@dataclass(frozen=True)
class Service:
    """A client, and the metrics behind it."""

    client: httpx.AsyncClient
    metrics: Metrics

    async def post(self, data: bytes) -> httpx.Response:
        return await self.client.post("/recognize", content=data, headers=VIDEO)

    def count(self, name: str, reason: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0


@pytest.fixture
async def service(tiny_model_dir: Path, wall_clock_s: float) -> AsyncIterator[Service]:
    model = load_model(tiny_model_dir)
    metrics = Metrics(CollectorRegistry())
    limits = DecodeLimits(
        wall_clock_s=wall_clock_s, cpu_s=2.0, memory_bytes=1 << 28
    )  # eaten long before 2 s are spent
    pool = DecoderPool(
        model.info.config.clip,
        limits,
        num_workers=2,
        on_restart=metrics.worker_restarted,
        worker_command=ROGUE,
    )
    settings = Settings(decode_workers=2)
    engine = Engine(Recognizer(TorchBackend(model), pool), settings, metrics)
    await engine.warm_up()
    log = CallLog(metrics, structlog.wrap_logger(None, processors=[LogCapture()]))
    transport = httpx.ASGITransport(app=create_app(engine, log))
    async with httpx.AsyncClient(transport=transport, base_url="http://sdcom", timeout=30) as client:
        yield Service(client, metrics)
    await asyncio.to_thread(engine.close)


@pytest.mark.parametrize(
    ("word", "reason", "wall_clock_s"),
    [(b"SPIN", "cpu", 20), (b"SLEEP", "timeout", 2), (b"SEGFAULT", "crash", 20), (b"EAT", "memory", 20)],
)
async def test_a_misbehaving_decoder_costs_only_its_own_request(
    service: Service, word: bytes, reason: str
) -> None:
    good = encode(num_frames=10)
    bad, *others = await asyncio.gather(
        service.post(misdeed_file(word)), *(service.post(good) for _ in range(3))
    )
    assert bad.status_code == 422
    assert bad.headers["content-type"] == "application/problem+json"
    assert bad.json()["type"] == "urn:sdcom:problem:decoder-killed"
    assert [other.status_code for other in others] == [200] * 3
    assert len({str(other.json()["predictions"]) for other in others}) == 1
    assert service.count("sdcom_decode_failures_total", reason) == 1
    assert service.count("sdcom_decode_worker_restarts_total", reason) == 1
    assert (await service.post(good)).status_code == 200
