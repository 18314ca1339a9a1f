"""Lists of `ID,frames,label[,label...]`, as the literature passes ActivityNet and FCVID on."""

from pathlib import Path

from training.data.clips import Clip, DataError, Split
from training.data.rows import Place, filled_lines, find_clip, positive_integer


def read_numbered_lists(train: Path, test: Path, classes: Path, root: Path) -> Split:
    """Read two lists of clips whose labels are numbers, and the list that names the numbers.

    A line of a list is `v_ID,frames,label[,label...]` (ActivityNet) or `class/ID,frames,label[,label...]`
    (FCVID): a clip's name below `root`, its number of frames, and the indices of its classes, the first one
    first; -1 fills lines up and is no label. A line of the classes is `index,name`.

    Args:
        train: list of the train side.
        test: list of the test side.
        classes: the classes' list, indices from 0 without gaps.
        root: the folder of videos, or of folders of frames.

    Raises:
        DataError: a list is missing or malformed; the message names the line.
    """
    names = read_classes(classes)
    sides = [
        tuple(_clip(place, line, root, len(names)) for place, line in filled_lines(path))
        for path in (train, test)
    ]
    for path, clips in zip((train, test), sides, strict=True):
        if not clips:
            raise DataError(f"{path} lists no clips: lines of ID,frames,label were expected")
    return Split(names, *sides)


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names of a list of `index,name`, in the order of their indices.

    Raises:
        DataError: the list is missing or malformed, or an index is missing or twice there.
    """
    names: dict[int, str] = {}
    for place, line in filled_lines(path):
        index, separator, name = line.partition(",")
        if not (separator and index.strip().isdecimal() and name.strip()):
            raise place.error(f"{line!r}; index,name was expected, such as 0,Applying sunscreen")
        if int(index) in names:
            raise place.error(f"index {int(index)} is {names[int(index)]!r} already; each stands once")
        names[int(index)] = name.strip()
    gaps = sorted(set(range(len(names))) - set(names))
    if not names or gaps:
        missing = f"index {gaps[0]} is missing" if gaps else "there is no class"
        raise DataError(f"{path}: {missing}; indices from 0 to the number of classes less 1 were expected")
    return tuple(names[index] for index in range(len(names)))


def _clip(place: Place, line: str, root: Path, num_labels: int) -> Clip:
    name, *numbers = (field.strip() for field in line.split(","))
    if not name or len(numbers) < 2:
        raise place.error(f"{line!r}; ID,frames,label[,label...] was expected")
    num_frames = positive_integer(numbers[0], "the number of frames", place)
    labels = dict.fromkeys(_label(place, text, num_labels) for text in numbers[1:] if text != "-1")
    if not labels:
        raise place.error(f"{line!r} has no label; at least one class index was expected")
    return Clip(find_clip(root, name), tuple(labels), f"{root.name}/{name}", num_frames)


def _label(place: Place, text: str, num_labels: int) -> int:
    if not text.isdecimal() or int(text) >= num_labels:
        raise place.error(f"label {text!r}; an index from 0 to {num_labels - 1} was expected")
    return int(text)
