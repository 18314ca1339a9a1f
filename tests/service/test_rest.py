"""REST over a fake recogniser: what comes in, what goes out, and what is written down."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from structlog.testing import LogCapture

from sdcom.errors import (
    DecoderKilledError,
    FlopsBelowFloorError,
    TimeBelowFloorError,
    UndecodableVideoError,
    UnsupportedContainerError,
    VideoLimitError,
)
from sdcom.recognition import Budget
from service.engine import Engine
from tests.service.conftest import FakeRecognizer

VIDEO = {"Content-Type": "video/mp4"}


def assert_problem(response: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """Check the form of RFC 9457 and return the problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "request_id"}
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    for word in words:
        assert word in problem["detail"]
    return problem


async def admitted(engine: Engine, count: int) -> None:
    """Return once so many requests are in the house."""
    while engine.admission.num_admitted < count:  # noqa: ASYNC110 - admission has no event for a test's sake
        await asyncio.sleep(0.001)


def metric(engine: Engine, name: str, **labels: str) -> float | None:
    return engine.metrics.registry.get_sample_value(name, labels)


async def test_a_raw_body_is_recognised(client: httpx.AsyncClient, recognizer: FakeRecognizer) -> None:
    response = await client.post("/recognize", content=b"video bytes", headers=VIDEO)
    assert response.status_code == 200
    assert recognizer.received == [b"video bytes"]
    answer = response.json()
    assert answer["predictions"][0] == {"label": "wave", "index": 1, "score": 0.7000000000000001}
    assert answer["compute"]["widths"] == {"0": 15, "0.25": 1}
    stages = ["upload", "queue", "decode", "static", "gate", "dynamic", "fusion", "total"]
    assert list(answer["timing_ms"]) == stages
    assert answer["model"] == "fake@1"


async def test_a_form_and_a_raw_body_give_the_same_answer(client: httpx.AsyncClient) -> None:
    data = bytes(range(256)) * 300
    raw = (await client.post("/recognize", content=data, headers=VIDEO)).json()
    form = (await client.post("/recognize", files={"video": ("a.mp4", data, "video/mp4")})).json()
    for answer in (raw, form):
        del answer["request_id"], answer["timing_ms"]
    assert raw == form


async def test_the_summary_has_no_frames(client: httpx.AsyncClient) -> None:
    frames = (await client.post("/recognize", content=b"v", headers=VIDEO)).json()
    summary = (await client.post("/recognize?detail=summary", content=b"v", headers=VIDEO)).json()
    assert set(frames) - set(summary) == {"frames"}


async def test_the_parameters_reach_the_recogniser(
    client: httpx.AsyncClient, recognizer: FakeRecognizer
) -> None:
    one = await client.post("/recognize?top_k=1&budget=0.25", content=b"v", headers=VIDEO)
    await client.post("/recognize?max_gflops=9.5", content=b"v", headers=VIDEO)
    await client.post("/recognize?max_ms=12.5", content=b"v", headers=VIDEO)
    await client.post("/recognize", content=b"v", headers=VIDEO)
    assert len(one.json()["predictions"]) == 1
    assert recognizer.budgets == [Budget(share=0.25), Budget(gflops=9.5), Budget(ms=12.5), None]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("topk=3", ("'topk'", "'top_k'")),
        ("Budget=0.5", ("'Budget'", "'budget'")),
        ("xyzzy=1", ("'xyzzy'", "valid names")),
        ("top_k=1&top_k=2", ("'top_k'", "more than once")),
        ("top_k=0", ("top_k", "'0'")),
        ("top_k=many", ("top_k", "'many'")),
        ("budget=1.5", ("budget", "'1.5'")),
        ("budget=nan", ("budget", "finite")),
        ("max_gflops=-1", ("max_gflops", "'-1'")),
        ("budget=0.5&max_gflops=3", ("`budget`", "`max_gflops`", "only one")),
        ("max_ms=nan", ("max_ms", "finite")),
        ("max_ms=30&max_gflops=3", ("`max_ms`", "`max_gflops`", "only one")),
        ("deadline_ms=0", ("deadline_ms",)),
        ("detail=everything", ("detail", "'frames' or 'summary'", "'everything'")),
    ],
)
async def test_parameters_that_cannot_be_used_are_refused_by_name(
    client: httpx.AsyncClient, recognizer: FakeRecognizer, query: str, words: tuple[str, ...]
) -> None:
    assert_problem(await client.post(f"/recognize?{query}", content=b"v", headers=VIDEO), 400, *words)
    assert recognizer.received == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json", "image/png", "application/x-mpegurl"]
)
async def test_another_content_type_is_told_what_is_right(
    client: httpx.AsyncClient, content_type: str
) -> None:
    response = await client.post("/recognize", content=b"v", headers={"Content-Type": content_type})
    assert_problem(response, 415, content_type, "video/*", "multipart/form-data")


