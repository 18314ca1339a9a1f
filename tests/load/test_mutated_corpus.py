"""Thousands of damaged files through one running server (`make fuzz`; the quick tests leave it out)."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.demo import ServerProcess
from tests.conftest import REPOSITORY
from tests.sdcom.video.mutate import mutants, seed_files
from tests.sdcom.video.videos import encode

VIDEO = {"Content-Type": "application/octet-stream"}
NUM_FILES = 2000
DECODE_TIMEOUT_S = 6.0
# A request may wait for another's decoding to be killed, then be killed itself.
ANSWER_LIMIT_S = 2 * DECODE_TIMEOUT_S + 10
MEMORY_GROWTH_BYTES = 64e6


@pytest.fixture
def server(tiny_model_dir: Path) -> Iterator[ServerProcess]:
    environment = {
        "SDCOM_MODEL_DIR": str(tiny_model_dir),
        "SDCOM_THREADS": "1",
        "SDCOM_DECODE_WORKERS": "2",
        "SDCOM_DECODE_TIMEOUT_S": str(DECODE_TIMEOUT_S),
    }
    with ServerProcess(environment) as server:
        yield server


def resident_bytes(server: ServerProcess) -> float:
    text = httpx.get(f"http://127.0.0.1:{server.http_port}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return families["process_resident_memory_bytes"].samples[0].value


def send(server: ServerProcess, name: str, data: bytes) -> tuple[str, int, float, Any]:
    started = time.monotonic()
    status, answer = server.request("POST", "/recognize?detail=summary", data, VIDEO)
    return name, status, time.monotonic() - started, answer


@pytest.mark.fuzz
def test_damaged_files_neither_crash_nor_hang_nor_swell_the_server(server: ServerProcess) -> None:
    torture = REPOSITORY.parent / "shared" / "data" / "torture"
    seeds = seed_files(torture if torture.is_dir() else None)
    good = encode(num_frames=16)
    reference = server.request("POST", "/recognize", good, VIDEO)[1]["predictions"]

    statuses: Counter[int] = Counter()
    memory: list[float] = []
    with ThreadPoolExecutor(4) as threads:
        corpus = list(mutants(seeds, NUM_FILES, seed=2))
        for batch in range(0, NUM_FILES, 100):
            files = corpus[batch : batch + 100]
            for name, status, seconds, answer in threads.map(lambda file: send(server, *file), files):
                assert status in {200, 415, 422}, (name, answer)
                assert seconds < ANSWER_LIMIT_S, name
                assert status == 200 or len(answer["detail"]) > 10, name
                statuses[status] += 1
            memory.append(resident_bytes(server))
            assert server.request("POST", "/recognize", good, VIDEO)[1]["predictions"] == reference

    assert sum(statuses.values()) == NUM_FILES
    assert min(statuses[200], statuses[415] + statuses[422]) > NUM_FILES // 20, statuses
    settled = memory[len(memory) // 4]
    assert max(memory[len(memory) // 4 :]) - settled < MEMORY_GROWTH_BYTES, memory
    assert server.stop() == 0
    assert not [event for event in server.events() if event.get("level") == "error"]
    print(f"{dict(statuses)}, resident {memory[0] / 1e6:.0f} to {memory[-1] / 1e6:.0f} MB")  # noqa: T201 - for `make fuzz`
