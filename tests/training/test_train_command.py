"""`sdcom train` as a user types it: what it makes of its options, and what it refuses."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sdcom.checkpoint import load_info
from sdcom.errors import InvalidParameterError, ModelDirectoryError, UnknownNameError
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


def _invoke(recipe: str, output: Path, *options: str | Path) -> Result:
    arguments = ["train", recipe, "--output", output, "--device", "cpu", "--threads", 1, *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _train(recipe: str, output: Path, *options: str | Path) -> str:
    """Train; return what was printed."""
    result = _invoke(recipe, output, *options)
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def _set(settings: list[str], *others: str) -> list[str]:
    """Return the options that make settings, the last of a name alone."""
    by_name = {setting.partition("=")[0]: setting for setting in (*settings, *others)}
    return [word for setting in by_name.values() for word in ("--set", setting)]


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
    fields = r"or set policy\.optimization\.batch_size to \d at most"
    with pytest.raises(DataError, match=fields):
        _train("tiny", tmp_path / "run", "--data", videos, "--set", "supernet.optimization.batch_size=4")
    with pytest.raises(DataError, match=r"set supernet\.optimization\.batch_size, policy\.optimization\.b"):
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


def test_a_run_says_what_it_does_how_good_the_model_is_and_what_to_do_with_it(
    videos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "the run"
    one_step = (
        "supernet.optimization.epochs=1",
        "policy.optimization.epochs=2",
        "supernet.optimization.batch_size=4",
        "policy.optimization.batch_size=4",
        "validation_share=0.34",
    )
    output = _train("tiny", run, "--data", videos, *_set(SMALLEST, *one_step))
    places = [
        output.index(text)
        for text in (
            "checking clips: 8",
            "decoding clips: 4",
            f"tiny on {videos.name}: 2 classes; clips to train on: 4, held out to calibrate on: 2\n",
            f"epochs: supernet 1, policy 2; the whole recipe is in {run / RECIPE_FILE}\n",
            "supernet, epoch 1 of 1; steps: 1",
            "supernet, epoch 1 of 1: loss",
            "policy, epoch 1 of 2; steps: 1",
            "policy, epoch 2 of 2: loss",
            "decoding held-out clips: 2",
            "calibrating: 1",
            f"tiny@0 is in {run}; on 2 held-out clips:",
            "default budget, ",
            "warning: calibrated on 2 clips only: the top-1 of",
            "go on with:",
            f"    sdcom evaluate '{run}' --data {videos}",
            f"    sdcom serve --model '{run}'",
        )
    ]
    assert places == sorted(places)
    policy = load_info(run).calibration[0]
    row = rf"trained policy +{policy.top1:.1%} +{policy.gmacs:.3f} +{policy.share:.1%}"
    assert re.search(row, output)


def test_rendered_clips_of_actions_that_are_no_classes_of_the_data_are_refused_undrawn(
    videos: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidParameterError, match=r"videos0 has no class 'brush_hair', .*: leave"):
        _train("tiny", tmp_path / "run", "--data", videos, "--rendered", "1")
    assert not (tmp_path / "run-rendered").exists()


def test_a_run_without_held_out_clips_says_that_its_figures_are_of_clips_trained_on(
    videos: Path, tmp_path: Path
) -> None:
    output = _train("fcvid", tmp_path / "run", "--data", videos, *_set(SMALLEST))
    assert "on 6 training clips:" in output
    assert "warning: calibrated on the 6 clips that it was trained on, because no group could be" in output


def test_an_error_stands_alone_without_what_would_be_trained(videos: Path, tmp_path: Path) -> None:
    too_few = _invoke("tiny", tmp_path / "run", "--data", videos)
    assert isinstance(too_few.exception, DataError)
    assert too_few.output.splitlines() == ["checking clips: 8"]
    (tmp_path / "w.npz").write_text("no weights")
    settings = _set(SMALLEST, "model.dynamic=mobilenet_v2")
    weights = ("--dynamic-weights", tmp_path / "w.npz")
    no_weights = _invoke("fcvid", tmp_path / "run", "--data", videos, *weights, *settings)
    assert isinstance(no_weights.exception, ModelDirectoryError)
    assert no_weights.output.splitlines() == ["checking clips: 8", "decoding clips: 6"]


def test_what_is_wrong_whatever_the_clips_is_said_before_they_are_opened(
    videos: Path, tmp_path: Path
) -> None:
    unknown = _invoke("tiny", tmp_path / "run", "--data", videos, "--set", "epochs=1")
    assert isinstance(unknown.exception, UnknownNameError)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").touch()
    taken = _invoke("tiny", tmp_path / "run", "--data", videos)
    assert isinstance(taken.exception, RunDirectoryError)
    two = _invoke("tiny", tmp_path / "other", "--data", videos, "--refit", "a", "--from-supernet", "b")
    assert isinstance(two.exception, InvalidParameterError)
    assert "give --refit a or --from-supernet b, not both" in str(two.exception)
    assert unknown.output == taken.output == two.output == ""


def test_resuming_says_from_where(videos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options: list[str | Path] = ["--data", videos, "--resume", *_set(SMALLEST)]
    assert f"there is nothing to resume in {run}: training begins" in _train("fcvid", run, *options)
    assert f"{run} is resumed at the beginning of its stage policy" in _train("fcvid", run, *options)
