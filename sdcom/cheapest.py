"""Which frame of each segment costs the least to decode. Pure arithmetic over a packet index: no decoder.

A decoder can start at a keyframe only, and then has to decode every frame that others refer to, in the order
in which they are stored, up to the last one wanted. So one walk from a keyframe serves all frames that are
wanted of its group, and costs what its longest does.

Legend of shape suffixes: T sampled frames, N frames of the video in time order, P packets as stored, K frames
wanted, S places where decoding can start, G groups of frames decoded from one start.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from sdcom.sampling import Int64Array

BoolArray = npt.NDArray[np.bool_]

PIXELS_PER_BYTE = 32
"""So many decoded pixels cost as much as one byte of the stream does to read (docs/performance.md)."""


@dataclass(frozen=True, slots=True)
class DecodeCosts:
    """What it costs to reach each frame of a video, in any one unit.

    Attributes:
        group_N: from which start a frame is decoded; ascending.
        walk_N: cost of the walk from there to the frame: of every frame on the way that others refer to, with
            the frame itself if it is one of those.
        own_N: cost of a frame that nothing refers to, which is decoded only where it is wanted; else 0.
    """

    group_N: Int64Array
    walk_N: Int64Array
    own_N: Int64Array

    def of(self, frames_K: Int64Array) -> int:
        """Return what decoding these frames costs: the longest walk of each group, and their own."""
        wanted_K = np.unique(frames_K)
        walked_G = np.zeros(self.group_N[-1] + 1, dtype=np.int64)
        np.maximum.at(walked_G, self.group_N[wanted_K], self.walk_N[wanted_K])
        return int(walked_G.sum() + self.own_N[wanted_K].sum())


def costs_by_kind(
    num_bytes_P: Int64Array, is_key_P: BoolArray, passable_P: BoolArray, num_pixels: int
) -> Int64Array:
    """Return the cost of each packet, in bytes: the mean of its kind, and a share for its pixels.

    The kinds are keyframes, other references and frames that nothing refers to. Within a kind all cost the
    same, lest the emptiest picture, which has the fewest bytes, be the one that is looked at.

    Args:
        num_bytes_P: the packets' sizes.
        is_key_P: decoding can start there.
        passable_P: nothing refers to the packet's frame.
        num_pixels: of one frame.
    """
    cost_P = np.full(len(num_bytes_P), num_pixels // PIXELS_PER_BYTE + 1, dtype=np.int64)
    kind_P = np.where(is_key_P, 0, np.where(passable_P, 1, 2))
    for kind in np.unique(kind_P):
        cost_P[kind_P == kind] += int(num_bytes_P[kind_P == kind].mean())
    return cost_P


def decode_costs(
    place_N: Int64Array, group_N: Int64Array, start_S: Int64Array, passable_P: BoolArray, cost_P: Int64Array
) -> DecodeCosts:
    """Return what it costs to reach each frame.

    Args:
        place_N: where each frame's packet stands in the order of storage.
        group_N: which of the starts each frame is decoded from.
        start_S: places of the packets where decoding can start.
        passable_P: nothing refers to the packet's frame, so it need not be decoded unless it is wanted.
        cost_P: of each packet.
    """
    referred_P = np.where(passable_P, 0, cost_P)
    up_to_P = np.cumsum(referred_P)
    before_S = (up_to_P - referred_P)[start_S]
    return DecodeCosts(
        group_N=group_N,
        walk_N=up_to_P[place_N] - before_S[group_N],
        own_N=np.where(passable_P, cost_P, 0)[place_N],
    )


def cheapest_frames(
    costs: DecodeCosts, first_T: Int64Array, center_T: Int64Array, last_T: Int64Array
) -> Int64Array:
    """Return for each segment a frame such that decoding them all costs the least.

    Among frames that come with the same walks, the one nearest to the segment's centre.

    Args:
        costs: what it costs to reach each frame.
        first_T: the first frame of each segment, ascending.
        center_T: the one at its centre.
        last_T: its last one, not before the centre.

    Returns:
        Non-decreasing indices, shape (T,), each within its segment; never dearer than the centres.
    """
    path_T = np.array(_cheapest_path(costs, first_T, center_T, last_T), dtype=np.int64)
    walked_G = np.full(costs.group_N[-1] + 1, -1, dtype=np.int64)
    np.maximum.at(walked_G, costs.group_N[path_T], costs.walk_N[path_T])
    comes_along_N = (costs.walk_N <= walked_G[costs.group_N]) & (costs.own_N == 0)
    picked_T = path_T.copy()
    for segment, (first, center, last) in enumerate(zip(first_T, center_T, last_T, strict=True)):
        free = first + np.flatnonzero(comes_along_N[first : last + 1])
        if len(free):
            picked_T[segment] = free[np.abs(free - center).argmin()]
    return picked_T if costs.of(picked_T) < costs.of(center_T) else center_T


@dataclass(frozen=True, slots=True)
class _Path:
    """Frames picked in the segments so far; the last one's group, and how much of it has been walked."""

    cost: int = 0
    distance: int = 0  # from the segments' centres, in frames
    group: int = -1
    walked: int = 0
    frames: tuple[int, ...] = ()

    @property
    def rank(self) -> tuple[int, int]:
        """The lower, the better."""
        return self.cost, self.distance

    def with_frame(self, costs: DecodeCosts, frame: int, center: int) -> _Path:
        group, walk = int(costs.group_N[frame]), int(costs.walk_N[frame])
        walked = self.walked if group == self.group else 0
        cost = self.cost + max(walk - walked, 0) + int(costs.own_N[frame])
        distance = self.distance + abs(frame - center)
        return _Path(cost, distance, group, max(walk, walked), (*self.frames, frame))


def _cheapest_path(
    costs: DecodeCosts, first_T: Int64Array, center_T: Int64Array, last_T: Int64Array
) -> tuple[int, ...]:
    """Return a frame of each segment, found segment by segment, keeping the best path to each candidate."""
    paths = [_Path()]
    for first, center, last in zip(first_T.tolist(), center_T.tolist(), last_T.tolist(), strict=True):
        paths = [
            min((path.with_frame(costs, frame, center) for path in paths), key=lambda path: path.rank)
            for frame in _candidates(costs, first, center, last)
        ]
    return min(paths, key=lambda path: path.rank).frames


def _candidates(costs: DecodeCosts, first: int, center: int, last: int) -> list[int]:
    """Return the frames of a segment that can be part of a cheapest choice.

    Only its first group can go on with a walk from before, and only its last can be gone on with; of those
    between, the cheapest one will do. In each, the shortest walk will do, to a frame that others refer to or
    to one that nothing does.
    """
    segment = slice(first, last + 1)
    group, own = costs.group_N[segment], costs.own_N[segment]
    cost, distance = costs.walk_N[segment] + own, np.abs(np.arange(first, last + 1) - center)
    groups = (group == group[0], group == group[-1], (group > group[0]) & (group < group[-1]))
    found = []
    for among, is_referred in product(groups, (True, False)):
        frames = np.flatnonzero(among & ((own == 0) == is_referred))
        if len(frames):
            best = np.lexsort((distance[frames], cost[frames]))[0]
            found.append(first + int(frames[best]))
    return list(dict.fromkeys(found))
