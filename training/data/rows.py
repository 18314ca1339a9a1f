"""What the readers of lists share: labels by name or index, clips by name, errors by line."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sdcom.errors import nearest_name
from training.data.clips import DataError

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".ts")


class Place:
    """A line of a file, for errors about it."""

    def __init__(self, path: Path, line: int) -> None:
        self.path = path
        self._line = line

    @property
    def line(self) -> int:
        """Number of the line, from 1."""
        return self._line

    def __str__(self) -> str:
        return f"{self.path} line {self.line}"

    def error(self, what: str) -> DataError:
        """Return the error that something is wrong on this line."""
        return DataError(f"{self}: {what}")


class JsonPlace(Place):
    """A place in a JSON text, whose line is looked up only for an error.

    Args:
        path: the file.
        text: all of it.
        entry: a key of an object that stands nowhere before, or the position of an item of the outer list.
    """

    def __init__(self, path: Path, text: str, entry: str | int) -> None:
        super().__init__(path, 1)
        self._text = text
        self._entry = entry

    @property
    def line(self) -> int:
        """Number of the line, from 1."""
        if isinstance(self._entry, str):
            start = max(self._text.find(json.dumps(self._entry)), 0)
        else:
            start = _item_start(self._text, self._entry)
        return self._text.count("\n", 0, start) + 1


def _item_start(text: str, position: int) -> int:
    """Return where an item of a valid text's outer list begins."""
    decoder, between = json.JSONDecoder(), re.compile(r"[\s,\[]*")
    start = end = 0
    for _ in range(position + 1):
        start = between.match(text, end).end()  # type: ignore[union-attr]  # it matches anywhere
        _, end = decoder.raw_decode(text, start)
    return start


def read_text(path: Path) -> str:
    """Return a list's text.

    Raises:
        DataError: it is missing, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise DataError(f"{path} is missing: a list of clips was expected there") from exc
    except UnicodeDecodeError as exc:
        line = exc.object[: exc.start].count(b"\n") + 1
        raise DataError(f"{path} line {line}: not UTF-8 text; save the list as UTF-8") from exc


def read_json(path: Path) -> tuple[Any, str]:
    """Return a JSON document and its text.

    Raises:
        DataError: it is missing, or not JSON; the message names the line.
    """
    text = read_text(path)
    try:
        return json.loads(text), text
    except json.JSONDecodeError as exc:
        raise DataError(f"{path} line {exc.lineno}: not JSON: {exc.msg} at column {exc.colno}") from exc


def filled_lines(path: Path) -> Iterator[tuple[Place, str]]:
    """Yield every line that is not blank, and its place."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            yield Place(path, number), line.strip()


def first_named(named: Iterable[tuple[str, Place]]) -> dict[str, str]:
    """Return, for each name, the file and the line of the first place that it stands at."""
    first: dict[str, Place] = {}
    for name, place in named:
        first.setdefault(name, place)
    return {name: str(place) for name, place in first.items()}


def label_index(name: str, names: Sequence[str], place: Place) -> int:
    """Return a label's class index.

    Raises:
        DataError: there is no such class; the message names the place and the nearest class.
    """
    try:
        return names.index(name)
    except ValueError:
        guess = nearest_name(name, names)
        hint = f"; did you mean {guess!r}?" if guess else f" ({', '.join(names[:8])}, ...)"
        raise place.error(f"label {name!r} is not one of the {len(names)} classes{hint}") from None


def positive_integer(text: str, what: str, place: Place) -> int:
    """Return a count that a list gives.

    Raises:
        DataError: it is not an integer, or below 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise place.error(f"{what} is {text!r}; an integer from 1 was expected")
    return int(text)


def find_clip(root: Path, name: str) -> Path:
    """Return where a clip without a suffix is: a folder of frames, or a video of any kind.

    Where there is neither, the `.mp4` that could have been, for the check to find missing.
    """
    if (root / name).is_dir():
        return root / name
    candidates = (root / f"{name}{suffix}" for suffix in VIDEO_SUFFIXES)
    return next((path for path in candidates if path.is_file()), root / f"{name}.mp4")
