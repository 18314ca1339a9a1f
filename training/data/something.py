"""Something-Something V2: JSON lists of templates, and a JSON file that numbers them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.data.clips import Clip, DataError, Split
from training.data.rows import JsonPlace, Place, find_clip, read_json


def read_something(train: Path, test: Path, labels: Path, root: Path) -> Split:
    """Read `train.json`, `validation.json` and `labels.json`; the files are `ID.webm`.

    An entry is `{"id": "78687", "label": ..., "template": "Holding [something] next to [something]",
    "placeholders": [...]}`. The template without its brackets is the class, and `labels.json` has its index
    as a string: `{"Holding something next to something": "40", ...}`.

    Args:
        train: list of the train side.
        test: list of the test side; the labels of the official test list were never published.
        labels: the classes.
        root: the folder of videos.

    Raises:
        DataError: a file is missing or malformed; the message names the line and the video.
    """
    names = _classes(labels)
    index = {name: position for position, name in enumerate(names)}
    return Split(names, _clips(train, root, index), _clips(test, root, index))


def _classes(path: Path) -> tuple[str, ...]:
    document, text = read_json(path)
    if not isinstance(document, dict) or not document:
        raise DataError(
            f'{path} line 1: a JSON object of classes was expected, such as {{"Holding something": "0"}}'
        )
    names: dict[int, str] = {}
    for name, number in document.items():
        place = JsonPlace(path, text, name)
        if not str(number).isdecimal() or int(number) >= len(document) or int(number) in names:
            raise place.error(
                f"class {name!r} has the index {number!r}; "
                f"each index from 0 to {len(document) - 1} was expected once, as a string"
            )
        names[int(number)] = name
    return tuple(names[number] for number in range(len(names)))


def _clips(path: Path, root: Path, index: Mapping[str, int]) -> tuple[Clip, ...]:
    document, text = read_json(path)
    if not isinstance(document, list) or not document:
        raise DataError(f"{path} line 1: a JSON list of videos was expected")
    places = (JsonPlace(path, text, position) for position in range(len(document)))
    return tuple(_clip(entry, place, root, index) for entry, place in zip(document, places, strict=True))


def _clip(entry: Any, place: Place, root: Path, index: Mapping[str, int]) -> Clip:  # whatever the JSON holds
    if not isinstance(entry, Mapping) or not str(entry.get("id", "")).isdecimal():
        raise place.error(f'{str(entry)[:80]}; an object with an "id" in digits was expected')
    template = entry.get("template")
    if not isinstance(template, str):
        raise place.error(
            f'video {entry["id"]} has no "template"; such as "Holding [something]" was expected'
        )
    name = template.replace("[", "").replace("]", "")
    if name not in index:
        raise place.error(
            f"video {entry['id']} has the template {template!r}, which is not one of the {len(index)} classes"
        )
    return Clip(find_clip(root, str(entry["id"])), (index[name],), f"Something-Something/{entry['id']}")
