"""Checkpoints are whole or not there, and go back only to the run that they are of."""

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from training.checkpoints import (
    CheckpointError,
    Checkpoints,
    Identity,
    Position,
    digest_of_clips,
    write_atomically,
)
from training.data import Clip
from training.optimize import build_optimizer
from training.recipes import Optimization

IDENTITY = Identity(recipe="one", data="these")
PARTIAL = ".checkpoint.pt.partial"


def _layer(seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    checkpoints.save(Position("policy", epoch=3, step=5), {"gate": _layer(0)})
    return checkpoints


def test_what_was_kept_comes_back_with_its_position(saved: Checkpoints) -> None:
    layer = _layer(1)
    assert saved.restore("policy", {"gate": layer}) == Position("policy", epoch=3, step=5)
    assert torch.equal(layer.weight, _layer(0).weight)


def test_an_optimisers_momentum_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    layer, again = _layer(0), _layer(0)
    options = Optimization(learning_rate=0.1)
    ours, theirs = (build_optimizer([(one.named_parameters(), 1.0)], options) for one in (layer, again))
    layer(torch.ones(1, 2)).sum().backward()
    ours.step()
    checkpoints.save(Position("policy"), {"layer": layer, "optimizer": ours})
    checkpoints.restore("policy", {"layer": again, "optimizer": theirs})
    for one, optimizer in ((layer, ours), (again, theirs)):
        one.zero_grad()
        one(torch.ones(1, 2)).square().sum().backward()
        optimizer.step()
    assert torch.equal(layer.weight, again.weight)


def test_another_stages_checkpoint_is_left_alone(saved: Checkpoints) -> None:
    layer = _layer(1)
    assert saved.restore("supernet", {"gate": layer}) is None
    assert torch.equal(layer.weight, _layer(1).weight)
    assert saved.position() == Position("policy", epoch=3, step=5)


def test_without_a_checkpoint_there_is_no_position(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    assert checkpoints.position() is None
    assert checkpoints.restore("policy", {}) is None


@pytest.mark.parametrize("what", ["recipe", "data"])
def test_another_recipes_or_other_datas_checkpoint_is_refused(saved: Checkpoints, what: str) -> None:
    other = Identity(**{"recipe": "one", "data": "these", what: "other"})
    with pytest.raises(CheckpointError, match=rf"is of another {what}: resume with the {what}"):
        Checkpoints(saved.directory, other).restore("policy", {"gate": _layer(1)})


def test_a_damaged_checkpoint_is_named(saved: Checkpoints) -> None:
    content = saved.path.read_bytes()
    saved.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is not a checkpoint that can be read"):
        saved.position()


def test_a_checkpoint_of_other_parts_is_refused(saved: Checkpoints) -> None:
    with pytest.raises(CheckpointError, match="holds gate; fusion expected"):
        saved.restore("policy", {"fusion": _layer(1)})


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_a_checkpoint_cannot_run_code(saved: Checkpoints) -> None:
    torch.save({"format": 1, "evil": _Evil()}, saved.path)
    with pytest.raises(CheckpointError, match="holds more than tensors and plain values"):
        saved.position()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_says_so_and_leaves_the_checkpoint_before(saved: Checkpoints) -> None:
    (saved.directory / PARTIAL).symlink_to("/dev/full")
    with pytest.raises(
        CheckpointError, match=r"the disk is full: .*checkpoint\.pt takes .* as it was"
    ) as caught:
        saved.save(Position("policy", epoch=4), {"gate": _layer(1)})
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert saved.position() == Position("policy", epoch=3, step=5)
    assert not (saved.directory / PARTIAL).is_symlink()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone/x cannot be written \(No such file"):
        write_atomically(tmp_path / "gone" / "x", b"")


def test_a_clips_digest_is_of_what_it_is_and_not_of_where_it_lies() -> None:
    here, there = (Clip(Path(root) / "wave" / "1.mp4", (2,), "one") for root in ("/here", "/there"))
    relabelled = Clip(here.path, (1,), "one")
    assert digest_of_clips([here]) == digest_of_clips([there])
    assert digest_of_clips([here]) != digest_of_clips([relabelled])
    assert digest_of_clips([here, relabelled]) != digest_of_clips([relabelled, here])
