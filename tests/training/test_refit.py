"""A policy that is trained again on all clips, those too that its first run held out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdcom.checkpoint import INFO_FILE, WEIGHTS_FILE, ModelInfo
from sdcom.errors import InvalidParameterError
from training.calibration import default_budget, default_point
from training.cli.outcome import summary
from training.data import Clip, read_split
from training.recipes import Optimization, Recipe, StaticRecipe
from training.run import PreparedRun, RunOptions, prepare, train
from training.run_directory import RunDirectoryError, network_file
from training.small import tiny

ONCE = Optimization(learning_rate=0.01, epochs=1, batch_size=4, warmup_epochs=0, milestones=())
NETWORKS = ("supernet", "static")


@dataclass
class _First:
    """A finished run, and what it was of."""

    directory: Path
    info: ModelInfo
    recipe: Recipe
    clips: tuple[Clip, ...]
    synthetic: tuple[Clip, ...]


def _recipe(labels: tuple[str, ...]) -> Recipe:
    recipe = tiny(labels)
    clip = recipe.model.clip.model_copy(update={"num_frames": 2, "short_side": 36, "crop": 32})
    model = recipe.model.model_copy(update={"clip": clip, "widths": (0.0, 0.5, 1.0)})
    return replace(
        recipe,
        model=model,
        supernet=replace(recipe.supernet, optimization=ONCE, num_frames=1),
        static=StaticRecipe(ONCE, num_frames=1),
        policy=replace(recipe.policy, optimization=ONCE, static_multiplier=0.0, frozen_statistics=True),
        validation_share=0.4,
    )


def _options(**options: Any) -> RunOptions:
    plain: dict[str, Any] = {"version": "0", "device": torch.device("cpu"), "num_threads": 1}
    return RunOptions(**(plain | options))


def _prepare(first: _First, directory: Path, **options: Any) -> PreparedRun:
    """Prepare a refit of a run, of its own recipe and clips."""
    chosen = _options(**({"refit": first.directory} | options))
    return prepare(first.recipe, first.clips, directory, chosen, synthetic=first.synthetic)


@pytest.fixture(scope="module")
def first(rendered_set: Path, tmp_path_factory: pytest.TempPathFactory) -> _First:
    split = read_split(rendered_set, "split")
    directory, recipe = tmp_path_factory.mktemp("first"), _recipe(split.labels)
    synthetic = tuple(replace(clip, group=f"drawn/{clip.group}") for clip in split.test[:2])
    info = train(recipe, split.train, directory, _options(), synthetic=synthetic)
    assert info is not None
    return _First(directory, info, recipe, split.train, synthetic)


@pytest.fixture(scope="module")
def refit(first: _First, tmp_path_factory: pytest.TempPathFactory) -> _First:
    directory = tmp_path_factory.mktemp("again")
    info = _prepare(first, directory).train()
    assert info is not None
    return replace(first, directory=directory, info=info)


def test_a_refit_trains_its_policy_on_the_clips_that_were_held_out_too(first: _First, refit: _First) -> None:
    every_clip = (*first.clips, *first.synthetic)
    assert first.info.provenance["num_training_clips"] < len(every_clip)
    assert refit.info.provenance["num_training_clips"] == len(every_clip)
    run = _prepare(first, refit.directory, resume=True)
    assert sorted(clip.path for clip in run.batches.source.clips) == sorted(clip.path for clip in every_clip)
    assert (refit.directory / WEIGHTS_FILE).read_bytes() != (first.directory / WEIGHTS_FILE).read_bytes()


def test_a_refit_holds_nothing_out_that_another_calibration_could_be_made_on(
    first: _First, refit: _First
) -> None:
    assert first.info.provenance["held_out_groups"]
    assert refit.info.provenance["held_out_groups"] == []


def test_a_refit_takes_the_networks_of_the_first_run(first: _First, refit: _First) -> None:
    for stage in NETWORKS:
        taken, learnt = (network_file(run.directory, stage).read_bytes() for run in (refit, first))
        assert taken == learnt
    steps = (refit.directory / "steps.jsonl").read_text().splitlines()
    assert steps
    assert all('"stage": "policy"' in step for step in steps)


def test_a_refit_says_that_nothing_is_held_out_and_which_networks_it_takes(
    first: _First, tmp_path: Path
) -> None:
    run = _prepare(first, tmp_path / "run")
    num_clips = len(first.clips) + len(first.synthetic)
    assert summary(run, "films", len(first.synthetic)) == [
        f"tiny on films: 3 classes; clips to train on: {num_clips} (2 of them rendered), "
        "held out to calibrate on: 0",
        f"epochs: policy 1; the whole recipe is in {tmp_path / 'run' / 'recipe.json'}",
        f"taken from {first.directory}: supernet",
        f"taken from {first.directory}: static",
    ]


def test_a_refits_record_is_calibrated_as_its_first_run(first: _First, refit: _First) -> None:
    theirs = sorted(first.info.calibration, key=lambda point: point.share)
    shares, top1 = [point.share for point in theirs], [point.top1 for point in theirs]
    for point in refit.info.calibration:
        assert point.top1 == pytest.approx(np.interp(point.share, shares, top1))
    assert refit.info.exits == first.info.exits
    chosen = default_point(first.info.calibration)
    assert chosen is not None
    (own,) = (point for point in refit.info.calibration if point.lam == chosen.lam)
    assert refit.info.default_budget == default_budget([own])
    for name in ("num_calibration_clips", "calibrated_on"):
        assert refit.info.provenance[name] == first.info.provenance[name]
    assert refit.info.provenance["refit"] == "on all clips, after calibration"
    assert "refit" not in first.info.provenance


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda recipe: replace(recipe, seed=5), r"recipe\.seed is 0 there and 5 here"),
        (
            lambda recipe: replace(recipe, policy=replace(recipe.policy, temperature=2.0)),
            r"recipe\.policy\.temperature is 5\.0 there and 2\.0 here",
        ),
    ],
    ids=["seed", "recipe"],
)
def test_a_refit_of_a_run_of_another_recipe_names_what_differs(
    first: _First, tmp_path: Path, other: Callable[[Recipe], Recipe], difference: str
) -> None:
    with pytest.raises(RunDirectoryError, match=f"would be refitted: {difference}"):
        _prepare(replace(first, recipe=other(first.recipe)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("was_held_out", "difference"),
    [(False, r"data\.num_training_clips is \d+ there"), (True, r"it held \d+ clips out, and \d+ are held")],
)
def test_a_refit_on_other_clips_is_refused(
    first: _First, tmp_path: Path, was_held_out: bool, difference: str
) -> None:
    held_out = first.info.provenance["held_out_groups"]
    num_clips = Counter(clip.group for clip in first.clips)
    dropped = next(
        clip
        for clip in first.clips
        if (clip.group in held_out) is was_held_out and num_clips[clip.group] > 1  # all groups remain
    )
    fewer = tuple(clip for clip in first.clips if clip is not dropped)
    with pytest.raises(RunDirectoryError, match=f"would be refitted: {difference}"):
        _prepare(replace(first, clips=fewer), tmp_path / "run")


def test_a_refit_of_a_refit_is_refused(refit: _First, tmp_path: Path) -> None:
    with pytest.raises(
        RunDirectoryError,
        match="would be refitted: refit is True there and False here",
    ):
        _prepare(refit, tmp_path / "run")


def test_a_refit_of_a_run_that_has_not_finished_is_refused_before_it_trains(
    first: _First, tmp_path: Path
) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for path in first.directory.iterdir():
        if path.name != INFO_FILE:
            (unfinished / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RunDirectoryError, match=r"model\.json is missing: .* no finished run"):
        _prepare(first, tmp_path / "run", refit=unfinished)
    assert not (tmp_path / "run").exists()


def test_a_refit_is_refused_where_nothing_was_held_out(first: _First, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match=r"nothing to refit .* held out at validation_share=0"):
        _prepare(replace(first, recipe=replace(first.recipe, validation_share=0.0)), tmp_path / "run")


def test_networks_are_taken_from_one_run_alone(first: _First) -> None:
    with pytest.raises(InvalidParameterError, match=r"give --refit .* or --from-supernet .*, not both"):
        _options(refit=first.directory, from_supernet=first.directory)
