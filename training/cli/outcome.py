"""What a run is about to do, what its calibration found, and how far to trust that: in words."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.table import Column, Table

from sdcom.checkpoint import CalibrationPoint, ModelInfo
from training.calibration import FEW_CLIPS, REFIT, TRAINING_CLIPS, accuracy_interval, budgeted_point
from training.options import taken_networks
from training.run import PreparedRun
from training.run_directory import RECIPE_FILE


def summary(run: PreparedRun, data: str, num_rendered: int) -> list[str]:
    """Return the lines that say what a run is about to train.

    Args:
        run: in whose way nothing stands any more.
        data: what its clips are called.
        num_rendered: how many of them are rendered besides.
    """
    taken = taken_networks(run.recipe, run.options)
    stages = {name: stage for name, stage in run.recipe.stages.items() if name not in taken}
    epochs = ", ".join(f"{name} {stage.optimization.epochs}" for name, stage in stages.items())
    rendered = f" ({num_rendered} of them rendered)" if num_rendered else ""
    num_held_out = 0 if run.options.refit else len(run.held_out)
    lines = [
        f"{run.recipe.name} on {data}: {len(run.recipe.model.labels)} classes; "
        f"clips to train on: {len(run.kept)}{rendered}, held out to calibrate on: {num_held_out}",
        f"epochs: {epochs}; the whole recipe is in {run.directory / RECIPE_FILE}",
        *(f"taken from {directory}: {name}" for name, directory in taken.items()),
    ]
    return [*lines, run.resumed] if run.resumed else lines


def outcome(info: ModelInfo, directory: Path) -> str:
    """Return a line that says where the model is, and on which clips its figures were found."""
    side = "training" if info.provenance["calibrated_on"] == TRAINING_CLIPS else "held-out"
    num_clips = info.provenance["num_calibration_clips"]
    clips = f"{num_clips} {side} clip" if num_clips == 1 else f"{num_clips} {side} clips"
    if REFIT in info.provenance:
        return f"{info.full_name} is in {directory}; at its costs, the run that it refits had on {clips}:"
    return f"{info.full_name} is in {directory}; on {clips}:"


def figures(info: ModelInfo) -> Table:
    """Return the accuracy and the cost of the trained policy and of the default budget."""
    columns = (Column(name, justify="right") for name in ("top-1", "GFLOPs a video", "of the baseline"))
    table = Table("", *columns, box=None)
    for name, point in _headline(info):
        table.add_row(name, f"{point.top1:.1%}", f"{point.gmacs:.3f}", f"{point.share:.1%}")
    return table


def _headline(info: ModelInfo) -> list[tuple[str, CalibrationPoint]]:
    default = budgeted_point(info)
    rows = [("trained policy", info.calibration[0])]
    return rows if default is None else [*rows, (f"default budget, {info.default_budget:g}", default)]


def doubts(info: ModelInfo) -> str | None:
    """Return what speaks against a calibration: its clips are few, or were trained on; None if nothing."""
    num_clips, top1 = info.provenance["num_calibration_clips"], info.calibration[0].top1
    clips = f"{num_clips} clip" if num_clips == 1 else f"{num_clips} clips"
    if info.provenance["calibrated_on"] == TRAINING_CLIPS:
        return (
            f"calibrated on the {clips} that it was trained on, because no group could be held out: on "
            "others it will be right less often. Add clips, list more groups, or raise validation_share"
        )
    if num_clips >= FEW_CLIPS:
        return None
    low, high = accuracy_interval(top1, num_clips)
    return (
        f"calibrated on {clips} only: the top-1 of {top1:.1%} may stand for anything from {low:.0%} to "
        f"{high:.0%} (95 % interval), and a clip or two decided the default budget. Add clips, raise "
        "validation_share, or calibrate on others (sdcom calibrate)"
    )


def next_commands(directory: Path, dataset_words: Sequence[str] | None) -> list[str]:
    """Return what to type next.

    Args:
        directory: of the model.
        dataset_words: options that name clips to evaluate on; None if there are none.
    """
    commands = [["sdcom", "serve", "--model", str(directory)]]
    if dataset_words is not None:
        commands.insert(0, ["sdcom", "evaluate", str(directory), *dataset_words])
    return [shlex.join(words) for words in commands]
