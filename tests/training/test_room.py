"""The room that a run takes on the disk is known before it begins."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdcom.checkpoint import WEIGHTS_FILE
from training.checkpoints import CHECKPOINT_FILE, CheckpointError
from training.data import read_split
from training.recipes import Optimization, PolicyRecipe, Recipe, StaticRecipe, SupernetRecipe
from training.records import EpochStart, StepRecord
from training.room import check_room, checkpoint_bytes, kept_networks_bytes
from training.run import RunOptions, train
from training.small import tiny

ONCE = Optimization(learning_rate=0.01, epochs=1, batch_size=8, warmup_epochs=0, milestones=())


class _CheckpointSizes:
    """Notes how large the checkpoint is when each stage has ended."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / CHECKPOINT_FILE
        self._stage = ""
        self.by_stage: dict[str, int] = {}

    def note(self) -> None:
        if self._stage:
            self.by_stage[self._stage] = self._path.stat().st_size

    def on_start(self, start: EpochStart) -> None:
        self.note()
        self._stage = start.stage

    def on_step(self, _record: StepRecord) -> None:
        pass

    def on_epoch(self, _stage: str, _epoch: int, _losses: Mapping[str, float]) -> None:
        pass


def _every_stage(labels: tuple[str, ...]) -> Recipe:
    recipe = tiny(labels)
    clip = recipe.model.clip.model_copy(update={"num_frames": 1, "short_side": 36, "crop": 32})
    model = recipe.model.model_copy(update={"clip": clip, "widths": (0.0, 1.0)})
    adamw = replace(ONCE, optimizer="adamw")
    return replace(
        recipe,
        model=model,
        supernet=SupernetRecipe(adamw, num_frames=1, anchor_weight=1.0, label_weight=0.0),
        static=StaticRecipe(ONCE, num_frames=1),
        policy=PolicyRecipe(adamw),
        gate=PolicyRecipe(
            adamw,
            static_multiplier=0.0,
            classifier_multiplier=0.0,
            fusion_multiplier=0.0,
            frozen_statistics=True,
        ),
        validation_share=0.0,
    )


def test_what_a_run_writes_is_what_was_foreseen(rendered_set: Path, tmp_path: Path) -> None:
    split = read_split(rendered_set, "split")
    recipe = _every_stage(split.labels)
    sizes = _CheckpointSizes(tmp_path)
    options = RunOptions(version="0", device=torch.device("cpu"), num_threads=1)
    train(recipe, split.train[:8], tmp_path, options, [sizes])
    sizes.note()
    foreseen = checkpoint_bytes(recipe)
    assert sizes.by_stage == {name: pytest.approx(size, rel=0.03) for name, size in foreseen.items()}
    kept = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    model = (tmp_path / WEIGHTS_FILE).stat().st_size  # of half precision
    assert kept < kept_networks_bytes(recipe) < 1.05 * (kept + model)


def test_a_run_that_no_disk_has_room_for_is_refused_with_figures(tmp_path: Path) -> None:
    recipe = tiny(("clap", "wave"))
    check_room(recipe, tmp_path / "not yet" / "there")
    endless = replace(recipe, model=recipe.model.model_copy(update={"fusion_features": 10**11}))
    room = (
        rf"run has no room for this run: [0-9,.]+ MB are free in {tmp_path}, and it takes up to [0-9,.]+ MB"
    )
    with pytest.raises(CheckpointError, match=room):
        check_room(endless, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_resumed_run_will_replace_counts_as_free(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    too_wide = _fused(_features_for(1.5 * free))
    with pytest.raises(CheckpointError):
        check_room(too_wide, tmp_path)
    with (tmp_path / CHECKPOINT_FILE).open("wb") as file:
        file.truncate(free)  # as large as all that is free, without taking any of it
    check_room(too_wide, tmp_path)


def _fused(num_features: int) -> Recipe:
    recipe = tiny(("clap", "wave"))
    return replace(recipe, model=recipe.model.model_copy(update={"fusion_features": num_features}))


def _features_for(num_bytes: float) -> int:
    """Return how many features make a run of so many bytes."""
    few, more = (_needed(_fused(count)) for count in (10_000, 20_000))
    return int(num_bytes / (more - few) * 10_000)


def _needed(recipe: Recipe) -> int:
    return 2 * max(checkpoint_bytes(recipe).values()) + kept_networks_bytes(recipe)
