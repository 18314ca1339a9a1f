"""Where a resumed run goes on, in words."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.checkpoints import Position
from training.recipes import jhmdb_mini, tiny
from training.run_directory import network_file, resumption

RECIPE = jhmdb_mini(("clap", "wave"))
STAGES = ("distillation", "supernet", "static", "policy")


@pytest.mark.parametrize(
    ("num_ended", "position", "told"),
    [
        (0, None, "there is nothing to resume in RUN: training begins"),
        (0, Position("distillation", 0, 500), "in its stage distillation, epoch 1 of 14, step 501"),
        (0, Position("distillation", 14), "after the last epoch of its stage distillation: supernet follows"),
        (1, Position("distillation", 14), "at the beginning of its stage supernet"),
        (1, Position("supernet", 3), "in its stage supernet, epoch 4 of 10, step 1"),
        (2, None, "at the beginning of its stage static"),
        (3, Position("policy", 9, 2), "in its stage policy, epoch 10 of 10, step 3"),
        (3, Position("policy", 10), "after the last epoch of its stage policy: calibration follows"),
    ],
)
def test_a_resumed_run_says_where_it_goes_on(
    tmp_path: Path, num_ended: int, position: Position | None, told: str
) -> None:
    for stage in STAGES[:num_ended]:
        network_file(tmp_path, stage).touch()
    text = resumption(tmp_path, position, RECIPE).replace(str(tmp_path), "RUN")
    assert text in {told, f"RUN is resumed {told}"}


def test_a_stage_1_whose_first_half_was_cleared_away_is_still_done(tmp_path: Path) -> None:
    network_file(tmp_path, "supernet").touch()
    assert resumption(tmp_path, None, RECIPE).endswith("at the beginning of its stage static")
    without_static = replace(tiny(("clap", "wave")), static=None)
    assert resumption(tmp_path, None, without_static).endswith("at the beginning of its stage policy")
