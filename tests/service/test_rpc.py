"""gRPC on a real port, over a fake recogniser."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import LogCapture

from sdcom.errors import UndecodableVideoError
from sdcom.recognition import Budget
from service.calls import CallLog
from service.engine import Engine
from service.governor import Governor
from service.pb import recognition_pb2 as pb
from service.pb import recognition_pb2_grpc as pb_grpc
from service.server import Server, listen
from service.settings import Settings
from tests.service.conftest import FakeRecognizer

OPTIONS = pb.RecognizeRequest(options=pb.RecognizeOptions())


@pytest.fixture
def settings() -> Settings:
    return Settings(
        decode_workers=2,
        queue_size=1,
        max_video_bytes=100_000,
        request_timeout_s=10,
        max_streams=1,
        max_message_bytes=50_000,
        stream_idle_s=0.3,
        http_port=0,
        grpc_port=0,
        drain_seconds=5,
    )


@asynccontextmanager
async def running(
    engine: Engine, call_log: CallLog, events: LogCapture, *, since: str = "ready"
) -> AsyncIterator[tuple[Server, str, str]]:
    """Both transports on free ports; yields the server and the two addresses once it has logged `since`."""
    server = Server(engine, call_log)
    task = asyncio.create_task(server.run(listen("127.0.0.1", 0)))
    while not any(event["event"] == since for event in events.entries):
        assert not task.done(), task.exception()
        await asyncio.sleep(0.005)
    ports = next(event for event in events.entries if event["event"] == "listening")
    yield server, f"http://127.0.0.1:{ports['http_port']}", f"127.0.0.1:{ports['grpc_port']}"
    server.stop()
    await task


@pytest.fixture
async def addresses(engine: Engine, call_log: CallLog, events: LogCapture) -> AsyncIterator[tuple[str, str]]:
    async with running(engine, call_log, events) as (_, rest, rpc):
        yield rest, rpc


@pytest.fixture
async def channel(addresses: tuple[str, str]) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(addresses[1]) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return pb_grpc.RecognitionStub(channel)  # type: ignore[no-untyped-call]  # generated


def chunks(data: bytes, size: int = 10_000) -> list[pb.RecognizeRequest]:
    return [pb.RecognizeRequest(chunk=data[start : start + size]) for start in range(0, len(data), size)]


async def failure(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Return the code, the details and the trailing metadata of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    trailer: Any = error.trailing_metadata()
    return error.code(), error.details() or "", {key: str(value) for key, value in trailer}


async def test_chunks_give_the_same_answer_as_rest(
    stub: Any, addresses: tuple[str, str], recognizer: FakeRecognizer
) -> None:
    data = np.random.default_rng(0).bytes(77_777)
    answer = await stub.Recognize([OPTIONS, *chunks(data)])
    async with httpx.AsyncClient(base_url=addresses[0]) as client:
        response = await client.post("/recognize", content=data, headers={"Content-Type": "video/mp4"})
    assert recognizer.received == [data, data]
    rest = response.json()
    rpc = MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    for one in (rest, rpc):
        del one["request_id"], one["timing_ms"]
    assert json.loads(json.dumps(rpc)) == rest


async def test_the_ceiling_is_in_the_answer(stub: Any, engine: Engine) -> None:
    free = await stub.Recognize([OPTIONS, *chunks(b"v")])
    assert free.compute.max_budget == 1
    engine.governor = Governor(highest=0.5, lowest=0.2, target_wait_s=1.0, clock=lambda: 0.0)
    engine.governor.level = 1.0  # and no time passes
    limited = await stub.Recognize([OPTIONS, *chunks(b"v")])
    assert limited.compute.max_budget == 0.2


async def test_unreadable_and_missing_frames_are_in_the_answer(stub: Any, recognizer: FakeRecognizer) -> None:
    recognizer.num_unreadable_frames, recognizer.num_missing_frames = 3, 40
    answer = await stub.Recognize([OPTIONS, *chunks(b"v")])
    assert (answer.video.num_unreadable_frames, answer.video.num_missing_frames) == (3, 40)


async def test_the_options_reach_the_recogniser(stub: Any, recognizer: FakeRecognizer) -> None:
    options = pb.RecognizeOptions(top_k=1, budget=0.25, detail=pb.DETAIL_SUMMARY)
    answer = await stub.Recognize([pb.RecognizeRequest(options=options), *chunks(b"v")])
    assert len(answer.predictions) == 1
    assert not answer.frames
    await stub.Recognize([pb.RecognizeRequest(options=pb.RecognizeOptions(max_gflops=3)), *chunks(b"v")])
    await stub.Recognize([pb.RecognizeRequest(options=pb.RecognizeOptions(max_ms=30)), *chunks(b"v")])
    assert recognizer.budgets == [Budget(share=0.25), Budget(gflops=3), Budget(ms=30)]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "first message must hold the options"),
        (chunks(b"v"), "first message must hold the options"),
        ([OPTIONS, OPTIONS], "must hold a chunk"),
        ([pb.RecognizeRequest(options=pb.RecognizeOptions(top_k=0)), *chunks(b"v")], "top_k"),
        ([pb.RecognizeRequest(options=pb.RecognizeOptions(budget=2)), *chunks(b"v")], "budget"),
        ([pb.RecognizeRequest(options=pb.RecognizeOptions(max_ms=-1)), *chunks(b"v")], "max_ms"),
        ([OPTIONS], "empty"),
    ],
)
async def test_messages_that_cannot_be_used_are_refused(stub: Any, messages: list[Any], words: str) -> None:
    code, details, trailer = await failure(stub.Recognize(messages))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in details
    assert trailer["x-request-id"]


async def test_an_upload_over_the_limit_is_refused(stub: Any) -> None:
    code, details, trailer = await failure(stub.Recognize([OPTIONS, *chunks(bytes(100_001))]))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "100000" in details
    assert trailer["sdcom-problem"] == "too-large"


async def test_a_message_over_the_limit_is_refused(stub: Any) -> None:
    code, _, _ = await failure(stub.Recognize([OPTIONS, *chunks(bytes(60_000), size=60_000)]))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_error_has_its_code_and_the_callers_id(stub: Any, recognizer: FakeRecognizer) -> None:
    recognizer.error = UndecodableVideoError("no frame could be read")
    call = stub.Recognize([OPTIONS, *chunks(b"v")], metadata=(("x-request-id", "mine-1"),))
    code, details, trailer = await failure(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "no frame could be read"
    assert trailer["x-request-id"] == "mine-1"
    assert trailer["sdcom-problem"] == "undecodable-video"


async def test_an_unforeseen_error_is_internal_and_says_nothing(
    stub: Any, recognizer: FakeRecognizer, events: LogCapture
) -> None:
    recognizer.error = RuntimeError("the secret is swordfish")
    code, details, _ = await failure(stub.Recognize([OPTIONS, *chunks(b"v")]))
    assert code is grpc.StatusCode.INTERNAL
    assert "swordfish" not in details
    assert events.entries[-1]["exc_info"] is recognizer.error


async def test_a_callers_deadline_is_kept(stub: Any, recognizer: FakeRecognizer) -> None:
    recognizer.gate.clear()
    code, _, _ = await failure(stub.Recognize([OPTIONS, *chunks(b"v")], timeout=0.1))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_cancelled_call_leaves_the_queue(
    stub: Any, engine: Engine, recognizer: FakeRecognizer
) -> None:
    recognizer.gate.clear()
    busy = [stub.Recognize([OPTIONS, *chunks(b"busy")]) for _ in range(2)]
    for _ in busy:
        await asyncio.to_thread(recognizer.started.acquire)
    left = stub.Recognize([OPTIONS, *chunks(b"left")])
    await until(lambda: engine.admission.num_admitted == 3)
    left.cancel()
    await until(lambda: engine.admission.num_admitted == 2)
    recognizer.gate.set()
    await asyncio.gather(*busy)
    assert recognizer.received == [b"busy", b"busy"]


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - the state watched has no event for a test's sake
        await asyncio.sleep(0.001)


def raw_frame(width: int, height: int, rgb: bytes) -> pb.StreamFramesRequest:
    return pb.StreamFramesRequest(frame=pb.InputFrame(raw=pb.RawImage(width=width, height=height, rgb=rgb)))


def frames(count: int, **options: float) -> list[pb.StreamFramesRequest]:
    raw = pb.RawImage(width=4, height=3, rgb=bytes(range(36)))
    first = pb.StreamFramesRequest(options=pb.StreamFramesOptions(**options))
    return [first] + [
        pb.StreamFramesRequest(frame=pb.InputFrame(raw=raw, timestamp_s=index / 10)) for index in range(count)
    ]


async def test_every_frame_is_answered_with_what_it_cost(
    stub: Any, recognizer: FakeRecognizer, engine: Engine
) -> None:
    answers = [answer async for answer in stub.StreamFrames(frames(3, budget=0.5))]
    assert [answer.frame_index for answer in answers] == [0, 1, 2]
    assert [answer.timestamp_s for answer in answers] == [0.0, 0.1, 0.2]
    assert answers[0].prediction.label == "wave"
    assert answers[0].prediction.score == np.arange(36).mean() / 255
    assert answers[2].width == 0.5
    assert answers[2].compute == pb.StreamCompute(static_macs=3, gate_macs=2, baseline_macs=100)
    assert answers[2].total == pb.StreamCompute(static_macs=9, gate_macs=6, baseline_macs=300)
    assert recognizer.budgets == [Budget(share=0.5)]
    assert engine.metrics.registry.get_sample_value("sdcom_macs_total", {"part": "static"}) == 9


async def test_a_jpeg_frame_is_taken(stub: Any) -> None:
    jpeg = pb.StreamFramesRequest(frame=pb.InputFrame(jpeg=b"12345"))
    (answer,) = [answer async for answer in stub.StreamFrames([frames(0)[0], jpeg])]
    assert answer.prediction.score == 5 / 255


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (pb.StreamFramesRequest(frame=pb.InputFrame()), "as `jpeg` or `raw`"),
        (frames(0)[0], "must hold a frame"),
        (
            pb.StreamFramesRequest(frame=pb.InputFrame(raw=pb.RawImage(width=9, height=9, rgb=b"123"))),
            "9 x 9",
        ),
        (pb.StreamFramesRequest(frame=pb.InputFrame(raw=pb.RawImage(width=-1, height=-1, rgb=b"123"))), "-1"),
    ],
)
async def test_a_frame_that_cannot_be_used_ends_the_stream(stub: Any, message: Any, words: str) -> None:
    code, details, _ = await failure(collected(stub.StreamFrames([*frames(1), message])))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in details


async def collected(call: Any) -> list[Any]:
    return [answer async for answer in call]


async def silent(messages: list[Any]) -> AsyncIterator[Any]:
    """Send the messages, then nothing, without ending."""
    for message in messages:
        yield message
    await asyncio.Event().wait()


async def test_an_idle_stream_is_ended(stub: Any) -> None:
    code, details, _ = await failure(collected(stub.StreamFrames(silent(frames(1)))))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "0.3 s" in details


async def test_streams_are_bounded_and_their_places_come_free(stub: Any) -> None:
    first = stub.StreamFrames(silent(frames(1)))
    assert (await first.read()).frame_index == 0
    code, details, trailer = await failure(collected(stub.StreamFrames(frames(1))))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "SDCOM_MAX_STREAMS" in details
    assert int(trailer["retry-after"]) >= 1
    await failure(first.read())
    assert len(await collected(stub.StreamFrames(frames(2)))) == 2


async def test_health_and_reflection_name_the_service(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "sdcom.v1.Recognition"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (listed,) = [answer async for answer in reflection.ServerReflectionInfo([request])]
    assert "sdcom.v1.Recognition" in [one.name for one in listed.list_services_response.service]


async def test_until_the_model_has_run_calls_and_streams_are_refused_as_health_says(
    cold_engine: Engine, call_log: CallLog, events: LogCapture, recognizer: FakeRecognizer
) -> None:
    recognizer.warmth.clear()
    async with (
        running(cold_engine, call_log, events, since="listening") as (_, _, rpc),
        grpc.aio.insecure_channel(rpc) as channel,
    ):
        stub: Any = pb_grpc.RecognitionStub(channel)  # type: ignore[no-untyped-call]  # generated
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="sdcom.v1.Recognition")
        early = [
            await failure(stub.Recognize([OPTIONS, *chunks(b"v")])),
            await failure(collected(stub.StreamFrames(frames(1)))),
        ]
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        recognizer.warmth.set()
        await until(lambda: any(event["event"] == "ready" for event in events.entries))
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        assert (await stub.Recognize([OPTIONS, *chunks(b"v")])).predictions
        assert len(await collected(stub.StreamFrames(frames(1)))) == 1
    for code, details, trailer in early:
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "warming up" in details
        assert int(trailer["retry-after"]) >= 1


async def test_a_drain_finishes_what_is_in_flight_and_takes_nothing_new(
    engine: Engine, call_log: CallLog, events: LogCapture, recognizer: FakeRecognizer
) -> None:
    video: dict[str, Any] = {"content": b"v", "headers": {"Content-Type": "video/mp4"}}
    async with (
        running(engine, call_log, events) as (server, rest, rpc),
        httpx.AsyncClient(base_url=rest) as client,
        grpc.aio.insecure_channel(rpc) as channel,
    ):
        stub: Any = pb_grpc.RecognitionStub(channel)  # type: ignore[no-untyped-call]  # generated
        recognizer.gate.clear()
        in_flight = asyncio.create_task(client.post("/recognize", **video))
        await asyncio.to_thread(recognizer.started.acquire)
        server.stop()
        await until(engine.admission.closed.is_set)
        ready = await client.get("/health/ready")
        refused = await client.post("/recognize", **video)
        code, details, _ = await failure(stub.Recognize([OPTIONS, *chunks(b"v")]))
        recognizer.gate.set()
        assert (await in_flight).status_code == 200
    assert ready.status_code == refused.status_code == 503
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in details
    assert [event["event"] for event in events.entries][-1] == "stopped"
