"""Clients that stall or leave, on real connections."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import LogCapture

from service.calls import CallLog
from service.engine import Engine
from service.server import Server, listen
from service.settings import Settings
from tests.service.conftest import FakeRecognizer

HEAD = (
    "POST /recognize HTTP/1.1\r\nHost: x\r\nX-Request-ID: {}\r\n"
    "Content-Type: video/mp4\r\nContent-Length: 4\r\n\r\n"
)


@pytest.fixture
def settings() -> Settings:
    return Settings(decode_workers=2, queue_size=1, request_timeout_s=0.5, drain_seconds=0.1, grpc_port=0)


@pytest.fixture
async def server(engine: Engine, call_log: CallLog) -> Server:
    return Server(engine, call_log)


@pytest.fixture
async def port(server: Server) -> AsyncIterator[int]:
    listener = listen("127.0.0.1", 0)
    number: int = listener.getsockname()[1]
    running = asyncio.create_task(server.run(listener))
    yield number
    server.stop()
    await running


async def sent(port: int, name: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.format(name).encode() + body)
    await writer.drain()
    return reader, writer


async def logged(events: LogCapture, request_id: str) -> dict[str, object]:
    while True:
        for event in events.entries:
            if event.get("request_id") == request_id:
                return dict(event)
        await asyncio.sleep(0.005)


async def test_a_client_that_leaves_the_queue_costs_no_computation(
    port: int, engine: Engine, recognizer: FakeRecognizer, events: LogCapture
) -> None:
    recognizer.gate.clear()
    busy = [await sent(port, f"busy{number}", b"busy") for number in range(2)]
    for _ in busy:
        await asyncio.to_thread(recognizer.started.acquire)
    _, writer = await sent(port, "leaver", b"left")
    while engine.admission.num_admitted < 3:  # noqa: ASYNC110 - admission has no event for a test's sake
        await asyncio.sleep(0.005)
    writer.close()
    event = await logged(events, "leaver")
    assert (event["outcome"], event["problem"]) == ("cancelled", "client-gone")
    recognizer.gate.set()
    for reader, writer in busy:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    assert recognizer.received == [b"busy", b"busy"]


async def test_an_upload_that_stalls_gets_a_408_and_its_place_comes_free(port: int, engine: Engine) -> None:
    reader, writer = await sent(port, "staller", b"vi")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    assert engine.admission.num_admitted == 0
    writer.close()


async def test_an_upload_that_stalls_before_its_first_byte_gets_a_408(port: int) -> None:
    reader, writer = await sent(port, "staller", b"")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_what_the_drain_cannot_wait_for_is_told_so(
    port: int, server: Server, recognizer: FakeRecognizer
) -> None:
    recognizer.gate.clear()
    connections = [await sent(port, f"late{number}", b"late") for number in range(2)]
    connections.append(await sent(port, "uploading", b"la"))
    for _ in range(2):
        await asyncio.to_thread(recognizer.started.acquire)
    server.stop()
    for reader, writer in connections:
        answer = (await reader.readuntil(b'"}')).decode()
        assert answer.startswith("HTTP/1.1 503")
        assert "shutting down" in answer
        writer.close()
    recognizer.gate.set()
