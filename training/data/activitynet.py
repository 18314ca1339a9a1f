"""ActivityNet as its authors publish it: one JSON file of all videos."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.clips import Clip, DataError, Split
from training.data.rows import JsonPlace, Place, find_clip, label_index, read_json

_SUBSETS = ("training", "validation", "testing")
_PREFIX = "v_"  # of the files' names, before the video's ID


def read_activitynet(path: Path, root: Path, labels: Sequence[str] | None = None) -> Split:
    """Read `activity_net.v1-3.min.json`: `{"database": {ID: {"subset": ..., "annotations": [...]}}}`.

    A video has the distinct labels of its annotations, the first one first. Training videos are the train
    side, validation videos the test side; the labels of testing videos were never published. The files are
    `v_ID.mp4` (or another video suffix, or folders of frames `v_ID`).

    Args:
        path: the JSON file.
        root: the folder of videos.
        labels: class names to index by; None sorts those of the file.

    Raises:
        DataError: the file is missing or malformed; the message names the line and the video.
    """
    document, text = read_json(path)
    database = document.get("database") if isinstance(document, dict) else None
    if not isinstance(database, dict) or not database:
        raise DataError(f'{path} line 1: a JSON object with a "database" of videos was expected')
    places = {name: JsonPlace(path, text, name) for name in database}
    named = {name: _labels(name, video, places[name]) for name, video in database.items()}
    used = tuple(sorted({label for of_video in named.values() for label in of_video}))
    names = tuple(labels) if labels is not None else used
    sides: dict[str, list[Clip]] = {subset: [] for subset in _SUBSETS}
    for name, of_video in named.items():
        if not of_video:
            continue
        indices = tuple(label_index(label, names, places[name]) for label in of_video)
        sides[database[name]["subset"]].append(
            Clip(find_clip(root, _PREFIX + name), indices, f"ActivityNet/{name}")
        )
    return Split(names, tuple(sides["training"]), tuple(sides["validation"]))


def _labels(name: str, video: Any, place: Place) -> list[str]:  # whatever the JSON holds
    """Return a video's distinct labels, none for testing videos."""
    if not isinstance(video, Mapping) or video.get("subset") not in _SUBSETS:
        found = video.get("subset") if isinstance(video, Mapping) else video
        raise place.error(
            f"video {name!r} has the subset {found!r}; one of {', '.join(_SUBSETS)} was expected"
        )
    if video["subset"] == "testing":
        return []
    annotations = video.get("annotations")
    if not isinstance(annotations, list) or not annotations:
        raise place.error(f'video {name!r} has no "annotations"; a list of at least one was expected')
    for annotation in annotations:
        if not isinstance(annotation, Mapping) or not isinstance(annotation.get("label"), str):
            raise place.error(
                f'video {name!r} has the annotation {annotation!r}; a "label" was expected in it'
            )
    return list(dict.fromkeys(annotation["label"] for annotation in annotations))
