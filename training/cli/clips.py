"""The clips that `sdcom train` trains on: a dataset's, rendered ones, or both."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sdcom.errors import InvalidParameterError
from training.data import Clip, read_split
from training.data.checking import usable_split
from training.data.formats import Dataset, read_dataset
from training.data.tracking import Tracked
from training.rendered import generate
from training.rendered.actions import ACTIONS

RENDERED_SEED = 7
RENDERED_SPLIT = "split"


class TrainingClips(NamedTuple):
    """What there is to train on.

    Attributes:
        labels: class names.
        real: the training side of the dataset, or of the rendered clips if there are no others.
        rendered: clips to train on besides, which are never held out.
        to_evaluate: what has test clips; None if nothing has.
    """

    labels: tuple[str, ...]
    real: tuple[Clip, ...]
    rendered: tuple[Clip, ...]
    to_evaluate: Dataset | None


def training_clips(
    dataset: Dataset | None,
    rendered: int,
    output: Path,
    *,
    num_threads: int,
    max_unusable: float,
    tracked: Tracked,
) -> TrainingClips:
    """Return what to train on: a dataset's clips that can be read, rendered ones, made here, or both.

    Args:
        dataset: of real clips, if there are any.
        rendered: clips to render of each action.
        output: the run's directory; beside it go rendered clips and the list of unusable ones.
        num_threads: clips checked at once.
        max_unusable: share of a dataset's clips that may be unusable.
        tracked: shows how many are rendered and checked.

    Raises:
        InvalidParameterError: there would be nothing, or clips would be rendered of actions that are no
            classes of the dataset.
        DataError: a list is malformed, or too much of what it names cannot be used.
    """
    if dataset is None and not rendered:
        raise InvalidParameterError("nothing to train on: give --data, or --rendered above 0")
    real = None
    if dataset is not None:
        real = usable_split(
            read_dataset(dataset),
            output.with_name(output.name + "-unusable.tsv"),
            num_threads=num_threads,
            max_share=max_unusable,
            track=tracked("checking clips"),
        )
        if rendered:
            _check_drawable(dataset, real.labels)
    rendered_dir = output.with_name(output.name + "-rendered")
    if rendered:
        track = tracked("rendering scenes")
        generate(rendered_dir, clips_per_action=rendered, seed=RENDERED_SEED, track=track)
    if real is None:
        drawn = read_split(rendered_dir, RENDERED_SPLIT)
        tested = Dataset(rendered_dir, split=RENDERED_SPLIT) if drawn.test else None
        return TrainingClips(drawn.labels, drawn.train, (), tested)
    tested = dataset if real.test else None
    if not rendered:
        return TrainingClips(real.labels, real.train, (), tested)
    drawn = read_split(rendered_dir, RENDERED_SPLIT, real.labels)
    return TrainingClips(real.labels, real.train, drawn.train + drawn.test, tested)  # real ones are the test


def _check_drawable(dataset: Dataset, labels: Sequence[str]) -> None:
    missing = [action for action in ACTIONS if action not in labels]
    if missing:
        raise InvalidParameterError(
            f"{dataset.name} has no class {missing[0]!r}, one of the {len(ACTIONS)} actions that clips are "
            "rendered of: leave --rendered out, or train on rendered clips alone, without --data"
        )
