"""In which order to decode a video whose frames are asked for coarse to fine. Pure, over the costs of frames.

Decoding begins at keyframes only, so frames far apart in time are cheap to fetch apart, and frames of one
group are not: going back to a group means decoding its beginning again. A round fetches the next frames that
are fed, and with them what is wanted of what it passes anyway. The walk at its end stays where it is, and
the next round can go on from there.

Legend of shape suffixes: T frames in feeding order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sdcom.cheapest import DecodeCosts
from sdcom.sampling import Int64Array

TOLERANCE = 0.1
"""How much more than decoding all at once all rounds together may cost, for a video that needs them all."""
_FIRST_ROUND = 3  # middle, first and last: the frames that span the video


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of a walk: on from where the walk stands, or to another group's start and from there.

    Attributes:
        group: the start that its frames are decoded from, as `DecodeCosts` numbers them.
        frames: positions in the timeline, ascending, that it delivers.
        coming: all that are still wanted of the group, these included.
    """

    group: int
    frames: tuple[int, ...]
    coming: tuple[int, ...]


Round = list[Leg]


def plan_rounds(costs: DecodeCosts, fed_T: Int64Array) -> list[Round]:
    """Return the rounds in which to decode, the finest that are worth it.

    Args:
        costs: what it costs to reach each frame.
        fed_T: positions in the timeline in feeding order, repeated where a video is short.

    Returns:
        At least two rounds, or none where all at once is better. Each frame is in one of them.
    """
    most = (1 + TOLERANCE) * costs.of(fed_T)
    for cuts in _ways_to_cut(len(fed_T)):
        rounds, cost = _route(costs, np.split(fed_T, cuts))
        if len(rounds) > 1 and cost <= most:
            return rounds
    return []


def _ways_to_cut(num_frames: int) -> Iterator[list[int]]:
    """Yield where rounds may end: after each frame, after each level of coarse to fine, after the first."""
    yield list(range(1, num_frames))
    levels, end, size = list[int](), _FIRST_ROUND, 2
    while end < num_frames:
        levels.append(end)
        end, size = end + size, 2 * size
    yield levels
    yield levels[:1]


def _route(costs: DecodeCosts, parts: Sequence[Int64Array]) -> tuple[list[Round], int]:
    """Return the legs that deliver these parts one after the other, and what they cost together."""
    left: dict[int, list[int]] = {}
    for frame in np.unique(np.concatenate(parts)).tolist():
        left.setdefault(int(costs.group_N[frame]), []).append(frame)
    rounds, cost, standing, walked = list[Round](), 0, -1, 0
    for part in parts:
        legs = Round()
        last_by_group = _last_by_group(costs, part, left)
        for group in _visits(costs, last_by_group, left, standing):
            coming = left[group]
            frames = [frame for frame in coming if frame <= last_by_group[group]]
            walked = walked if group == standing else 0
            reach = max(walked, int(costs.walk_N[frames].max()))
            cost += reach - walked + int(costs.own_N[frames].sum())
            standing, walked = group, reach
            legs.append(Leg(group, tuple(frames), tuple(coming)))
            left[group] = coming[len(frames) :]
        if legs:
            rounds.append(legs)
    return rounds, cost


def _last_by_group(costs: DecodeCosts, part: Int64Array, left: dict[int, list[int]]) -> dict[int, int]:
    """Return for each group the last frame of a part that has not been delivered yet."""
    last: dict[int, int] = {}
    for frame in np.unique(part).tolist():
        group = int(costs.group_N[frame])
        if frame in left[group]:
            last[group] = frame
    return last


def _visits(
    costs: DecodeCosts, last_by_group: dict[int, int], left: dict[int, list[int]], standing: int
) -> list[int]:
    """Return groups in the order to go to: where the walk stands first, the dearest to go back to last."""

    def to_repeat(group: int) -> int:
        last = last_by_group[group]
        return int(costs.walk_N[last]) if left[group][-1] > last else 0

    dearest = max(last_by_group, key=to_repeat, default=-1)
    return sorted(last_by_group, key=lambda group: (group != standing, group == dearest, group))
