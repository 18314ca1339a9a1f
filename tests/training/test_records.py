"""What a run tells: lines of JSON that a kill and a resume leave whole, and TensorBoard."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.checkpoints import Position
from training.records import StepLines, StepRecord, TensorBoard


def _record(stage: str, epoch: int, step: int) -> StepRecord:
    return StepRecord(
        stage=stage,
        epoch=epoch,
        step=step,
        num_steps=2,
        losses={"loss": 1.5 + step},
        gradient_norm=2.0,
        learning_rate=0.1,
        videos_per_second=7.25,
        data_wait_share=0.25,
    )


WHOLE_RUN = [(stage, epoch, step) for stage in ("supernet", "policy") for epoch in (0, 1) for step in (0, 1)]


def _places(path: Path) -> list[tuple[str, int, int]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["stage"], line["epoch"], line["step"]) for line in lines]


def test_every_step_is_a_line_with_its_figures(tmp_path: Path) -> None:
    lines = StepLines(tmp_path / "steps.jsonl", None)
    lines.on_step(_record("policy", 1, 0))
    assert json.loads((tmp_path / "steps.jsonl").read_text()) == {
        "stage": "policy",
        "epoch": 1,
        "step": 0,
        "num_steps": 2,
        "losses": {"loss": 1.5},
        "gradient_norm": 2.0,
        "learning_rate": 0.1,
        "videos_per_second": 7.25,
        "data_wait_share": 0.25,
    }


@pytest.mark.parametrize(
    ("position", "num_kept"),
    [
        (Position("supernet", 0, 1), 1),
        (Position("supernet", 1, 0), 2),
        (Position("supernet", 2, 0), 4),
        (Position("policy", 0, 1), 5),
        (Position("policy", 2, 0), 8),
    ],
)
def test_lines_of_steps_that_a_kill_undid_are_dropped(
    tmp_path: Path, position: Position, num_kept: int
) -> None:
    path = tmp_path / "steps.jsonl"
    lines = StepLines(path, None)
    for place in WHOLE_RUN:
        lines.on_step(_record(*place))
    StepLines(path, position)
    assert _places(path) == WHOLE_RUN[:num_kept]


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    lines = StepLines(path, None)
    lines.on_step(_record("supernet", 0, 0))
    with path.open("a") as file:
        file.write('{"stage": "super')
    StepLines(path, Position("supernet", 1, 0))
    assert _places(path) == [("supernet", 0, 0)]


def test_a_run_from_the_start_has_no_lines_of_another(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    StepLines(path, None).on_step(_record("supernet", 0, 0))
    StepLines(path, None)
    assert path.read_text() == ""


def test_tensorboard_reads_back_what_was_recorded(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.on_step(_record("policy", 1, 1))
    board.on_epoch("policy", 1, {})
    events = EventAccumulator(str(tmp_path)).Reload()
    (loss,) = events.Scalars("policy/loss")
    assert (loss.step, loss.value) == (3, 2.5)
    assert events.Scalars("policy/data_wait_share")[0].value == 0.25
