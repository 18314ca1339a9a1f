"""docs/api.md shows what the service answers, and its clients run as they stand there."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from sdcom.recognizer import Recognizer, bundled_model_dir
from service.app import create_app
from service.calls import CallLog
from service.demo import ServerProcess
from service.engine import Engine
from service.logs import get_logger
from service.metrics import Metrics
from service.schemas import RecognitionSchema
from service.settings import Settings
from tests.conftest import REPOSITORY

SAMPLE = bundled_model_dir() / "sample.mp4"
FRAMES_STREAMED = 15  # eight a second of 1.8 seconds
PORT_ON_THE_PAGE = "localhost:50051"


def _blocks(language: str, having: str) -> list[str]:
    page = (REPOSITORY / "docs" / "api.md").read_text()
    blocks = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return [block for block in blocks if having in block]


@pytest.fixture
def shown() -> dict[str, Any]:
    """The answer that the page shows."""
    (block,) = _blocks("json", "predictions")
    return dict(json.loads(block))


def test_the_answer_on_the_page_has_every_field_of_the_schema_and_no_other(shown: dict[str, Any]) -> None:
    assert RecognitionSchema.model_validate(shown).model_dump(mode="json") == shown


async def test_the_answer_on_the_page_is_the_bundled_models(shown: dict[str, Any]) -> None:
    pytest.importorskip("decord")  # which decoded what the page shows
    settings = Settings(decode_workers=1, threads=1)
    metrics = Metrics(CollectorRegistry())
    engine = Engine(Recognizer.load(num_decode_workers=1, num_threads=1), settings, metrics)
    try:
        await engine.warm_up()
        transport = httpx.ASGITransport(app=create_app(engine, CallLog(metrics, get_logger())))
        async with httpx.AsyncClient(transport=transport, base_url="http://sdcom") as client:
            response = await client.post(
                "/recognize?top_k=3", content=SAMPLE.read_bytes(), headers={"Content-Type": "video/mp4"}
            )
    finally:
        engine.close()
    answer = response.json()
    for one in (answer, shown):
        del one["request_id"], one["timing_ms"]
    assert _flat(shown) == pytest.approx(_flat(answer), abs=1e-3)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part, each in value.items() for key, leaf in _flat(each, f"{name}.{part}").items()}


@pytest.fixture(scope="module")
def server(tiny_model_dir: Path) -> Iterator[ServerProcess]:
    environment = {"SDCOM_MODEL_DIR": str(tiny_model_dir), "SDCOM_THREADS": "1", "SDCOM_DECODE_WORKERS": "1"}
    with ServerProcess(environment) as server:
        yield server


@pytest.fixture
def printed_by_client(
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[str], str]:
    """Runs the page's client of a method against the server, on the sample video."""

    def run(method: str) -> str:
        (client,) = _blocks("python", f".{method}(")
        assert PORT_ON_THE_PAGE in client
        shutil.copy(SAMPLE, tmp_path / "clip.mp4")
        monkeypatch.chdir(tmp_path)
        exec(client.replace(PORT_ON_THE_PAGE, f"127.0.0.1:{server.grpc_port}"), {})
        return capsys.readouterr().out

    return run


def test_the_client_that_sends_a_file_runs_as_it_stands_there(
    printed_by_client: Callable[[str], str],
) -> None:
    assert re.search(r'predictions \{\s+label: "(clap|jump|wave)"', printed_by_client("Recognize"))


def test_the_client_that_streams_frames_runs_as_it_stands_there(
    printed_by_client: Callable[[str], str],
) -> None:
    lines = printed_by_client("StreamFrames").splitlines()
    assert len(lines) == FRAMES_STREAMED
    assert lines[0].startswith("0.00 s: ")
    told = re.compile(r"\d\.\d\d s: (clap|jump|wave) [01]\.\d\d, width [01.257]+")
    assert all(told.fullmatch(line) for line in lines)
