"""Where a resumed run goes on, in words."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.checkpoints import Position
from training.run_directory import network_file, resumption
from training.small import jhmdb_mini, tiny

RECIPE = jhmdb_mini(("clap", "wave"))
STAGES = ("supernet", "static")


@pytest.mark.parametrize(
    ("num_ended", "position", "told"),
    [
        (0, None, "there is nothing to resume in RUN: training begins"),
        (0, Position("supernet", 0, 500), "in its stage supernet, epoch 1 of 24, step 501"),
        (0, Position("supernet", 24), "after the last epoch of its stage supernet: static follows"),
        (1, Position("supernet", 24), "at the beginning of its stage static"),
        (1, Position("static", 3), "in its stage static, epoch 4 of 12, step 1"),
        (2, None, "at the beginning of its stage policy"),
        (2, Position("policy", 9, 2), "in its stage policy, epoch 10 of 10, step 3"),
        (2, Position("policy", 10), "after the last epoch of its stage policy: gate follows"),
        (2, Position("gate", 3, 2), "in its stage gate, epoch 4 of 20, step 3"),
        (2, Position("gate", 20), "after the last epoch of its stage gate: calibration follows"),
        (1, Position("gate", 20), "at the beginning of its stage static"),
    ],
)
def test_a_resumed_run_says_where_it_goes_on(
    tmp_path: Path, num_ended: int, position: Position | None, told: str
) -> None:
    for stage in STAGES[:num_ended]:
        network_file(tmp_path, stage).touch()
    text = resumption(tmp_path, position, RECIPE).replace(str(tmp_path), "RUN")
    assert text in {told, f"RUN is resumed {told}"}


def test_a_recipe_without_a_stage_for_the_static_network_goes_on_with_the_policy(tmp_path: Path) -> None:
    network_file(tmp_path, "supernet").touch()
    without_static = replace(tiny(("clap", "wave")), static=None)
    assert resumption(tmp_path, None, without_static).endswith("at the beginning of its stage policy")
