"""A run that is killed at any step and resumed ends where the one that was left alone does."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sdcom.checkpoint import WEIGHTS_FILE
from tests.conftest import REPOSITORY
from tests.training.killed import small
from training.data import Split, read_split
from training.records import STEPS_FILE
from training.run import RunOptions, prepare, train
from training.run_directory import RunDirectoryError

NUM_STEPS = 10  # two of stage 1, four of stage 2, and four of the gate alone
PATIENCE_S = 120


@pytest.fixture(scope="module")
def split(rendered_set: Path) -> Split:
    return read_split(rendered_set, "split")


@pytest.fixture(scope="module")
def undisturbed(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    train(small(split.labels), split.train, directory, _options())
    return directory


def _options(**options: Any) -> RunOptions:
    plain: dict[str, Any] = {"version": "0", "device": torch.device("cpu"), "num_threads": 1}
    return RunOptions(**(plain | options))


def _start(clips: Path, directory: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.training.killed", str(clips), str(directory), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)


def _kill_after(process: subprocess.Popen[str], path: Path, num_steps: int, delay_s: float) -> None:
    """Kill a run when it has recorded so many steps, and a moment later."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (path.exists() and path.read_text().count("\n") >= num_steps):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline_s, f"no {num_steps} steps in {PATIENCE_S} s"
        time.sleep(0.01)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _steps(directory: Path) -> list[tuple[str, int, int, dict[str, float]]]:
    lines = [json.loads(line) for line in (directory / STEPS_FILE).read_text().splitlines()]
    return [(line["stage"], line["epoch"], line["step"], line["losses"]) for line in lines]


def test_a_run_killed_at_a_random_step_ends_with_the_same_weights_bit_for_bit(
    rendered_set: Path, undisturbed: Path, tmp_path: Path
) -> None:
    chance = random.Random()  # another step every time
    num_steps, delay_s = chance.randrange(1, NUM_STEPS), chance.uniform(0, 0.3)
    _kill_after(_start(rendered_set, tmp_path), tmp_path / STEPS_FILE, num_steps, delay_s)
    resumed = _start(rendered_set, tmp_path, "--resume")
    _, errors = resumed.communicate(timeout=PATIENCE_S)
    told = f"killed {delay_s:.3f} s after step {num_steps}"
    assert resumed.returncode == 0, f"{told}: {errors}"
    assert _steps(tmp_path) == _steps(undisturbed), told
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == (undisturbed / WEIGHTS_FILE).read_bytes(), told


def test_a_run_killed_in_the_gates_stage_says_so_and_ends_with_the_same_weights_bit_for_bit(
    rendered_set: Path, split: Split, undisturbed: Path, tmp_path: Path
) -> None:
    _kill_after(
        _start(rendered_set, tmp_path), tmp_path / STEPS_FILE, NUM_STEPS - 2, 0.0
    )  # the step before is kept
    run = prepare(small(split.labels), split.train, tmp_path, _options(resume=True))
    assert re.search(r"is resumed (in|after the last epoch of) its stage gate", run.resumed)
    run.train()
    assert _steps(tmp_path) == _steps(undisturbed)
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == (undisturbed / WEIGHTS_FILE).read_bytes()


def test_every_step_of_every_stage_is_recorded(undisturbed: Path) -> None:
    places = [place[:3] for place in _steps(undisturbed)]
    assert places == [("supernet", 0, 0), ("supernet", 0, 1)] + [
        (stage, epoch, step) for stage in ("policy", "gate") for epoch in (0, 1) for step in (0, 1)
    ]


def test_a_finished_run_is_not_trained_again(split: Split, undisturbed: Path) -> None:
    before = (undisturbed / STEPS_FILE).read_bytes(), (undisturbed / WEIGHTS_FILE).read_bytes()
    train(small(split.labels), split.train, undisturbed, _options(resume=True))
    assert ((undisturbed / STEPS_FILE).read_bytes(), (undisturbed / WEIGHTS_FILE).read_bytes()) == before


def test_a_directory_that_holds_a_run_is_refused_unless_it_is_to_be_resumed(
    split: Split, undisturbed: Path
) -> None:
    with pytest.raises(RunDirectoryError, match=r"already holds a run or a model .* with --resume, or give"):
        train(small(split.labels), split.train, undisturbed, _options())


def test_resuming_with_another_recipe_names_what_differs(split: Split, undisturbed: Path) -> None:
    other = replace(small(split.labels), seed=5)
    with pytest.raises(RunDirectoryError, match=r"recipe\.seed is 0 there and 5 here"):
        train(other, split.train, undisturbed, _options(resume=True))


def test_resuming_on_other_clips_is_refused(split: Split, undisturbed: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"data\.(num_training_clips|sha256) is"):
        train(small(split.labels), split.train[1:], undisturbed, _options(resume=True))


def test_stage_2_alone_is_trained_from_another_runs_stage_1(
    split: Split, undisturbed: Path, tmp_path: Path
) -> None:
    train(small(split.labels), split.train, tmp_path, _options(from_supernet=undisturbed))
    assert _steps(tmp_path) == [place for place in _steps(undisturbed) if place[0] != "supernet"]
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == (undisturbed / WEIGHTS_FILE).read_bytes()
