"""Which clips to hold out of training, to calibrate on: whole groups, and of every class some."""

from collections.abc import Mapping, Sequence

import numpy as np

from training.data.clips import Clip


def hold_out_groups(
    clips: Sequence[Clip], share: float, rng: np.random.Generator
) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """Split clips into those kept for training and those held out, whole groups together.

    Every class that can spare a group has one held out, as far as the share goes: the classes with the most
    groups come first. A clip of several labels counts for each. No class gives its last group away, so that
    there may be fewer held out than the share says, or none, where classes have a group or two.

    Args:
        clips: of any number of groups.
        share: of the groups, to hold out, in [0, 1).
        rng: draws the groups.

    Returns:
        Kept clips, held-out clips.
    """
    labels_of: dict[str, set[int]] = {}
    for clip in clips:
        labels_of.setdefault(clip.group, set()).update(clip.labels)
    drawn = rng.permutation(sorted(labels_of)).tolist()
    holding = _Holding({group: sorted(labels_of[group]) for group in drawn}, round(share * len(drawn)))
    holding.one_of_each_class()
    holding.fill_up()
    kept = tuple(clip for clip in clips if clip.group not in holding.held)
    return kept, tuple(clip for clip in clips if clip.group in holding.held)


class _Holding:
    """The groups held out so far.

    Args:
        labels_of: the classes that each group's clips are of; of two groups that do equally well, the first
            is taken.
        limit: groups to hold out, at most.

    Attributes:
        held: the groups.
    """

    def __init__(self, labels_of: Mapping[str, Sequence[int]], limit: int) -> None:
        self.held: set[str] = set()
        self._labels_of = labels_of
        self._limit = limit
        self._groups_of: dict[int, list[str]] = {}
        for group, labels in labels_of.items():
            for label in labels:
                self._groups_of.setdefault(label, []).append(group)
        self._num_kept = {label: len(groups) for label, groups in self._groups_of.items()}
        self._missing = set(self._groups_of)

    def one_of_each_class(self) -> None:
        """Hold a group of every class that can spare one, the classes of the most groups first.

        Groups of several missing classes are preferred only where there is no room for one of each: they are
        the large ones, which training would miss most.
        """
        for label in sorted(self._groups_of, key=lambda label: -len(self._groups_of[label])):
            spare = [group for group in self._groups_of[label] if self._is_spare(group)]
            if label in self._missing and spare:
                has_to_share = len(self._missing) > self._limit - len(self.held)
                self._hold(max(spare, key=self._num_missing) if has_to_share else spare[0])

    def fill_up(self) -> None:
        """Hold whatever else can be spared."""
        for group in self._labels_of:
            if self._is_spare(group):
                self._hold(group)

    def _num_missing(self, group: str) -> int:
        return sum(label in self._missing for label in self._labels_of[group])

    def _is_spare(self, group: str) -> bool:
        has_room = len(self.held) < self._limit and group not in self.held
        return has_room and all(self._num_kept[label] > 1 for label in self._labels_of[group])

    def _hold(self, group: str) -> None:
        self.held.add(group)
        for label in self._labels_of[group]:
            self._num_kept[label] -= 1
            self._missing.discard(label)
