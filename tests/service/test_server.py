"""A real server process with a tiny model: what a user and an operator do, end to end."""

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from prometheus_client.parser import text_string_to_metric_families

from sdcom.engine.ledger import Part
from sdcom.recognition import StreamPrediction
from sdcom.recognizer import Recognizer
from service.demo import ServerProcess
from service.pb import recognition_pb2 as pb
from service.pb import recognition_pb2_grpc as pb_grpc
from tests.sdcom.video.test_limits import audio_only, flat_video, patched
from tests.sdcom.video.test_scale import jpeg
from tests.sdcom.video.videos import encode, paint

VIDEO = {"Content-Type": "video/mp4"}
LIMIT_BYTES = 2_000_000


@pytest.fixture(scope="module")
def server(tiny_model_dir: Path) -> Iterator[ServerProcess]:
    environment = {
        "SDCOM_MODEL_DIR": str(tiny_model_dir),
        "SDCOM_MAX_VIDEO_BYTES": str(LIMIT_BYTES),
        "SDCOM_THREADS": "1",
    }
    with ServerProcess(environment) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def video() -> bytes:
    return encode(num_frames=30)


def post_head(*headers: str) -> bytes:
    """Return the head of a raw HTTP request, so that a test says when which byte of the body goes out."""
    lines = ["POST /recognize HTTP/1.1", "Host: x", "Content-Type: video/mp4", *headers, "", ""]
    return "\r\n".join(lines).encode()


