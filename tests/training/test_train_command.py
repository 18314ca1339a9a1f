"""`sdcom train` as a user types it: what it makes of its options, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdcom.checkpoint import load_info
from sdcom.errors import InvalidParameterError
from training.cli import app
from training.data import DataError
from training.run_directory import RECIPE_FILE, RunDirectoryError

SMALLEST = [
    "model.static_resolution=32",
    "model.dynamic=resnet18",
    "model.widths=0,1",
    "model.clip.num_frames=1",
    "model.clip.short_side=32",
    "model.clip.crop=32",
    "model.gate_channels=2",
    "model.gate_features=2",
    "model.gate_hidden=2",
    "model.fusion_features=2",
    "supernet.num_frames=1",
    "validation_share=0",
    "supernet.optimization.epochs=0",
    "supernet.optimization.batch_size=6",
    "policy.optimization.epochs=0",
    "policy.optimization.batch_size=6",
]


@pytest.fixture(scope="module")
def videos(rendered_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of two classes, four clips each."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("clap", "wave"):
        (folder / name).mkdir()
        for clip in sorted((rendered_set / name).iterdir())[:4]:
            shutil.copy(clip, folder / name)
    return folder


def _train(recipe: str, output: Path, *options: str | Path) -> None:
    arguments = ["train", recipe, "--output", output, "--device", "cpu", "--threads", 1, *options]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def _set(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def test_class_folders_become_a_model_and_fcvids_labels_share_the_target(
    videos: Path, tmp_path: Path
) -> None:
    _train("fcvid", tmp_path / "run", "--data", videos, "--version", "3", *_set(SMALLEST))
    info = load_info(tmp_path / "run")
    assert (info.full_name, info.config.labels) == ("sdcom-fcvid@3", ("clap", "wave"))
    assert info.provenance["num_training_clips"] == 6  # two of eight are the test side
    document = json.loads((tmp_path / "run" / RECIPE_FILE).read_text())
    assert document["several_labels"] == "share"
    assert document["recipe"]["model"]["clip"]["crop"] == 32


def test_a_stage_1_of_pixels_normalised_otherwise_is_refused(videos: Path, tmp_path: Path) -> None:
    _train("fcvid", tmp_path / "backbone", "--data", videos, *_set(SMALLEST))
    others = [*SMALLEST, "model.clip.mean=0.5,0.5,0.5"]
    with pytest.raises(RunDirectoryError, match=r"supernet\.safetensors does not fit .*: mean is \[0\.485"):
        _train(
            "fcvid",
            tmp_path / "run",
            "--data",
            videos,
            "--from-supernet",
            tmp_path / "backbone",
            *_set(others),
        )


def test_a_stage_1_that_is_not_there_is_named(videos: Path, tmp_path: Path) -> None:
    nowhere = ("--from-supernet", tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match=r"nowhere/supernet\.safetensors is missing"):
        _train("fcvid", tmp_path / "run", "--data", videos, *nowhere, *_set(SMALLEST))


def test_too_few_clips_for_a_batch_are_refused_with_the_field_to_set(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"than one batch of 8: add clips, or set supernet\.optimization\.b"):
        _train("tiny", tmp_path / "run", "--data", videos)


@pytest.mark.parametrize("recipe", ["own-videos", "jhmdb-mini"])
def test_recipes_that_keep_pretrained_features_need_them(recipe: str, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="ImageNet weights with --weights or --static-weights"):
        _train(recipe, tmp_path / "run", "--data", videos)


def test_weights_that_expect_different_pixels_are_refused(videos: Path, tmp_path: Path) -> None:
    mixed = ("--static-weights", tmp_path / "a.npz", "--dynamic-weights", tmp_path / "b.pth")
    with pytest.raises(InvalidParameterError, match="expect pixels normalised in two ways"):
        _train("tiny", tmp_path / "run", "--data", videos, *mixed)


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="give --data, or --rendered above 0"):
        _train("tiny", tmp_path / "run")


def test_a_misspelt_recipe_is_told_the_nearest(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["train", "tinny", "--output", str(tmp_path)], env={"COLUMNS": "200"})
    assert ended.exit_code == 2
    assert "unknown recipe 'tinny'; did you mean 'tiny'?" in ended.output


def test_the_fields_of_a_recipe_are_printed_as_they_can_be_set() -> None:
    ended = CliRunner().invoke(app, ["train", "--fields", "own-videos"])
    assert ended.exit_code == 0
    fields = ended.stdout.splitlines()
    assert {"policy.optimization.epochs=10", "static.optimization.milestones=", "supernet.teacher=none"} <= {
        *fields
    }
