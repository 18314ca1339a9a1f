"""Pictures that a video repeats: each is computed once, for all of its frames that show it.

A clip shows a picture several times where the video has fewer frames than a clip, or where one frame stands
for several stretches of it. What the static network makes of a picture, and the dynamic network at one width,
depends on nothing else; what the gate and the fusion head make of it also does on the frames before.
"""

from collections.abc import Hashable, Iterable, Sequence

Pictures = Sequence[Hashable]
"""What each frame shows: frames with equal entries are the same picture, to the last bit."""

Repeats = Sequence[tuple[int, int]]
"""Positions of frames that show a picture again, each after that of the first one with this picture."""


def repeats_of(pictures_T: Iterable[Hashable]) -> Repeats:
    """Return the frames that repeat a picture, in feeding order."""
    first: dict[Hashable, int] = {}
    pairs = ((first.setdefault(picture, each), each) for each, picture in enumerate(pictures_T))
    return [pair for pair in pairs if pair[0] != pair[1]]


def first_positions(num_frames: int, repeats: Repeats) -> list[int]:
    """Return for each frame the position of the first one that shows the same picture."""
    first_T = list(range(num_frames))
    for first, again in repeats:
        first_T[again] = first
    return first_T
