"""The counts stay exact, and the log event says what happened."""

import json
import logging
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from sdcom.engine.ledger import Ledger, Part
from sdcom.recognition import Provider
from service.logs import configure_logs, get_logger, request_id_from
from service.metrics import Metrics


def test_sums_beyond_the_floats_stay_exact() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.work.add(Ledger(baseline_macs=2**60))
    for _ in range(256):
        metrics.work.add(Ledger(baseline_macs=1, macs=Counter({Part.GATE: 1})))
    # 2**60 + 256 is a float; 256 additions of 1 to the float 2**60 would have left it unchanged.
    assert metrics.registry.get_sample_value("sdcom_baseline_macs_total") == 2**60 + 256


def test_every_metric_has_its_published_name() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.model_loaded("tiny@0", (0.0, 0.25), Provider("torch-cpu", "2.7.0"))
    metrics.video_composed(Ledger(lam=0.3))
    metrics.request_done("http", "ok")
    metrics.request_rejected("too-large")
    metrics.decode_failed("crash")
    metrics.damaged_video_answered()
    metrics.worker_restarted("crash")
    metrics.video_answered({"decode": 10.0, "total": 20.0})
    text = generate_latest(metrics.registry).decode()
    for line in (
        'sdcom_requests_total{outcome="ok",transport="http"} 1.0',
        "sdcom_request_seconds_sum 0.02",
        'sdcom_stage_seconds_sum{stage="decode"} 0.01',
        'sdcom_macs_total{part="dynamic"} 0.0',
        "sdcom_baseline_macs_total 0.0",
        "sdcom_answered_macs_total 0.0",
        'sdcom_frames_total{width="0.25"} 0.0',
        "sdcom_in_flight 0.0",
        'sdcom_rejected_total{reason="too-large"} 1.0',
        'sdcom_decode_failures_total{reason="crash"} 1.0',
        "sdcom_damaged_videos_total 1.0",
        'sdcom_decode_worker_restarts_total{reason="crash"} 1.0',
        'sdcom_model_info{model="tiny@0"} 1.0',
        'sdcom_provider_info{provider="torch-cpu",version="2.7.0"} 1.0',
        'sdcom_budget_lambda_bucket{le="0.0"} 0.0',
        'sdcom_budget_lambda_bucket{le="0.5"} 1.0',
        "sdcom_budget_lambda_sum 0.3",
        "process_resident_memory_bytes",
    ):
        assert line in text


@pytest.fixture
def _logging_restored() -> object:
    root = logging.getLogger()
    saved = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = saved


@pytest.mark.usefixtures("_logging_restored")
def test_logs_are_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    logger = get_logger()
    logger.info("request", request_id="r1", bytes=3)
    logger.debug("request", request_id="hidden")
    logger.error("request", request_id="r2", exc_info=KeyError("cause"))
    logging.getLogger("a.library").warning("careful")
    first, second, third = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first.items() >= {"event": "request", "level": "info", "request_id": "r1", "bytes": 3}.items()
    assert "KeyError" in second["exception"]
    assert third["event"] == "careful"


def test_a_safe_request_id_is_kept() -> None:
    assert request_id_from("trace:01-ab.c_d") == "trace:01-ab.c_d"


@pytest.mark.parametrize("sent", [None, "", "a b", "a\n", "x" * 129, "é"])
def test_another_request_id_is_replaced(sent: str | None) -> None:
    assert request_id_from(sent) != sent
