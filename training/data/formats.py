"""Which reader a dataset needs: by what is in its folder, or as named."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sdcom.errors import InvalidParameterError
from training.data.activitynet import read_activitynet
from training.data.clips import Split
from training.data.folders import read_class_folders
from training.data.kinetics import read_kinetics
from training.data.numbered import read_numbered_lists
from training.data.shards import PACK_RECORD, read_packed
from training.data.something import read_something
from training.data.splits import MANIFEST, read_split
from training.data.tables import read_table


class Format(StrEnum):
    """How a dataset's clips are listed (docs/data.md)."""

    AUTO = "auto"
    SPLITS = "splits"
    FOLDERS = "folders"
    TABLE = "table"
    PACKED = "packed"
    ACTIVITYNET = "activitynet"
    NUMBERED = "numbered"
    KINETICS = "kinetics"
    SOMETHING = "something"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where a dataset is, as named on the command line.

    Attributes:
        path: its folder, or its list.
        format: of the lists; AUTO tells splits, packed and table by their files; others are folders.
        split: column of splits.tsv.
        videos: folder that the clips' names are relative to; None is the folder of the list.
        test: list of the test side, where it is a file of its own.
        classes: list of the class names, where it is a file of its own.
    """

    path: Path
    format: Format = Format.AUTO
    split: str = "split1"
    videos: Path | None = None
    test: Path | None = None
    classes: Path | None = None

    @property
    def has_columns(self) -> bool:
        """Whether it is a list whose columns are splits, so that `split` means anything."""
        found = detected(self.path) if self.format is Format.AUTO else self.format
        return found is Format.SPLITS

    @property
    def name(self) -> str:
        """Its folder's or its list's name and, where there are several splits, which one."""
        return f"{self.path.name} {self.split}" if self.has_columns else self.path.name


def read_dataset(dataset: Dataset, labels: Sequence[str] | None = None) -> Split:
    """Read a dataset's lists.

    Args:
        dataset: where it is.
        labels: a model's class names to index by; None takes those of the lists. Packed clips and lists of
            numbers have indices of their own, and must then have these very classes.

    Raises:
        DataError: a list is missing or malformed.
        InvalidParameterError: the format needs another file, or the classes are not the model's.
    """
    chosen = detected(dataset.path) if dataset.format is Format.AUTO else dataset.format
    split = _READERS[chosen](dataset, labels)
    if labels is not None and tuple(labels) != split.labels:
        raise InvalidParameterError(
            f"{dataset.path} has the classes {', '.join(split.labels[:5])}, ...; "
            f"the model's are {', '.join(labels[:5])}, ... ({len(split.labels)} and {len(labels)})"
        )
    return split


def detected(path: Path) -> Format:
    """Return the format of a folder or list by its files; folders of class folders where nothing tells."""
    if path.suffix in {".csv", ".tsv"}:
        return Format.TABLE
    if (path / MANIFEST).is_file():
        return Format.SPLITS
    return Format.PACKED if (path / PACK_RECORD).is_file() else Format.FOLDERS


def _numbered(dataset: Dataset, _labels: Sequence[str] | None) -> Split:
    test, classes = _needed(dataset, "test"), _needed(dataset, "classes")
    return read_numbered_lists(dataset.path, test, classes, _videos(dataset))


def _something(dataset: Dataset, _labels: Sequence[str] | None) -> Split:
    return read_something(
        dataset.path, _needed(dataset, "test"), _needed(dataset, "classes"), _videos(dataset)
    )


def _kinetics(dataset: Dataset, labels: Sequence[str] | None) -> Split:
    lists = [dataset.path] if dataset.test is None else [dataset.path, dataset.test]
    return read_kinetics(lists, _videos(dataset), labels)


_READERS: Mapping[Format, Callable[[Dataset, Sequence[str] | None], Split]] = {
    Format.SPLITS: lambda dataset, labels: read_split(dataset.path, dataset.split, labels),
    Format.FOLDERS: lambda dataset, labels: read_class_folders(dataset.path, labels),
    Format.TABLE: lambda dataset, labels: read_table(dataset.path, dataset.videos, labels),
    Format.PACKED: lambda dataset, _labels: read_packed(dataset.path),
    Format.ACTIVITYNET: lambda dataset, labels: read_activitynet(dataset.path, _videos(dataset), labels),
    Format.NUMBERED: _numbered,
    Format.KINETICS: _kinetics,
    Format.SOMETHING: _something,
}


def _videos(dataset: Dataset) -> Path:
    return dataset.videos or dataset.path.parent


def _needed(dataset: Dataset, option: str) -> Path:
    path: Path | None = getattr(dataset, option)
    if path is None:
        raise InvalidParameterError(f"--format {dataset.format} needs --{option} FILE (docs/data.md)")
    return path
