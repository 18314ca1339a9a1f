"""Labelled clips: what each is, what it shows, and which source it was cut from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdcom.errors import SdcomError


class DataError(SdcomError):
    """A list of clips, or a clip, cannot be used as it stands."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled video.

    Attributes:
        path: a video file, a folder of frames, or a clip in a tar shard (`shard.tar/name`).
        labels: class indices, at least one; the first is the one that single-label scores are about.
        group: the source that it was cut from; clips of one group never stand on both sides of a split.
        num_frames: as the list says; None where it does not say.
    """

    path: Path
    labels: tuple[int, ...]
    group: str
    num_frames: int | None = None

    @property
    def label(self) -> int:
        """The first class index."""
        return self.labels[0]


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides of a split, and the class names that the labels index.

    Attributes:
        labels: class names.
        train: clips to learn from.
        test: clips to evaluate on.
        named_at: file and line that name a class first, for errors; of lists whose labels are free text.
    """

    labels: tuple[str, ...]
    train: tuple[Clip, ...]
    test: tuple[Clip, ...]
    named_at: Mapping[str, str] = field(default_factory=dict, compare=False, kw_only=True)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each class, the class that a clip of it shows when mirrored."""
        return mirrored_labels(self.labels)


def mirrored_labels(labels: Sequence[str]) -> tuple[int, ...]:
    """Return, for each class, the class of its mirror image: its name with left and right exchanged.

    A class without such a counterpart is its own.
    """
    index = {label: position for position, label in enumerate(labels)}
    return tuple(index.get(_exchanged(label), position) for position, label in enumerate(labels))


def _exchanged(label: str) -> str:
    other = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"(?<![A-Za-z])([Ll]eft|[Rr]ight)(?![A-Za-z])", lambda match: other[match[0]], label)
