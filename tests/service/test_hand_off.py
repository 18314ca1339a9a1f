"""From the decoders to the networks: a decoded video gives its turn back, and its caller may still leave."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import LogCapture

from sdcom.engine.backend import Backend, Float32Array, Room, UInt8Array
from sdcom.engine.costs import Stage
from sdcom.engine.ledger import Part
from sdcom.engine.on_host import HostRoom
from sdcom.engine.torch_backend import TorchBackend
from sdcom.engine.turns import Apart, Together, Turns
from sdcom.model import Model
from sdcom.recognizer import Recognizer
from sdcom.sampling import Int64Array
from sdcom.video import DecoderPool
from service.app import create_app
from service.calls import CallLog
from service.engine import Engine
from service.metrics import Metrics
from service.settings import Settings
from tests.sdcom.engine.alone import in_flight
from tests.sdcom.engine.numpy_backend import Watched
from tests.sdcom.video.videos import encode

VIDEO = {"Content-Type": "video/mp4"}
NUM_REQUESTS, NUM_WORKERS = 12, 2
VIDEO_BYTES = encode(num_frames=10)

TurnsOf = Callable[[Backend], Turns]
TURNS = [
    pytest.param(Apart, 1, id="one by one"),
    pytest.param(lambda backend: Together(backend, num_videos=4), 4, id="together"),
]
"""How the networks are shared, and how many videos they hold."""
SIDE_BY_SIDE = pytest.param(lambda backend: Apart(backend, num_workers=3), 3, id="side by side")


class WatchedBackend(Watched):
    """A whole backend, each of whose batches is told of before it is computed."""

    def __init__(self, backend: Backend, before: Callable[[Stage, Float32Array | UInt8Array], None]) -> None:
        super().__init__(backend, before)
        self._whole = backend
        self.info, self.provider, self.buckets = backend.info, backend.provider, backend.buckets
        self.prepare_thread = backend.prepare_thread
        self.open_stream = backend.open_stream

    def fill(self, frames_NHWC: UInt8Array, width: float, before_N: Int64Array | None = None) -> Float32Array:
        self._before(Stage.FILL, frames_NHWC)
        return self._whole.fill(frames_NHWC, width, before_N)

    def open_room(self, _num_videos: int, /) -> Room:
        return HostRoom(self, self.info.config)


@dataclass
class SlowDevice:
    """Takes no batch before it is let go, then any; remembers how many rows each stage's batches had."""

    free: threading.Event = field(default_factory=threading.Event)
    at_work: threading.Event = field(default_factory=threading.Event)
    sizes: list[tuple[Stage, int]] = field(default_factory=list)

    def __call__(self, stage: Stage, rows: Float32Array | UInt8Array) -> None:
        self.at_work.set()
        assert self.free.wait(60)
        self.sizes.append((stage, len(rows)))


@dataclass(frozen=True)
class Service:
    engine: Engine
    client: httpx.AsyncClient

    def post(self, query: str = "") -> asyncio.Task[httpx.Response]:
        request = self.client.post(f"/recognize?{query}", content=VIDEO_BYTES, headers=VIDEO)
        return asyncio.create_task(request)

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(3000):
            if condition():
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it never came to that")


@pytest.fixture(scope="module")
def decoders(tiny_model: Model) -> Iterator[DecoderPool]:
    with DecoderPool(tiny_model.info.config.clip, num_workers=NUM_WORKERS) as decoders:
        yield decoders


@pytest.fixture
def device() -> SlowDevice:
    return SlowDevice()


async def serving(
    model: Model, decoders: DecoderPool, device: SlowDevice, turns_of: Callable[[Backend], Turns]
) -> Service:
    device.free.set()  # costs are measured first, and the model runs once
    backend = cast(Backend, WatchedBackend(TorchBackend(model), device))
    recognizer = Recognizer(backend, decoders, turns=turns_of(backend))
    engine = Engine(recognizer, Settings(decode_workers=NUM_WORKERS), Metrics(CollectorRegistry()))
    await engine.warm_up()
    device.free.clear()
    device.at_work.clear()
    device.sizes.clear()
    log = CallLog(engine.metrics, structlog.wrap_logger(None, processors=[LogCapture()]))
    transport = httpx.ASGITransport(app=create_app(engine, log))
    return Service(engine, httpx.AsyncClient(transport=transport, base_url="http://sdcom", timeout=60))


async def end(service: Service, device: SlowDevice) -> None:
    device.free.set()
    await service.client.aclose()
    await asyncio.to_thread(service.engine.recognizer._turns.close)  # type: ignore[attr-defined]  # the decoders are the module's
    service.engine.admission.join()