async def test_no_content_type_is_told_what_is_right(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/recognize", content=b"v"), 415, "(none)", "video/*")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"files": {"vidio": ("a.mp4", b"v")}}, ("'vidio'", "'video'")),
        (
            {"files": {"video": ("a.mp4", b"v")}, "data": {"budget": "0.3", "top_k": "3"}},
            ("'budget'", "URL", "/recognize?budget="),
        ),
        ({"files": {"video": ("a.mp4", b"v")}, "data": {"note": "3"}}, ("'note'",)),
        ({"files": [("video", ("a.mp4", b"v")), ("video", ("b.mp4", b"v"))]}, ("Too many files",)),
        ({"data": {"video": "text"}, "files": {"x": ("a.mp4", b"v")}}, ("'x'",)),
        (
            {"content": b"--b\r\nnonsense", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            ("0 times",),
        ),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, ("boundary",)),
        (
            {"content": b"--b--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            ("'video'",),
        ),
    ],
)
async def test_forms_that_are_not_one_video_are_refused(
    client: httpx.AsyncClient, form: dict[str, Any], words: tuple[str, ...]
) -> None:
    assert_problem(await client.post("/recognize", **form), 400, *words)


async def test_an_empty_upload_is_refused(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/recognize", content=b"", headers=VIDEO), 422, "empty")
    assert_problem(await client.post("/recognize", files={"video": ("a.mp4", b"")}), 422, "empty")


async def endless(taken: list[int]) -> AsyncIterator[bytes]:
    while True:
        taken.append(1)
        yield bytes(10_000)


async def test_an_upload_without_a_length_is_refused_when_the_count_passes(client: httpx.AsyncClient) -> None:
    taken: list[int] = []
    assert_problem(await client.post("/recognize", content=endless(taken), headers=VIDEO), 413, "100000")
    assert len(taken) <= 22  # the limit, and as much again that is thrown away


async def test_a_form_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    slightly_more = {"video": ("a.mp4", bytes(100_001))}
    assert_problem(await client.post("/recognize", files=slightly_more), 413, "100001", "100000")
    assert_problem(await client.post("/recognize", files={"video": ("a.mp4", bytes(900_000))}), 413)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (UnsupportedContainerError("a playlist"), 415, "container"),
        (VideoLimitError("9000 pixels"), 422, "limit"),
        (UndecodableVideoError("no frame"), 422, "undecodable"),
        (DecoderKilledError("timeout", "took 20 s"), 422, "timeout"),
        (FlopsBelowFloorError(1, 2, 10), 422, None),
        (TimeBelowFloorError(1, 2), 422, None),
    ],
)
async def test_each_error_has_its_status_and_is_counted(
    client: httpx.AsyncClient,
    engine: Engine,
    recognizer: FakeRecognizer,
    *,
    error: Exception,
    status: int,
    reason: str | None,
) -> None:
    recognizer.error = error
    problem = assert_problem(await client.post("/recognize", content=b"v", headers=VIDEO), status, str(error))
    name = problem["type"].removeprefix("urn:sdcom:problem:")
    assert metric(engine, "sdcom_rejected_total", reason=name) == 1
    assert metric(engine, "sdcom_requests_total", transport="http", outcome="rejected") == 1
    if reason:
        assert metric(engine, "sdcom_decode_failures_total", reason=reason) == 1


async def test_an_unforeseen_error_tells_the_log_and_not_the_caller(
    client: httpx.AsyncClient, engine: Engine, recognizer: FakeRecognizer, events: LogCapture
) -> None:
    recognizer.error = RuntimeError("the secret is swordfish")
    problem = assert_problem(await client.post("/recognize", content=b"v", headers=VIDEO), 500)
    assert "swordfish" not in str(problem)
    assert events.entries[-1]["exc_info"] is recognizer.error
    assert events.entries[-1]["request_id"] == problem["request_id"]
    assert metric(engine, "sdcom_requests_total", transport="http", outcome="failed") == 1


async def test_unknown_paths_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/nowhere"), 404, "/nowhere")
    response = await client.get("/recognize")
    assert_problem(response, 405, "POST")
    assert response.headers["allow"] == "POST"


async def test_a_full_house_refuses_with_the_time_to_come_back(
    client: httpx.AsyncClient, engine: Engine, recognizer: FakeRecognizer
) -> None:
    recognizer.gate.clear()
    sent = [
        asyncio.create_task(client.post("/recognize", content=b"v", headers=VIDEO)) for _ in range(4)
    ]  # two threads and two places in the queue
    await admitted(engine, 4)
    response = await client.post("/recognize", content=b"v", headers=VIDEO)
    assert_problem(response, 503, "SDCOM_QUEUE_SIZE")
    assert int(response.headers["retry-after"]) >= 1
    assert metric(engine, "sdcom_in_flight") == 4
    recognizer.gate.set()
    assert [answer.status_code for answer in await asyncio.gather(*sent)] == [200] * 4
    assert metric(engine, "sdcom_in_flight") == 0


@pytest.mark.parametrize("query", ["deadline_ms=1" + 400 * "0", "max_gflops=1e308"])
async def test_numbers_beyond_all_measure_mean_no_limit(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.post(f"/recognize?{query}", content=b"v", headers=VIDEO)).status_code == 200


async def test_a_deadline_that_passes_is_a_408_and_leaves_the_queue(
    client: httpx.AsyncClient, engine: Engine, recognizer: FakeRecognizer
) -> None:
    recognizer.gate.clear()
    response = await client.post("/recognize?deadline_ms=50", content=b"v", headers=VIDEO)
    assert_problem(response, 408, "50 ms", "deadline_ms")
    assert metric(engine, "sdcom_requests_total", transport="http", outcome="expired") == 1
    recognizer.gate.set()
    assert (await client.post("/recognize", content=b"w", headers=VIDEO)).status_code == 200


async def test_a_deadline_shorter_than_the_queue_is_refused_at_once_and_a_longer_one_waits(
    client: httpx.AsyncClient, engine: Engine, recognizer: FakeRecognizer
) -> None:
    for _ in range(100):
        engine.admission._turn.add(2.0)
    recognizer.gate.clear()
    sent = [asyncio.create_task(client.post("/recognize", content=b"v", headers=VIDEO)) for _ in range(2)]
    await admitted(engine, 2)
    response = await client.post("/recognize?deadline_ms=2500", content=b"v", headers=VIDEO)
    assert_problem(response, 503, "deadline_ms", "3.0 s")
    assert response.headers["retry-after"] == "1"
    assert metric(engine, "sdcom_rejected_total", reason="overloaded") == 1
    sent.append(asyncio.create_task(client.post("/recognize?deadline_ms=9000", content=b"v", headers=VIDEO)))
    await admitted(engine, 3)
    recognizer.gate.set()
    assert [answer.status_code for answer in await asyncio.gather(*sent)] == [200] * 3


async def test_work_whose_caller_has_gone_is_dropped_before_it_begins(
    client: httpx.AsyncClient, engine: Engine, recognizer: FakeRecognizer
) -> None:
    recognizer.gate.clear()
    busy = [asyncio.create_task(client.post("/recognize", content=b"busy", headers=VIDEO)) for _ in range(2)]
    for _ in busy:
        await asyncio.to_thread(recognizer.started.acquire)
    left = asyncio.create_task(client.post("/recognize", content=b"left", headers=VIDEO))
    await admitted(engine, 3)
    left.cancel()
    await asyncio.wait([left])
    recognizer.gate.set()
    await asyncio.gather(*busy)
    await client.post("/recognize", content=b"last", headers=VIDEO)
    assert recognizer.received == [b"busy", b"busy", b"last"]


async def test_who_sends_a_damaged_file_is_told_and_so_are_log_and_metrics(
    client: httpx.AsyncClient, recognizer: FakeRecognizer, events: LogCapture
) -> None:
    told = []
    for recognizer.num_unreadable_frames in (0, 3):
        answer = (await client.post("/recognize", content=b"v", headers=VIDEO)).json()
        told.append(answer["video"]["num_unreadable_frames"])
    assert told == [0, 3]
    logged = [event for event in events.entries if event.get("outcome") == "ok"]
    assert [event.get("unreadable_frames") for event in logged] == [None, 3]
    assert "sdcom_damaged_videos_total 1.0\n" in (await client.get("/metrics")).text
    recognizer.num_unreadable_frames, recognizer.num_missing_frames = 0, 40
    answer = (await client.post("/recognize", content=b"v", headers=VIDEO)).json()
    assert answer["video"]["num_missing_frames"] == events.entries[-1]["missing_frames"] == 40
    assert "sdcom_damaged_videos_total 2.0\n" in (await client.get("/metrics")).text


async def test_the_ledger_sums_exactly(client: httpx.AsyncClient, engine: Engine) -> None:
    answers = [
        (await client.post("/recognize", content=bytes(size), headers=VIDEO)).json()
        for size in (1, 999, 50_001)
    ]
    for part in ("static", "gate", "dynamic", "fusion"):
        summed = sum(round(answer["compute"][f"{part}_gflops"] * 1e9) for answer in answers)
        assert metric(engine, "sdcom_macs_total", part=part) == summed
    assert metric(engine, "sdcom_baseline_macs_total") == 1000 * (1 + 999 + 50_001)
    assert metric(engine, "sdcom_frames_total", width="0") == 45
    assert metric(engine, "sdcom_frames_total", width="1") == 0
    assert metric(engine, "sdcom_budget_lambda_count") == 3
    assert metric(engine, "sdcom_provider_info", provider="torch-cpu", version="0") == 1


async def test_every_request_is_one_event_with_its_id(client: httpx.AsyncClient, events: LogCapture) -> None:
    headers = VIDEO | {"X-Request-ID": "abc-123"}
    response = await client.post("/recognize", content=b"video", headers=headers)
    assert response.json()["request_id"] == response.headers["x-request-id"] == "abc-123"
    (event,) = events.entries
    assert event["event"] == "request"
    wanted = {
        "request_id": "abc-123",
        "transport": "http",
        "route": "/recognize",
        "outcome": "ok",
        "bytes": 5,
    }
    assert event.items() >= wanted.items()
    assert event["duration_ms"] > 0


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", 'quote"', "new\tline"])
async def test_an_unsafe_request_id_is_replaced(client: httpx.AsyncClient, sent: str) -> None:
    response = await client.get("/health/live", headers={"X-Request-ID": sent})
    assert response.headers["x-request-id"] != sent
    assert len(response.headers["x-request-id"]) == 32


async def test_readiness_follows_the_warm_up_and_the_drain_and_requests_are_answered_meanwhile_only(
    cold_client: httpx.AsyncClient, cold_engine: Engine, recognizer: FakeRecognizer
) -> None:
    client, engine = cold_client, cold_engine
    assert_problem(await client.get("/health/ready"), 503, "warming")
    assert (await client.get("/health/live")).json() == {"status": "live"}
    early = await client.post("/recognize", content=b"v", headers=VIDEO)
    assert_problem(early, 503, "warming")
    assert int(early.headers["retry-after"]) >= 1
    assert recognizer.received == []
    await engine.warm_up()
    assert (await client.get("/health/ready")).json() == {"status": "ready"}
    assert (await client.post("/recognize", content=b"v", headers=VIDEO)).status_code == 200
    engine.admission.close()
    response = await client.get("/health/ready")
    assert_problem(response, 503, "shutting down")
    assert response.headers["retry-after"]
    assert_problem(await client.post("/recognize", content=b"v", headers=VIDEO), 503, "shutting down")


async def test_the_model_is_described(client: httpx.AsyncClient) -> None:
    (model,) = (await client.get("/models")).json()["models"]
    assert model["labels"] == ["stand", "wave"]
    assert 0 < model["floor_gflops"] < model["baseline_gflops"]


async def test_the_docs_load_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert "http://" not in page
    assert "https://" not in page
    for path in (
        "/static-offline-docs/swagger-ui-bundle.js",
        "/static-offline-docs/swagger-ui.css",
        "/openapi.json",
    ):
        assert path in page
        assert (await client.get(path)).status_code == 200
    assert '"validatorUrl": null' in page


async def test_the_openapi_document_is_whole(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    recognize = document["paths"]["/recognize"]["post"]
    assert set(recognize["responses"]) == {"200", "400", "408", "413", "415", "422", "500", "503"}
    assert {parameter["name"] for parameter in recognize["parameters"]} == {
        "top_k",
        "budget",
        "max_gflops",
        "max_ms",
        "min_confidence",
        "min_budget",
        "deadline_ms",
        "detail",
    }
    assert "multipart/form-data" in recognize["requestBody"]["content"]
    assert {"RecognitionSchema", "ProblemSchema"} <= set(document["components"]["schemas"])


async def test_the_welcome_page_points_at_the_docs(client: httpx.AsyncClient) -> None:
    assert 'href="docs"' in (await client.get("/")).text
