"""Tables: CSV or TSV with the columns path, label and, if wanted, group and split."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.data.clips import Clip, DataError, Split
from training.data.folders import halves
from training.data.rows import Place, first_named, label_index, read_text

LABEL_SEPARATOR = ";"
_SIDES = {"train": "train", "training": "train", "test": "test", "val": "test", "validation": "test"}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}

Row = tuple[Place, Mapping[str, str]]


def read_table(path: Path, root: Path | None = None, labels: Sequence[str] | None = None) -> Split:
    """Read a table of clips.

    Its first line names the columns: `path` (relative to `root`), `label` (several are separated by
    semicolons, the most important first), and, if wanted, `group` (the source that a clip was cut from) and
    `split` (train or test). Without `split`, a fifth of each class is the test side.

    Args:
        path: the table, `.csv` or `.tsv`.
        root: what the clips' paths are relative to; None is the table's folder.
        labels: class names to index by; None sorts those of the table.

    Raises:
        DataError: the table is missing or malformed; the message names the line.
    """
    root = root or path.parent
    rows = read_rows(path, required=("path", "label"))
    several = [_labels_of(place, row) for place, row in rows]
    names = tuple(labels) if labels is not None else tuple(sorted({name for of in several for name in of}))
    clips = [
        Clip(
            root / row["path"],
            tuple(label_index(name, names, place) for name in of_clip),
            f"{path.stem}/{row.get('group') or row['path']}",
        )
        for (place, row), of_clip in zip(rows, several, strict=True)
    ]
    if "split" in rows[0][1]:
        tested = [_side(place, row) == "test" for place, row in rows]
    else:
        tested = _fifth_of_each_class(clips)
    named_at = first_named((name, place) for (place, _), of in zip(rows, several, strict=True) for name in of)
    train, test = (
        tuple(clip for clip, is_tested in zip(clips, tested, strict=True) if is_tested is on_side)
        for on_side in (False, True)
    )
    return Split(names, train, test, named_at=named_at)


def read_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """Return a table's rows, each with its place, all of them with every column of the first line.

    Args:
        path: the table; its suffix tells the delimiter.
        required: columns that must be there.

    Raises:
        DataError: a column is missing, there is no row, or one has more or fewer columns than the first line.
    """
    if path.suffix not in _DELIMITERS:
        raise DataError(f"{path} has the suffix {path.suffix!r}; .csv or .tsv was expected")
    reader = csv.reader(read_text(path).splitlines(), delimiter=_DELIMITERS[path.suffix])
    columns = [column.strip() for column in next(reader, [])]
    absent = [column for column in required if column not in columns]
    if absent:
        found = ", ".join(columns) or "empty"
        raise Place(path, 1).error(
            f"the first line must name the columns {', '.join(required)}; it is {found}"
        )
    rows: list[Row] = []
    for fields in reader:
        place = Place(path, reader.line_num)
        if not any(fields):
            continue
        if len(fields) != len(columns):
            raise place.error(f"{len(fields)} columns; {len(columns)} were expected ({', '.join(columns)})")
        rows.append((place, dict(zip(columns, (field.strip() for field in fields), strict=True))))
    if not rows:
        raise DataError(f"{path} lists no clips: a line for each was expected after the first")
    return rows


def _labels_of(place: Place, row: Mapping[str, str]) -> list[str]:
    if not row["path"]:
        raise place.error("the path is empty; a video, or a folder of frames, was expected")
    names = [name.strip() for name in row["label"].split(LABEL_SEPARATOR)]
    if not all(names):
        raise place.error(f"label {row['label']!r} is empty, or one of several is; name the class")
    return list(dict.fromkeys(names))


def _side(place: Place, row: Mapping[str, str]) -> str:
    try:
        return _SIDES[row["split"].lower()]
    except KeyError:
        raise place.error(f"split is {row['split']!r}; train or test was expected") from None


def _fifth_of_each_class(clips: Sequence[Clip]) -> list[bool]:
    """Tell which clips are of the test side: those of a fifth of each class's groups."""
    by_class: dict[int, set[str]] = {}
    for clip in clips:
        by_class.setdefault(clip.label, set()).add(clip.group)
    tested = {group for groups in by_class.values() for group in halves(groups)[1]}
    return [clip.group in tested for clip in clips]
