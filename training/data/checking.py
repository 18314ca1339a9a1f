"""Are the clips there, and can they be read? Asked before training, and by `sdcom data check`."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sdcom.errors import nearest_name
from training.data.clips import Clip, DataError, Split
from training.data.media import open_media
from training.data.tracking import Track, not_shown

MAX_UNUSABLE_SHARE = 0.05
MIN_TRAINING_CLIPS = 2
_CHECKED_SHORT_SIDE = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a clip cannot be used."""

    clip: Clip
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Clips sorted into usable ones and others."""

    usable: tuple[Clip, ...]
    problems: tuple[Problem, ...]

    @property
    def share(self) -> float:
        """Share of the clips that cannot be used."""
        return len(self.problems) / max(len(self.usable) + len(self.problems), 1)

    def write_report(self, path: Path) -> None:
        """Write a TSV of the clips that cannot be used: file and reason."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["file", "reason"])
            writer.writerows([problem.clip.path, problem.reason] for problem in self.problems)

    def refuse_above(self, max_share: float, report: Path) -> None:
        """Raise if more than a share of the clips cannot be used.

        Args:
            max_share: in [0, 1].
            report: where they are named, for the message.

        Raises:
            DataError: it is more, or no clip is left.
        """
        if self.share <= max_share and self.usable:
            return
        num_clips = len(self.usable) + len(self.problems)
        first = f", such as {self.problems[0].reason}" if self.problems else ""
        raise DataError(
            f"{len(self.problems)} of {num_clips} clips cannot be used ({self.share:.1%}), "
            f"more than the {max_share:.1%} that are tolerated{first}; {report} names them"
        )


def check_clips(clips: Sequence[Clip], *, num_threads: int, track: Track = not_shown) -> Checked:
    """Open every clip, and decode its middle frame.

    Args:
        clips: what to check.
        num_threads: clips at once.
        track: shows the progress.
    """
    problems: list[Problem] = []
    usable: list[Clip] = []

    def found() -> Iterator[None]:
        with ThreadPoolExecutor(num_threads) as threads:
            for clip, reason in zip(clips, threads.map(_problem_of, clips), strict=True):
                if reason is None:
                    usable.append(clip)
                else:
                    problems.append(Problem(clip, reason))
                yield

    for _ in track(found(), len(clips)):
        pass
    return Checked(tuple(usable), tuple(problems))


def usable_split(
    split: Split,
    report: Path,
    *,
    num_threads: int,
    max_share: float = MAX_UNUSABLE_SHARE,
    track: Track = not_shown,
) -> Split:
    """Return a split without the clips that cannot be used: the check before training.

    Args:
        split: as read.
        report: TSV to name the unusable clips in; written only if there are any.
        num_threads: clips at once.
        max_share: of unusable clips that is tolerated, in [0, 1].
        track: shows the progress.

    Raises:
        DataError: more cannot be used, or the classes cannot be learnt from the rest.
    """
    check_classes(split)  # what no clip need be opened for comes first
    checked = check_clips((*split.train, *split.test), num_threads=num_threads, track=track)
    if checked.problems:
        checked.write_report(report)
    checked.refuse_above(max_share, report)
    bad = {problem.clip for problem in checked.problems}
    rest = replace(
        split,
        train=tuple(clip for clip in split.train if clip not in bad),
        test=tuple(clip for clip in split.test if clip not in bad),
    )
    check_classes(rest)
    return rest


def check_classes(split: Split, min_clips: int = MIN_TRAINING_CLIPS) -> None:
    """Raise if a split's classes cannot be learnt.

    Raises:
        DataError: there are fewer than two classes, or some have too few training clips.
    """
    if len(split.labels) < 2:
        raise DataError(f"there is one class, {split.labels[0]!r}: at least two are needed to tell apart")
    counts = Counter(label for clip in split.train for label in clip.labels)
    few = {name: counts[index] for index, name in enumerate(split.labels) if counts[index] < min_clips}
    if few:
        known = [name for name in split.labels if name not in few]
        named = ", ".join(
            f"{name!r} has {count}{_suspicion(name, split.named_at.get(name), known)}"
            for name, count in list(few.items())[:5]
        )
        raise DataError(
            f"{len(few)} of {len(split.labels)} classes have fewer than {min_clips} training clips: {named}; "
            "add clips, or correct the labels if they are misspelt"
        )


def _suspicion(name: str, named_at: str | None, known: Sequence[str]) -> str:
    """Return where a rare label stands first, and which other one it may be meant for."""
    guess = nearest_name(name, known)
    hints = [] if named_at is None else [named_at]
    hints += [] if guess is None else [f"did you mean {guess!r}?"]
    return f" ({'; '.join(hints)})" if hints else ""


def _problem_of(clip: Clip) -> str | None:
    try:
        media = open_media(clip.path)
        if clip.num_frames is not None and clip.path.is_dir() and media.num_frames < clip.num_frames:
            return f"{clip.path} holds {media.num_frames} frames; its list says {clip.num_frames}"
        media.read(np.array([media.num_frames // 2]), _CHECKED_SHORT_SIDE)
    except (DataError, OSError) as error:
        return str(error)
    return None