def answer_on(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def recognised(server: ServerProcess, data: bytes, query: str = "") -> dict[str, Any]:
    status, answer = server.request("POST", f"/recognize{query}", data, VIDEO)
    assert status == 200, answer
    return dict(answer)


def samples(server: ServerProcess) -> dict[str, float]:
    """Return every sample of the server's metrics, as `name{label="value",...}` with sorted labels."""
    text = httpx.get(f"http://127.0.0.1:{server.http_port}/metrics").text
    return {
        sample_name(sample.name, **sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sample_name(name: str, **labels: str) -> str:
    return name + ",".join(f"{label}={value}" for label, value in sorted(labels.items()))


def test_the_same_bytes_give_the_same_answer_over_both_transports(
    server: ServerProcess, video: bytes
) -> None:
    rest = [recognised(server, video, "?budget=0.6&top_k=2") for _ in range(2)]
    options = pb.RecognizeRequest(options=pb.RecognizeOptions(budget=0.6, top_k=2))
    parts = [pb.RecognizeRequest(chunk=video[start : start + 1000]) for start in range(0, len(video), 1000)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub: Any = pb_grpc.RecognitionStub(channel)  # type: ignore[no-untyped-call]  # generated
        message = stub.Recognize(iter([options, *parts]))
    rpc = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    answers = [*rest, json.loads(json.dumps(rpc))]
    for answer in answers:
        del answer["request_id"], answer["timing_ms"]
    assert answers[0] == answers[1] == answers[2]


def test_the_library_and_the_server_agree(
    server: ServerProcess, video: bytes, tiny_model_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(video)
    with Recognizer.load(tiny_model_dir, num_decode_workers=1, num_threads=1) as recognizer:
        offline = recognizer.recognize(file).to_dict()
    online = recognised(server, video)
    for name in ("model", "predictions", "frames", "compute", "video"):
        assert online[name] == json.loads(json.dumps(offline[name]))


def test_a_stream_equals_the_offline_causal_path(server: ServerProcess, tiny_model_dir: Path) -> None:
    frames = [paint(number, 96, 80) for number in range(6)]
    with Recognizer.load(tiny_model_dir, num_decode_workers=1, num_threads=1) as recognizer:
        stream = recognizer.open_stream()
        offline: list[StreamPrediction] = [stream.push(frame) for frame in frames]
    messages = [pb.StreamFramesRequest(options=pb.StreamFramesOptions())] + [
        pb.StreamFramesRequest(frame=pb.InputFrame(raw=pb.RawImage(width=96, height=80, rgb=frame.tobytes())))
        for frame in frames
    ]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub: Any = pb_grpc.RecognitionStub(channel)  # type: ignore[no-untyped-call]  # generated
        online = list(stub.StreamFrames(iter(messages)))
    assert len(online) == len(offline)
    for ours, theirs in zip(online, offline, strict=True):
        assert ours.prediction.score == theirs.prediction.score
        assert (ours.prediction.label, ours.width) == (theirs.prediction.label, theirs.width)
        assert ours.compute.static_macs == theirs.ledger.macs[Part.STATIC]
        assert ours.compute.baseline_macs == theirs.ledger.baseline_macs
    assert online[-1].total.dynamic_macs == sum(one.ledger.macs[Part.DYNAMIC] for one in offline)


def test_a_stream_of_jpeg_files_is_decoded_in_the_jail(server: ServerProcess) -> None:
    def frame(data: bytes) -> pb.StreamFramesRequest:
        return pb.StreamFramesRequest(frame=pb.InputFrame(jpeg=data))

    options = pb.StreamFramesRequest(options=pb.StreamFramesOptions())
    good, another = (frame(jpeg(paint(number, 320, 240), 1)) for number in (1, 2))
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub: Any = pb_grpc.RecognitionStub(channel)  # type: ignore[no-untyped-call]  # generated
        first, second, again = stub.StreamFrames(iter([options, good, another, another]))
        assert first.compute.static_macs == second.compute.static_macs > 0
        assert again.compute.static_macs == 0, "a picture that stands still is computed once"
        answers = stub.StreamFrames(iter([options, good, frame(b"no picture")]))
        assert next(answers).frame_index == 0
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "JPEG" in str(caught.value.details())


def test_the_metrics_sum_the_answers_exactly(server: ServerProcess, video: bytes) -> None:
    before = samples(server)
    answers = [recognised(server, video, f"?budget={budget}") for budget in (0.3, 0.6, 1.0)]
    after = samples(server)
    for part in Part:
        summed = sum(round(answer["compute"][f"{part}_gflops"] * 1e9) for answer in answers)
        key = sample_name("sdcom_macs_total", part=part)
        assert after[key] - before[key] == summed
    key = "sdcom_baseline_macs_total"
    assert after[key] - before[key] == sum(round(one["compute"]["baseline_gflops"] * 1e9) for one in answers)
    widths: Counter[str] = Counter()
    for answer in answers:
        widths.update(answer["compute"]["widths"])
    for width, count in widths.items():
        key = sample_name("sdcom_frames_total", width=width)
        assert after[key] - before[key] == count


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 422, "empty"),
        (b"just some text, not a video", 415, "MP4"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{port}/x.ts\n", 415, "playlist"),
        (
            b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video {port} RTP/AVP 96\r\n",
            415,
            "MP4",
        ),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", 415, "MP4"),
    ],
    ids=["empty", "text", "playlist", "sdp", "concat"],
)
def test_what_is_no_video_is_refused_and_leads_nowhere(
    server: ServerProcess, data: bytes, status: int, words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as lure:
        lure.settimeout(0.2)
        sent = data.replace(b"{port}", str(lure.getsockname()[1]).encode())
        answered, problem = server.request("POST", "/recognize", sent, VIDEO)
        with pytest.raises(TimeoutError):
            lure.accept()
    assert answered == problem["status"] == status
    assert words in problem["detail"]


def damaged(video: bytes, how: str) -> bytes:
    if how == "truncated":
        return video[: len(video) // 3]
    if how == "headless":
        return video[:24] + bytes(1000)
    flipped = bytearray(video)
    for position in np.random.default_rng(1).integers(24, len(video), 400):
        flipped[position] ^= 0xFF
    return bytes(flipped)


@pytest.mark.parametrize("how", ["truncated", "headless", "bit-flipped"])
def test_a_damaged_video_is_a_clear_problem_and_the_next_one_is_served(
    server: ServerProcess, video: bytes, how: str
) -> None:
    status, problem = server.request("POST", "/recognize", damaged(video, how), VIDEO)
    assert status in {200, 422} if how == "bit-flipped" else status == 422
    if status == 422:
        assert problem["type"].startswith("urn:sdcom:problem:")
        assert len(problem["detail"]) > 10
    recognised(server, video)


@pytest.mark.parametrize(
    ("make", "problem", "words"),
    [
        (lambda: flat_video("rawvideo", "avi", 1, 1), "video-limit", "1x1"),
        (lambda: flat_video("ffv1", "matroska", 8192, 8192, "gray"), "video-limit", "8192x8192"),
        (lambda: patched(encode(num_frames=9), b"stts", 16, bytes([127])), "video-limit", "limit is 14400 s"),
        (audio_only, "undecodable-video", "audio"),
        (lambda: patched(encode(num_frames=9), b"stsz", 12, bytes(4)), "undecodable-video", ""),
    ],
    ids=["1x1", "8192x8192", "100 hours and more", "audio only", "zero frames"],
)
def test_a_video_that_cannot_be_served_is_a_clear_problem(
    server: ServerProcess, make: Callable[[], bytes], problem: str, words: str
) -> None:
    status, answer = server.request("POST", "/recognize", make(), VIDEO)
    assert status == 422
    assert answer["type"] == f"urn:sdcom:problem:{problem}"
    assert words in answer["detail"]


def test_too_large_a_body_is_refused_before_it_is_read(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        connection.sendall(post_head("Content-Length: 99999999999") + bytes(1000))
        status, problem = answer_on(connection)
    assert status == 413
    assert str(LIMIT_BYTES) in problem["detail"]


def test_an_endless_body_is_refused_when_the_count_passes(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        connection.sendall(post_head("Transfer-Encoding: chunked"))
        for _ in range(LIMIT_BYTES // 0x10000 + 1):
            connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        status, _ = answer_on(connection)
        with pytest.raises(ConnectionError):  # noqa: PT012 - it takes some sends to notice
            for _ in range(2000):
                connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                time.sleep(0.005)
    assert status == 413


def test_a_client_that_leaves_half_way_is_noted_and_forgotten(server: ServerProcess, video: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        head = post_head("X-Request-ID: leaver", f"Content-Length: {len(video)}")
        connection.sendall(head + video[:100])
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        noted = [event for event in server.events() if event.get("request_id") == "leaver"]
        if noted:
            break
        time.sleep(0.02)
    assert noted[0]["outcome"] == "cancelled"
    assert samples(server)["sdcom_in_flight"] == 0


def test_two_hundred_uploads_at_once_are_answered_or_refused_clearly(
    server: ServerProcess, video: bytes
) -> None:
    before = samples(server)

    async def flood() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=200)
        base_url = f"http://127.0.0.1:{server.http_port}"
        async with httpx.AsyncClient(base_url=base_url, limits=limits, timeout=60) as client:
            sends = (
                client.post("/recognize?detail=summary", content=video, headers=VIDEO) for _ in range(200)
            )
            return await asyncio.gather(*sends)

    answers = asyncio.run(flood())
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 503}
    assert statuses[200] >= 60
    for answer in answers:
        assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
    after = samples(server)
    for outcome, status in (("ok", 200), ("rejected", 503)):
        key = sample_name("sdcom_requests_total", transport="http", outcome=outcome)
        assert after.get(key, 0) - before.get(key, 0) == statuses[status]
    assert after["sdcom_in_flight"] == 0
    growth = after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]
    assert growth < 150e6


def test_sigterm_lets_an_upload_in_flight_finish(tiny_model_dir: Path, video: bytes) -> None:
    with ServerProcess({"SDCOM_MODEL_DIR": str(tiny_model_dir), "SDCOM_THREADS": "1"}) as server:
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
            connection.sendall(post_head(f"Content-Length: {len(video)}") + video[:1000])
            while samples(server)["sdcom_in_flight"] == 0:
                time.sleep(0.01)
            stopped: list[int] = []
            stopper = threading.Thread(target=lambda: stopped.append(server.stop()))
            stopper.start()
            while server.request("GET", "/health/ready")[0] != 503:
                time.sleep(0.01)
            connection.sendall(video[1000:])
            assert answer_on(connection)[0] == 200
        stopper.join(30)
    assert stopped == [0]


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdcom", "serve", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_misspelt_setting_is_one_line_and_exit_code_2() -> None:
    ended = start(SDCOM_QUEUE_SZIE="3")
    assert ended.returncode == 2
    assert ended.stderr.strip() == "sdcom: unknown setting SDCOM_QUEUE_SZIE; did you mean SDCOM_QUEUE_SIZE?"


def test_a_missing_model_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    ended = start("--model", str(tmp_path / "nowhere"), "--port", "0")
    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "nowhere" in ended.stderr


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_port_in_use_is_one_line_and_exit_code_2(tiny_model_dir: Path, option: str) -> None:
    other = "--port" if option == "--grpc-port" else "--grpc-port"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = start("--model", str(tiny_model_dir), option, port, other, "0")
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if line.startswith("sdcom: ")]
    assert len(lines) == 1
    assert port in lines[0]
