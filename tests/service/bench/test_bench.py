"""The benchmarks: their arithmetic, and that each command prints and saves what it measured."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sdcom.engine.loading import load_backend
from sdcom.errors import InvalidParameterError, SettingsError
from sdcom.recognizer import bundled_model_dir
from service.bench.app import app
from service.bench.load import Reply, percentile, summarize
from service.bench.networks import _whole_counts, calibrated_mixes, planned_mixes, time_whole
from service.bench.turns import medians_ms
from tests.conftest import REPOSITORY


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 64))
def test_counts_of_a_mix_are_whole_and_near_their_shares(weights: list[float], total: int) -> None:
    shares = [weight / math.fsum(weights) for weight in weights]
    counts = _whole_counts(shares, total)
    assert sum(counts) == total
    assert all(abs(count - share * total) < 1 for count, share in zip(counts, shares, strict=True))


def test_medians_leave_out_the_first_turn_and_ways_take_turns() -> None:
    called: list[str] = []
    ticks = iter([0.0, 0.0, *(tick for ms in (3, 5, 1, 6, 2, 7) for tick in (0.0, ms / 1e3))])

    def way(name: str) -> Callable[[], None]:
        return lambda: called.append(name)

    medians = medians_ms({"a": way("a"), "b": way("b")}, num_repeats=3, clock=lambda: next(ticks))
    assert medians == pytest.approx({"a": 2.0, "b": 6.0})
    assert called == ["a", "b"] * 4


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(1, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[float], percent: float
) -> None:
    ascending = sorted(values)
    found = percentile(ascending, percent)
    assert sum(value <= found for value in ascending) >= len(ascending) * percent / 100
    assert sum(value < found for value in ascending) < len(ascending) * percent / 100 + 1e-9


def test_only_answers_in_time_are_good_and_only_answers_save() -> None:
    replies = [
        Reply(200, 0.5, saved=0.8),
        Reply(200, 3.0, saved=0.6, max_budget=0.2),
        Reply(503, 0.01),
        Reply(0, 6),
    ]
    row = summarize(replies, rate=2.0, seconds=2.0, deadline_s=1.0)
    assert row.goodput == 0.5
    assert row.statuses == {0: 1, 200: 2, 503: 1}
    assert row.saved == pytest.approx(0.7)
    assert row.mean_max_budget == pytest.approx(0.6)
    assert row.latency_s == {50: 0.5, 95: 3.0, 99: 3.0}


def test_mixes_of_a_model_without_calibration_keep_within_their_budgets(tiny_model_dir: Path) -> None:
    backend = load_backend(tiny_model_dir)
    macs, widths = backend.info.macs, backend.info.config.widths
    mixes = planned_mixes(backend, (1.0, 0.5, 0.1))
    assert [mix.name for mix in mixes] == ["budget 1", "budget 0.5"], "0.1 is below the floor"
    for mix, share in zip(mixes, (1.0, 0.5), strict=True):
        taken = [width for width, count in zip(widths, mix.counts_K, strict=True) for _ in range(count)]
        assert len(taken) == 4
        assert macs.total(taken) <= share * macs.baseline(4)


def test_a_rate_at_which_nothing_was_answered_has_no_saving_and_no_latency() -> None:
    row = summarize([Reply(503, 0.01), Reply(0, 6)], rate=1.0, seconds=2.0, deadline_s=1.0)
    assert (row.goodput, row.saved, row.latency_s) == (0, None, {})


def test_the_whole_is_timed_beside_what_its_flops_promise(tiny_model_dir: Path) -> None:
    backend = load_backend(tiny_model_dir)
    mixes = calibrated_mixes(backend)
    assert [mix.counts_K for mix in mixes] == [(1, 1, 1, 1, 0), (2, 2, 0, 0, 0), (4, 0, 0, 0, 0)]
    baseline, *rows = time_whole(backend, mixes, num_repeats=1)
    assert (baseline.speedup, baseline.ideal_speedup) == (1, 1)
    macs = backend.info.macs
    assert [round(row.gmacs * 1e9) for row in rows] == [
        macs.total([0, 0.25, 0.5, 0.75]),
        macs.total([0, 0, 0.25, 0.25]),
        macs.total([0] * 4),
    ]
    assert all(row.ms > 0 and row.efficiency == row.speedup / row.ideal_speedup for row in rows)


def test_every_command_prints_a_table_and_saves_its_figures(tiny_model_dir: Path, tmp_path: Path) -> None:
    sample = str(bundled_model_dir() / "sample.mp4")
    model = ["--model", str(tiny_model_dir), "--repeats", "1"]
    commands = {
        "parts": ["parts", *model],
        "engine": ["engine", *model],
        "request": ["request", sample, *model, "--budget", "0.5", "--confidence", "0.5"],
        "saturation": ["saturation", *model, "--videos", "3", "--budget", "0.6"],
        "serve": ["serve", "--rate", "4", "--seconds", "1"],
    }
    for name, command in commands.items():
        output = tmp_path / f"{name}.json"
        done = CliRunner().invoke(app, [*command, "--output", str(output)])
        assert done.exit_code == 0, done.output
        assert json.loads(output.read_text())["rows"], name


WITHOUT_DECODERS_AND_ONNX = """
import sys
from pathlib import Path
for name in ("av", "decord", "onnx", "onnxruntime"):
    sys.modules[name] = None  # as where it is not installed: importing it fails
from service.bench.app import app
from typer.testing import CliRunner
model, output = sys.argv[1], Path(sys.argv[2])
common = ["--model", model, "--engine", "torch", "--device", "cpu", "--repeats", "1"]
commands = (["parts", "--batch", "8"], ["engine"], ["saturation", "--videos", "3"])
for command in commands:
    done = CliRunner().invoke(app, [*command, *common, "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert output.read_text()
from sdcom.engine.loading import load_untrained_paper
paper = load_untrained_paper(device="cpu", static="mobilenet_v4_conv_small", static_resolution=160)
print(paper.provider.name, paper.info.config.static_resolution)
"""


def test_the_networks_alone_are_timed_without_decoders_and_without_onnx(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DECODERS_AND_ONNX, str(tiny_model_dir), str(tmp_path / "out.json")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["torch-cpu", "160"]


def test_options_that_do_not_go_together_are_refused(tiny_model_dir: Path) -> None:
    model = ["--model", str(tiny_model_dir)]
    for command in (["--resolution", "160"], ["--batch", "3"]):
        done = CliRunner().invoke(app, ["parts", *model, *command])
        assert isinstance(done.exception, InvalidParameterError), command
    for command in (["--engine", "onnx", "--precision", "bf16"], ["--engine", "torch", "--compile"]):
        done = CliRunner().invoke(app, ["parts", *model, "--device", "cpu", *command])
        assert isinstance(done.exception, SettingsError), command


def test_the_scheduler_is_simulated_by_a_command() -> None:
    done = CliRunner().invoke(app, ["schedule", "--machine", "h200", "--loads", "0.5", "--videos", "20"])
    assert done.exit_code == 0
    assert "h200, simulated" in done.output
