"""`sdcom evaluate` and `sdcom calibrate`, as somebody types them."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdcom.checkpoint import load_info, write_info
from sdcom.errors import InvalidParameterError
from sdcom.model import load_model
from training.calibration import accuracy_interval
from training.cli import app
from training.cli.models import chosen_device
from training.data import DataError, read_split
from training.evaluation.record import Method, read_records


@pytest.fixture
def model_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A model directory that may be written to."""
    return shutil.copytree(tiny_model_dir, tmp_path / "tiny")


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_evaluate_prints_a_row_for_each_way_of_answering_and_controls(
    model_dir: Path, rendered_set: Path
) -> None:
    options = ("--split", "split", "--timed", 0, "--budget", 0.6, "--budget", 0.01)
    printed = _run("evaluate", model_dir, "--data", rendered_set, *options)
    for row in ("unlimited budget", "default budget", "full-width baseline", "static network alone"):
        assert row in printed
    for control in ("random widths", "one width", "fewer frames"):
        assert control in printed
    assert "SDCOM, budget 0.6" in printed
    assert "refused: 0.01" in printed


def test_evaluate_writes_a_record_with_its_command_and_machine(
    model_dir: Path, rendered_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records" / "one.json"
    options = ("--split", "split", "--timed", 1, "--name", "a kind", "--output", path)
    monkeypatch.setenv("COLUMNS", "200")
    printed = _run("evaluate", model_dir, "--data", rendered_set, *options, "--record")
    (record,) = read_records([path])
    assert (record.name, record.model, record.split) == ("a kind", "tiny@0", "split")
    assert record.command == f"sdcom evaluate tiny --data {rendered_set.name} --split split"
    assert record.machine
    assert {"python", "torch"} <= record.versions.keys()
    assert record.num_clips == len(read_split(rendered_set, "split").test)
    assert {"static", "gate", "fusion", "dynamic at 1"} <= record.timing.part_ms.keys()
    whole = {row.name: row for row in record.timing.whole}
    assert set(whole) == {Method.UNLIMITED, Method.DEFAULT, Method.BASELINE}
    assert all(0 < row.decode_ms < row.total_ms for row in whole.values())
    scores = load_info(model_dir).evaluation["split"]["scores"]
    assert scores[0]["name"] == Method.UNLIMITED
    row = record.of(Method.UNLIMITED)[0]
    assert scores[0]["top1"] == row.accuracy.top1
    assert row.top1_interval == accuracy_interval(row.accuracy.top1, record.num_clips)
    low, high = scores[0]["top1_interval"]
    assert (low, high) == row.top1_interval
    assert re.search(rf"{100 * row.accuracy.top1:.1f} \({100 * low:.0f}-{100 * high:.0f}\) ", printed)


def test_class_folders_are_evaluated_as_well_and_the_command_says_so(
    model_dir: Path, rendered_set: Path, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    options = ("--format", "folders", "--sampling", "cheapest", "--timed", 0, "--output", path)
    _run("evaluate", model_dir, "--data", rendered_set, *options)
    (record,) = read_records([path])
    options_said = "--format folders --sampling cheapest"
    assert record.command == f"sdcom evaluate tiny --data {rendered_set.name} {options_said}"
    assert record.split == "test"
    assert record.num_clips == 6  # a fifth of eight clips of each of three classes


def test_evaluating_on_nothing_says_what_is_missing(
    model_dir: Path, rendered_set: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="nowhere"):
        _run("evaluate", model_dir, "--data", tmp_path / "nowhere")
    manifest = (rendered_set / "splits.tsv").read_text(encoding="utf-8")
    (tmp_path / "splits.tsv").write_text(manifest.replace("\ttest", "\ttrain"), encoding="utf-8")
    with pytest.raises(DataError, match="no test clips in split"):
        _run("evaluate", model_dir, "--data", tmp_path, "--split", "split")


def test_calibrate_takes_the_groups_that_training_held_out_and_says_so(
    model_dir: Path, rendered_set: Path
) -> None:
    train = read_split(rendered_set, "split").train
    before = load_info(model_dir)
    provenance = {"held_out_groups": sorted({clip.group for clip in train})[:2], "licence": "ours"}
    write_info(model_dir, before.model_copy(update={"provenance": provenance}))
    printed = _run("calibrate", model_dir, "--data", rendered_set, "--split", "split")
    info = load_model(model_dir).info
    num_clips = sum(clip.group in provenance["held_out_groups"] for clip in train)
    assert info.provenance["num_calibration_clips"] == num_clips
    assert (
        info.provenance["calibrated_on"] == f"{rendered_set.name} split, held-out groups: {num_clips} clips"
    )
    assert info.provenance["licence"] == "ours"
    assert info.calibration != before.calibration
    assert info.exits
    assert f"default budget {info.default_budget:g}" in printed


def test_calibrate_names_class_folders_without_a_split_and_doubts_a_handful_of_clips(
    model_dir: Path, rendered_set: Path
) -> None:
    arguments = ["calibrate", model_dir, "--data", rendered_set, "--format", "folders", "--on", "test"]
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    on = load_info(model_dir).provenance["calibrated_on"]
    assert on == f"{rendered_set.name}, test side: 6 clips"
    assert re.search(
        r"warning: calibrated on 6 clips only: .* from \d+% to \d+% \(95 % interval\)", ended.stderr
    )


def test_calibrate_without_known_groups_asks_for_other_data(model_dir: Path, rendered_set: Path) -> None:
    with pytest.raises(DataError, match="use --on test to calibrate on other data's test side"):
        _run("calibrate", model_dir, "--data", rendered_set, "--split", "split")
    _run("calibrate", model_dir, "--data", rendered_set, "--split", "split", "--on", "test")
    assert "test side" in load_info(model_dir).provenance["calibrated_on"]


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidParameterError, match="no device 'gpu0'"):
        chosen_device("gpu0")