async def test_two_decoders_feed_batches_of_many_videos(
    tiny_model: Model, decoders: DecoderPool, device: SlowDevice
) -> None:
    service = await serving(
        tiny_model, decoders, device, lambda backend: Together(backend, num_videos=NUM_REQUESTS)
    )
    scheduler = service.engine.recognizer._turns._scheduler  # type: ignore[attr-defined]
    answers = [service.post() for _ in range(NUM_REQUESTS)]
    await service.until(lambda: in_flight(scheduler).num_videos == NUM_REQUESTS)
    assert service.engine.admission.expected_turn_s == 0
    device.free.set()
    assert {(await answer).status_code for answer in answers} == {200}
    assert max(size for stage, size in device.sizes if stage is Stage.DECIDE) > NUM_WORKERS + 1
    await end(service, device)


@pytest.mark.parametrize(("turns_of", "num_videos"), [*TURNS, SIDE_BY_SIDE])
async def test_no_more_videos_are_decoded_than_the_networks_have_room_for(
    tiny_model: Model, decoders: DecoderPool, device: SlowDevice, turns_of: TurnsOf, num_videos: int
) -> None:
    service = await serving(tiny_model, decoders, device, turns_of)
    answers = [service.post() for _ in range(NUM_REQUESTS)]
    admission = service.engine.admission
    await service.until(lambda: admission._num_past_turn == num_videos)
    await service.until(lambda: admission._num_waiting == NUM_REQUESTS - num_videos - NUM_WORKERS)
    await asyncio.sleep(0.2)
    assert admission._num_past_turn == num_videos
    assert admission.expected_turn_s > 0
    device.free.set()
    assert {(await answer).status_code for answer in answers} == {200}
    await end(service, device)


@pytest.mark.parametrize(("turns_of", "num_videos"), TURNS)
async def test_a_caller_who_leaves_while_the_networks_are_busy_makes_room_and_is_not_computed(
    tiny_model: Model, decoders: DecoderPool, device: SlowDevice, turns_of: TurnsOf, num_videos: int
) -> None:
    service = await serving(tiny_model, decoders, device, turns_of)
    admission = service.engine.admission
    first = service.post()
    await service.until(device.at_work.is_set)
    leaving = [service.post() for _ in range(2)]
    await service.until(lambda: admission._num_waiting == 0 and admission.num_admitted == 3)
    await service.until(lambda: admission._num_past_turn == min(num_videos, 3))
    for each in leaving:
        each.cancel()
    late = service.post("deadline_ms=400")
    assert (await late).status_code == 408
    assert admission.num_admitted == 1
    device.free.set()
    answer = (await first).json()
    await end(service, device)
    assert sum(stage is Stage.DECIDE for stage, _ in device.sizes) == 1
    # What had been gathered for a caller who left ran with the rest, and is no part of an answer.
    num_looks = sum(size for stage, size in device.sizes if stage is Stage.LOOK)
    macs, num_frames = tiny_model.info.macs, tiny_model.info.config.clip.num_frames
    extra = (num_looks - num_frames) * (macs.static + macs.gate - macs.gate_step)
    answered = round(answer["compute"]["gflops"] * 1e9)
    sample = service.engine.metrics.registry.get_sample_value
    assert sample("sdcom_answered_macs_total") == answered
    assert sum(sample("sdcom_macs_total", {"part": part}) or 0 for part in Part) == answered + extra
    assert answer["timing_ms"]["total"] >= answer["timing_ms"]["queue"] > 0


@pytest.mark.parametrize(("turns_of", "num_videos"), TURNS)
async def test_shutting_down_ends_those_who_wait_for_the_networks_with_a_refusal(
    tiny_model: Model, decoders: DecoderPool, device: SlowDevice, turns_of: TurnsOf, num_videos: int
) -> None:
    service = await serving(tiny_model, decoders, device, turns_of)
    turns = service.engine.recognizer._turns  # type: ignore[attr-defined]
    first = service.post()
    await service.until(device.at_work.is_set)
    others = [service.post() for _ in range(5)]
    await service.until(lambda: service.engine.admission._num_past_turn == num_videos)
    closing = asyncio.create_task(asyncio.to_thread(turns.close))
    refusals = [await other for other in others]
    assert {(refusal.status_code, "retry-after" in refusal.headers) for refusal in refusals} == {(503, True)}
    device.free.set()
    assert (await first).status_code == (200 if num_videos == 1 else 503)
    await closing
    await end(service, device)
