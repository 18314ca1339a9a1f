"""Prometheus rules and Grafana dashboards: valid, tested, and about metrics that the service really has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from sdcom.engine.ledger import Part
from service.errors import PROBLEMS, UNEXPECTED
from service.metrics import Metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
SCRAPED_BY_PROMETHEUS = {"up"}
PROBLEM_KINDS = [UNEXPECTED, *PROBLEMS.values()]

# What each label can say; a selector on another value would silently never match.
LABEL_VALUES = {
    ("sdcom_requests_total", "outcome"): {"ok"} | {kind.outcome for kind in PROBLEM_KINDS},
    ("sdcom_rejected_total", "reason"): {kind.name for kind in PROBLEM_KINDS},
    ("sdcom_decode_failures_total", "reason"): {
        "timeout", "crash", "memory", "cpu", "container", "limit", "undecodable",
    },
    ("sdcom_decode_worker_restarts_total", "reason"): {
        "timeout", "crash", "memory", "cpu", "deadline", "recycled",
    },
    ("sdcom_stage_seconds_bucket", "stage"): {"upload", "queue", "decode", *Part},
}  # fmt: skip


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _panels(dashboard: Path) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return panels


def _expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in _rules())
    for dashboard in DASHBOARDS:
        for panel in _panels(dashboard):
            yield from (target["expr"] for target in panel.get("targets", []))


def _exposed_names() -> set[str]:
    """Return every sample's name that the service's registry can expose."""
    names = set()
    for family in Metrics(CollectorRegistry()).registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


def _metrics_in(expression: str) -> set[str]:
    return set(
        re.findall(r"\b(?:sdcom|process|python)[a-z_:0-9]*|\bup\b", re.sub(r'"[^"]*"', "", expression))
    )


def _promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed; Debian's package `prometheus` has it")
    return found


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expression", list(_expressions()))
def test_rules_and_dashboards_ask_for_metrics_that_the_service_has(expression: str) -> None:
    recorded = {rule["record"] for rule in _rules() if "record" in rule}
    asked = _metrics_in(expression)
    assert asked
    assert asked <= _exposed_names() | recorded | SCRAPED_BY_PROMETHEUS


@pytest.mark.parametrize("expression", list(_expressions()))
def test_selectors_name_values_that_the_service_uses(expression: str) -> None:
    for metric, selectors in re.findall(r"(\w+)\{([^}]*)\}", expression):
        for label, values in re.findall(r'(\w+)\s*(?:=~|!~|=|!=)\s*"([^"]*)"', selectors):
            if label != "job":
                assert set(values.split("|")) <= LABEL_VALUES[metric, label]


def test_the_job_of_the_selectors_is_the_one_that_is_scraped() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    asked = {job for expression in _expressions() for job in re.findall(r'job="(\w+)"', expression)}
    assert asked == jobs


def test_prometheus_accepts_its_configuration() -> None:
    _run(_promtool(), "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    _run(_promtool(), "test", "rules", DEPLOY / "prometheus" / "rules_test.yml")
    tested = (DEPLOY / "prometheus" / "rules_test.yml").read_text()
    for rule in _rules():
        assert "alert" not in rule or f"alertname: {rule['alert']}\n" in tested


def test_the_dashboards_queries_are_valid(tmp_path: Path) -> None:
    expressions = [re.sub(r"\$__\w+", "5m", expression) for expression in _expressions()]
    rules = [{"record": f"panel_{index}", "expr": expression} for index, expression in enumerate(expressions)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    _run(_promtool(), "check", "rules", file)


def test_every_alert_has_its_paragraph_in_the_operators_guide() -> None:
    guide = (DEPLOY.parent / "docs" / "operations.md").read_text()
    headings = {line.removeprefix("### ").strip() for line in guide.splitlines() if line.startswith("### ")}
    for rule in _rules():
        if "alert" in rule:
            assert rule["alert"] in headings
            assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.name)
def test_panels_use_the_provisioned_datasource_and_do_not_overlap(dashboard: Path) -> None:
    provisioning = DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    uids = {source["uid"] for source in yaml.safe_load(provisioning.read_text())["datasources"]}
    taken: set[tuple[int, int]] = set()
    panels = _panels(dashboard)
    for panel in panels:
        assert panel["type"] == "row" or {t["datasource"]["uid"] for t in panel["targets"]} <= uids
        at = panel["gridPos"]
        columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells = {(column, row) for column in columns for row in rows}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
