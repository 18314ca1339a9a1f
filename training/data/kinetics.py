"""Mini-Kinetics: the CSV lists of Kinetics, and clips named by what was cut from where."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.data.clips import Clip, Split
from training.data.rows import Place, find_clip, first_named, label_index
from training.data.tables import read_rows

_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_TRAIN, _TEST = frozenset(["train"]), frozenset(["val", "validate", "validation", "test"])
_SECONDS = re.compile(r"\d+(\.0+)?")


def read_kinetics(lists: Sequence[Path], root: Path, labels: Sequence[str] | None = None) -> Split:
    """Read lists with the columns `label,youtube_id,time_start,time_end,split,is_cc`.

    The files are `ID_SSSSSS_EEEEEE.mp4` (or another video suffix, or folders of frames), with the seconds of
    start and end in six digits, in `root` itself or in a folder named as the label. Rows of split `train` are
    the train side; `val`, `validate` and `test` the test side.

    Args:
        lists: one file of all, or one for each side.
        root: the folder of videos.
        labels: class names to index by; None sorts those of the lists.

    Raises:
        DataError: a list is missing or malformed; the message names the line.
    """
    rows = [row for path in lists for row in read_rows(path, required=_COLUMNS)]
    names = tuple(labels) if labels is not None else tuple(sorted({row["label"] for _, row in rows}))
    train: list[Clip] = []
    test: list[Clip] = []
    for place, row in rows:
        side = row["split"].lower()
        if side not in _TRAIN | _TEST:
            raise place.error(f"split is {row['split']!r}; train, val or test was expected")
        (train if side in _TRAIN else test).append(_clip(place, row, root, names))
    named_at = first_named((row["label"], place) for place, row in rows)
    return Split(names, tuple(train), tuple(test), named_at=named_at)


def _clip(place: Place, row: Mapping[str, str], root: Path, names: Sequence[str]) -> Clip:
    if not row["youtube_id"]:
        raise place.error("youtube_id is empty; the eleven letters of a video were expected")
    start, end = (_seconds(row[column], column, place) for column in ("time_start", "time_end"))
    if end <= start:
        raise place.error(f"time_end is {end}, not after time_start, which is {start}")
    label = label_index(row["label"], names, place)
    name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
    in_folder = root / row["label"]
    return Clip(
        find_clip(in_folder if in_folder.is_dir() else root, name), (label,), f"Kinetics/{row['youtube_id']}"
    )


def _seconds(text: str, column: str, place: Place) -> int:
    if not _SECONDS.fullmatch(text):
        raise place.error(f"{column} is {text!r}; whole seconds were expected")
    return int(float(text))
