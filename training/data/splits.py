"""`splits.tsv`: a dataset folder's own list, with a column for each split."""

import csv
from collections.abc import Sequence
from pathlib import Path

from sdcom.errors import nearest_name
from training.data.clips import Clip, DataError, Split
from training.data.rows import Place, first_named

MANIFEST = "splits.tsv"


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
            guess = nearest_name(row["label"], names)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise DataError(
                f"{manifest} line {line}: label {row['label']!r} is not one of the model's labels{hint}"
            )
        if row[column] not in sides:
            raise DataError(f"{manifest} line {line}: {column} is {row[column]!r}, train or test expected")
        clip = Clip(root / row["file"], (names.index(row["label"]),), f"{root.name}/{row['group']}")
        sides[row[column]].append(clip)
    named_at = first_named((row["label"], Place(manifest, line)) for line, row in rows)
    return Split(names, tuple(sides["train"]), tuple(sides["test"]), named_at=named_at)
