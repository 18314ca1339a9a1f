"""Lists of labelled clips: where each is, what it shows, and which source it was cut from."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdcom.errors import SdcomError

MANIFEST = "splits.tsv"


class DataError(SdcomError):
    """A list of clips cannot be used as it stands."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled video file.

    Attributes:
        path: the file.
        label: class index.
        group: the source that it was cut from; clips of one group never stand on both sides of a split.
    """

    path: Path
    label: int
    group: str


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides of a split, and the class names that the labels index."""

    labels: tuple[str, ...]
    train: tuple[Clip, ...]
    test: tuple[Clip, ...]


def read_split(root: Path, column: str, labels: Sequence[str] | None = None) -> Split:
    """Read `splits.tsv` of a dataset folder.

    The file has a header and the columns `file` (relative to the folder), `label`, `group`, and one column
    for each split, whose values are `train` or `test`.

    Args:
        root: the dataset's folder.
        column: which split.
        labels: class names to index by; None sorts those of the file.

    Raises:
        DataError: the file is missing or malformed; the message names the line.
    """
    manifest = root / MANIFEST
    if not manifest.is_file():
        raise DataError(f"{manifest} is missing: a dataset folder lists its clips there")
    with manifest.open(newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        columns = reader.fieldnames or ()
        rows = [(reader.line_num, row) for row in reader]
    if not rows or not {"file", "label", "group", column} <= set(columns):
        found = ", ".join(columns) if rows else "no rows"
        raise DataError(f"{manifest} needs the columns file, label, group and {column}; it has {found}")
    for line, row in rows:
        if None in row.values():
            raise DataError(f"{manifest} line {line}: fewer than {len(columns)} columns")
    names = tuple(labels) if labels is not None else tuple(sorted({row["label"] for _, row in rows}))
    sides: dict[str, list[Clip]] = {"train": [], "test": []}
    for line, row in rows:
        if row["label"] not in names:
            raise DataError(
                f"{manifest} line {line}: label {row['label']!r} is not one of the model's labels"
            )
        if row[column] not in sides:
            raise DataError(f"{manifest} line {line}: {column} is {row[column]!r}, train or test expected")
        clip = Clip(root / row["file"], names.index(row["label"]), f"{root.name}/{row['group']}")
        sides[row[column]].append(clip)
    return Split(names, tuple(sides["train"]), tuple(sides["test"]))


def hold_out_groups(
    clips: Sequence[Clip], share: float, rng: np.random.Generator
) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Split clips into those kept for training and those held out, whole groups together.

    Args:
        clips: of any number of groups.
        share: of the groups, to hold out, in [0, 1).
        rng: draws the groups.

    Returns:
        Kept clips, held-out clips.
    """
    groups = sorted({clip.group for clip in clips})
    held = set(rng.permutation(groups)[: round(share * len(groups))].tolist())
    kept = tuple(clip for clip in clips if clip.group not in held)
    return kept, tuple(clip for clip in clips if clip.group in held)
