"""Labelled clips: what each is, what it shows, and which source it was cut from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdcom.errors import SdcomError


class DataError(SdcomError):
    """A list of clips, or a clip, cannot be used as it stands."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled video.

    Attributes:
        path: a video file, a folder of frames, or a member of a tar shard (`shard.tar/name`).
        labels: class indices, at least one; the first is the one that single-label scores are about.
        group: the source that it was cut from; clips of one group never stand on both sides of a split.
    """

    path: Path
    labels: tuple[int, ...]
    group: str

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
        mirrored: for each class, the class that a clip of it shows when mirrored; empty where mirroring
            changes no class.
    """

    labels: tuple[str, ...]
    train: tuple[Clip, ...]
    test: tuple[Clip, ...]
    mirrored: tuple[int, ...] = ()


def hold_out_groups(
    clips: Sequence[Clip], share: float, rng: np.random.Generator
) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Split clips into those kept for training and those held out, whole groups together.

    Args:
        clips: of any number of groups.
        share: of the groups, to hold out, in [0, 1).
        rng: draws the groups.

    Returns:
        Kept clips, held-out clips.
    """
    groups = sorted({clip.group for clip in clips})
    held = set(rng.permutation(groups)[: round(share * len(groups))].tolist())
    kept = tuple(clip for clip in clips if clip.group not in held)
    return kept, tuple(clip for clip in clips if clip.group in held)
