"""A whole run on a processor: files in, a model directory out that serves."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from sdcom.checkpoint import INFO_FILE, ModelInfo, load_info
from sdcom.model import load_model
from sdcom.recognition import Budget
from sdcom.recognizer import Recognizer
from training.data import DataError, Split, read_split
from training.recipes import Recipe, StaticRecipe
from training.records import EpochReport
from training.run import RunOptions, train
from training.small import tiny


@dataclass
class _Run:
    directory: Path
    info: ModelInfo
    reports: dict[str, list[dict[str, float]]]
    split: Split


def _train(recipe: Recipe, split: Split, directory: Path, **options: Any) -> _Run:
    reports: dict[str, list[dict[str, float]]] = defaultdict(list)
    plain: dict[str, Any] = {"version": "7", "device": torch.device("cpu"), "num_threads": 1}
    info = train(
        recipe,
        split.train + split.test,
        directory,
        RunOptions(**(plain | options)),
        [EpochReport(lambda stage, _epoch, terms: reports[stage].append(terms))],
    )
    assert info is not None
    return _Run(directory, info, reports, split)


def _small(labels: Sequence[str]) -> Recipe:
    """Return the tiny recipe at half its pixels and two of its widths, and twice its epochs of the policy."""
    recipe = tiny(labels)
    clip = recipe.model.clip.model_copy(update={"short_side": 36, "crop": 32})
    model = recipe.model.model_copy(update={"clip": clip, "widths": (0.0, 0.5, 1.0)})
    longer = replace(recipe.policy.optimization, epochs=12)
    return replace(recipe, model=model, policy=replace(recipe.policy, optimization=longer))


def _one_epoch(recipe: Recipe) -> Recipe:
    once = replace(recipe.supernet.optimization, epochs=1)
    return replace(
        recipe,
        supernet=replace(recipe.supernet, optimization=once),
        policy=replace(recipe.policy, optimization=once),
    )


@pytest.fixture(scope="module")
def run(rendered_set: Path, tmp_path_factory: pytest.TempPathFactory) -> _Run:
    split = read_split(rendered_set, "split")
    return _train(_small(split.labels), split, tmp_path_factory.mktemp("trained"))


def test_both_stages_learn(run: _Run) -> None:
    stage1 = [terms["loss"] for terms in run.reports["supernet"]]
    stage2 = [terms["cross_entropy"] for terms in run.reports["policy"]]
    assert (len(stage1), len(stage2)) == (4, 12)
    assert stage1[-1] < stage1[0]
    assert fmean(stage2[-3:]) < fmean(stage2[:3])  # widths are drawn: one epoch alone is luck


def test_the_directory_serves(run: _Run) -> None:
    clip = run.split.test[0].path
    with Recognizer.load(run.directory, num_decode_workers=1) as recognizer:
        recognizer.warm_up()
        answer = recognizer.recognize(clip)
        assert answer.model == "tiny@7"
        assert {prediction.label for prediction in answer.predictions} == {"clap", "jump", "wave"}
        assert run.info.default_budget is not None
        assert answer.ledger.total_macs <= run.info.default_budget * answer.ledger.baseline_macs
        assert recognizer.recognize(clip, budget=Budget(share=1)).ledger.lam == 0


def test_the_record_says_where_the_model_comes_from(run: _Run) -> None:
    info = load_info(run.directory)
    assert info.model_dump(mode="json") == run.info.model_dump(mode="json")
    provenance = info.provenance
    assert provenance["num_training_clips"] + provenance["num_calibration_clips"] == 24
    assert provenance["num_calibration_clips"] > 0
    assert provenance["calibrated_on"] == "held-out groups"
    assert provenance["imagenet_weights"] == []
    assert provenance["recipe"]["policy"]["efficiency_weight"] == 0.7
    document = json.loads((run.directory / INFO_FILE).read_text())
    assert document["calibration"][0]["lam"] == 0


def test_the_same_seed_trains_the_same_model(rendered_set: Path, tmp_path: Path) -> None:
    whole = read_split(rendered_set, "split")
    split = replace(whole, train=whole.train[:8], test=())
    recipe = replace(_one_epoch(_small(split.labels)), validation_share=0)
    one, again = (
        load_model(_train(recipe, split, tmp_path / name).directory).networks.state_dict()
        for name in ("one", "again")
    )
    assert all(torch.equal(value, again[name]) for name, value in one.items())


def test_too_few_clips_for_a_batch_are_refused_with_both_numbers(rendered_set: Path, tmp_path: Path) -> None:
    split = read_split(rendered_set, "split")
    few = replace(split, train=split.train[:5], test=())
    with pytest.raises(DataError, match="5 clips are left for training, fewer than one batch of 8"):
        _train(replace(_small(split.labels), validation_share=0), few, tmp_path)
    assert not any(tmp_path.iterdir())


def _four_stages(recipe: Recipe) -> Recipe:
    """Return the recipe with features learnt without labels, and a stage each for static network and gate."""
    once = _one_epoch(recipe)
    gate = replace(
        once.policy,
        static_multiplier=0.0,
        classifier_multiplier=0.0,
        fusion_multiplier=0.0,
        frozen_statistics=True,
        highest_price=10.0,
    )
    return replace(
        once,
        supernet=replace(once.supernet, label_weight=0.0, anchor_weight=1.0, full_width_anchor=2.0),
        static=StaticRecipe(once.supernet.optimization, num_frames=2),
        gate=gate,
    )


def test_every_stage_is_kept_when_it_ends_and_taken_up_from_there(rendered_set: Path, tmp_path: Path) -> None:
    whole = read_split(rendered_set, "split")
    split = replace(whole, train=whole.train[:8], test=())
    recipe = replace(_four_stages(_small(split.labels)), validation_share=0)
    first = _train(recipe, split, tmp_path / "run")
    assert list(first.reports) == ["supernet", "static", "policy", "gate"]
    weights = load_model(first.directory).networks.state_dict()
    (first.directory / "supernet.safetensors").unlink()
    (first.directory / "checkpoint.pt").unlink()
    again = _train(recipe, split, tmp_path / "run", resume=True)
    assert list(again.reports) == ["supernet", "policy", "gate"]
    assert all(
        torch.equal(value, weights[name])
        for name, value in load_model(again.directory).networks.state_dict().items()
    )


def test_synthetic_clips_are_learnt_from_and_never_held_out(rendered_set: Path, tmp_path: Path) -> None:
    whole = read_split(rendered_set, "split")
    synthetic = tuple(replace(clip, group=f"drawn/{clip.group}") for clip in whole.train[:4])
    clips = whole.train[4:] + whole.test
    info = train(
        replace(_one_epoch(_small(whole.labels)), validation_share=0.5),
        clips,
        tmp_path / "run",
        RunOptions(version="7", device=torch.device("cpu"), num_threads=1),
        synthetic=synthetic,
    )
    assert info is not None
    held_out = info.provenance["held_out_groups"]
    assert held_out
    assert not any(group.startswith("drawn/") for group in held_out)
    num_held_out = sum(clip.group in held_out for clip in clips)
    assert info.provenance["num_training_clips"] == len(clips) - num_held_out + len(synthetic)
