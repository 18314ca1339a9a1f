"""What is said of a calibration at the end of a command, by the clips that it was made on."""

import re
from pathlib import Path

import pytest

from sdcom.checkpoint import CalibrationPoint, ModelInfo
from tests.conftest import TINY_CONFIG
from training.calibration import HELD_OUT_GROUPS, TRAINING_CLIPS
from training.cli.outcome import doubts, next_commands, outcome


def _calibrated(num_clips: int, on: str = HELD_OUT_GROUPS) -> ModelInfo:
    point = CalibrationPoint(lam=0, gmacs=0.1, share=0.5, top1=0.75, width_shares=(0.2,) * 5)
    return ModelInfo(
        name="tiny",
        version="0",
        config=TINY_CONFIG,
        calibration=(point,),
        provenance={"num_calibration_clips": num_clips, "calibrated_on": on},
    )


@pytest.mark.parametrize(
    ("num_clips", "said"),
    [(4, "4 clips only: the top-1 of 75.0% .* from 30% to 95%"), (99, "from 66% to 82%")],
)
def test_fewer_than_a_hundred_clips_are_doubted_with_the_interval(num_clips: int, said: str) -> None:
    doubt = doubts(_calibrated(num_clips))
    assert doubt is not None
    assert re.search(said, doubt)


def test_a_hundred_clips_are_not_doubted() -> None:
    assert doubts(_calibrated(100)) is None


def test_clips_that_were_trained_on_are_doubted_however_many_they_are() -> None:
    info = _calibrated(1000, TRAINING_CLIPS)
    assert "calibrated on the 1000 clips that it was trained on" in str(doubts(info))
    assert outcome(info, Path("runs/own")) == "tiny@0 is in runs/own; on 1000 training clips:"


def test_a_single_clip_is_no_clips() -> None:
    assert outcome(_calibrated(1), Path("runs/own")) == "tiny@0 is in runs/own; on 1 held-out clip:"


def test_without_test_clips_there_is_nothing_to_evaluate_on() -> None:
    assert next_commands(Path("a run"), None) == ["sdcom serve --model 'a run'"]
    evaluate, _ = next_commands(Path("run"), ["--data", "my videos"])
    assert evaluate == "sdcom evaluate run --data 'my videos'"
