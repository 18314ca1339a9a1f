"""Class folders: a folder for each class, with the videos that show it."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from training.data.clips import Clip, DataError, Split
from training.data.frames import IMAGE_SUFFIXES
from training.data.rows import VIDEO_SUFFIXES

TEST_SHARE = 0.2
MIN_CLIPS = 4
_TRAIN_NAMES, _TEST_NAMES = ("train", "training"), ("test", "testing", "val", "validation")


def read_class_folders(
    root: Path, labels: Sequence[str] | None = None, *, min_clips: int = MIN_CLIPS
) -> Split:
    """Read a folder of class folders, or one that holds two such folders, `train` and `test` (or `val`).

    Without the two, a fifth of each class is the test side.

    Args:
        root: the dataset's folder.
        labels: class names to index by; None sorts those of the folders.
        min_clips: of each class, at least.

    Raises:
        DataError: there is no class folder, only one, an empty one, or one with too few videos.
    """
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder: a folder with a folder of videos for each class was expected"
        )
    train_root, test_root = _side(root, _TRAIN_NAMES), _side(root, _TEST_NAMES)
    if train_root is not None and test_root is not None:
        train = _classes(train_root, labels, min_clips)
        names = tuple(labels or train)
        return Split(names, _clips(root, names, train), _clips(root, names, _classes(test_root, names, 1)))
    classes = _classes(root, labels, min_clips)
    names = tuple(labels or classes)
    tested = {name: halves(path.name for path in paths)[1] for name, paths in classes.items()}
    sides = [
        {
            name: [path for path in paths if (path.name in tested[name]) is on_side]
            for name, paths in classes.items()
        }
        for on_side in (False, True)
    ]
    return Split(names, *(_clips(root, names, side) for side in sides))


def halves(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split names of one class into those to train on and a fifth, at least one, to test on.

    The choice hangs on the names alone, so that it is the same every time and hardly changes when some are
    added.
    """
    shuffled = sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
    num_test = max(round(TEST_SHARE * len(shuffled)), 1)
    return sorted(shuffled[num_test:]), sorted(shuffled[:num_test])


def _side(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _clips(root: Path, names: Sequence[str], classes: Mapping[str, Sequence[Path]]) -> tuple[Clip, ...]:
    return tuple(
        Clip(path, (names.index(name),), f"{root.name}/{path.relative_to(root)}")
        for name, paths in classes.items()
        for path in paths
    )


def _classes(root: Path, labels: Sequence[str] | None, min_clips: int) -> dict[str, list[Path]]:
    """Return every class folder's clips, sorted.

    Raises:
        DataError: see `read_class_folders`.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(f"{root} holds no class folders: a folder of videos for each class was expected")
    if len(folders) == 1:
        raise DataError(
            f"{root} holds one class folder, {folders[0].name!r}: there is nothing to tell it from; "
            "add a folder for each other class, such as one of videos of none of them"
        )
    classes = {folder.name: sorted(_clips_in(folder)) for folder in folders}
    for name, paths in classes.items():
        if labels is not None and name not in labels:
            raise DataError(f"{root / name} is not one of the model's classes ({', '.join(labels[:8])}, ...)")
        if not paths:
            raise DataError(
                f"class folder {root / name} holds no videos ({', '.join(VIDEO_SUFFIXES)}) "
                "and no folders of frames; remove it or fill it"
            )
        if len(paths) < min_clips:
            raise DataError(
                f"class folder {root / name} holds {len(paths)} clips; "
                f"at least {min_clips} are needed to train and test"
            )
    return classes


def _clips_in(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and _holds_frames(path)):
            yield path


def _holds_frames(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())
