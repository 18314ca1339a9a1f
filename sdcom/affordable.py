"""Frames as near to the segments' centres as a fixed amount of decoding allows. Pure arithmetic: no decoder.

A segment whose own frames are too dear to reach is shown by the nearest frame that is decoded, so several may
share one: looks are no longer evenly spaced, and a stretch of the video may not be seen at all.

Legend of shape suffixes: T sampled frames, N frames of the video in time order, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdcom.cheapest import DecodeCosts
from sdcom.sampling import Float64Array, Int64Array

AFFORDABLE = 3_000_000
"""What decoding a video's frames may cost, in the unit of `sdcom.cheapest.costs_by_kind`: some 70 frames of
720p, or 200 ms of processor time (docs/performance.md)."""

MIN_KEYFRAMES = 11
"""So many keyframes are affordable however large they are."""

_LOWEST = -20.0
_HALVINGS = 12
"""Prices are tried as powers of two, from one that is next to nothing for any video."""


def affordable_frames(costs: DecodeCosts, center_T: Int64Array) -> Int64Array:
    """Return for each segment a frame near its centre such that decoding them all is affordable.

    The lower the price of a frame's distance from a centre, the less is decoded: the highest price is taken
    that costs at most `AFFORDABLE` or `MIN_KEYFRAMES` keyframes, whichever is more.

    Args:
        costs: what it costs to reach each frame.
        center_T: the centre frame of each segment, non-decreasing.

    Returns:
        Non-decreasing indices, shape (T,): the centres if these are affordable.
    """
    allowed, full = max(AFFORDABLE, MIN_KEYFRAMES * int(costs.walk_N.min())), costs.of(center_T)
    if full <= allowed:
        return center_T
    stops = _Stops.of(costs, center_T)
    low, high = _LOWEST, float(np.log2(full))
    picked_T = stops.frames(2.0**low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        nearer_T = stops.frames(2.0**middle)
        if costs.of(nearer_T) <= allowed:
            low, picked_T = middle, nearer_T
        else:
            high = middle
    return picked_T


@dataclass(frozen=True, slots=True)
class _Stops:
    """Where a choice of frames may come by in time order, and what it costs to go on from one to the next.

    A segment is shown by the nearer of the two frames chosen around its centre.

    Attributes:
        frame_C: the candidates, ascending.
        center_T: the segments' centres.
        step_CC: cost of decoding the column's frame after the row's.
        distance_CC: of the centres between the two, in frames, if none between them is chosen.
        first_C: cost of decoding the frame as the first.
        before_C: distance of the centres before the frame, if it is the first.
        after_C: distance of those behind it, if it is the last.
    """

    frame_C: Int64Array
    center_T: Int64Array
    step_CC: Int64Array
    distance_CC: Int64Array
    first_C: Int64Array
    before_C: Int64Array
    after_C: Int64Array

    @classmethod
    def of(cls, costs: DecodeCosts, center_T: Int64Array) -> _Stops:
        frame_C = _candidates(costs, center_T)
        group_C, walk_C, own_C = costs.group_N[frame_C], costs.walk_N[frame_C], costs.own_N[frame_C]
        goes_on_CC = group_C[:, None] == group_C
        further_CC = np.maximum(walk_C - walk_C[:, None], 0)
        sums = np.concatenate([[0], np.cumsum(center_T)])
        num_C = np.searchsorted(center_T, frame_C, side="right")  # centres up to each frame
        half_CC = np.searchsorted(center_T, (frame_C[:, None] + frame_C) // 2, side="right")
        behind_CC = sums[half_CC] - sums[num_C][:, None] - (half_CC - num_C[:, None]) * frame_C[:, None]
        ahead_CC = (num_C - half_CC) * frame_C - (sums[num_C] - sums[half_CC])
        return cls(
            frame_C=frame_C,
            center_T=center_T,
            step_CC=np.where(goes_on_CC, further_CC, walk_C) + own_C,
            distance_CC=behind_CC + ahead_CC,
            first_C=walk_C + own_C,
            before_C=num_C * frame_C - sums[num_C],
            after_C=sums[-1] - sums[num_C] - (len(center_T) - num_C) * frame_C,
        )

    def frames(self, price: float) -> Int64Array:
        """Return the frame of each segment for which cost and distance, at this price a frame, are least."""
        total_C: Float64Array = self.first_C + price * self.before_C
        step_CC = self.step_CC + price * self.distance_CC
        came_from = [-1]
        for stop in range(1, len(total_C)):
            via = total_C[:stop] + step_CC[:stop, stop]
            best = int(via.argmin())
            came_from.append(best if via[best] < total_C[stop] else -1)
            total_C[stop] = min(via[best], total_C[stop])
        stop, chosen = int((total_C + price * self.after_C).argmin()), list[int]()
        while stop >= 0:
            chosen.append(stop)
            stop = came_from[stop]
        frames = self.frame_C[chosen[::-1]]
        picked_T: Int64Array = frames[np.abs(frames - self.center_T[:, None]).argmin(axis=1)]
        return picked_T


def _candidates(costs: DecodeCosts, center_T: Int64Array) -> Int64Array:
    """Return the centres, and before and after each the nearest keyframe and the nearest frame referred to.

    Between two of them, going on always pays as much for the distance, or never does.
    """
    starts = np.flatnonzero(np.diff(costs.group_N, prepend=-1))
    referred = np.flatnonzero(costs.own_N == 0)
    return np.unique(np.concatenate([center_T, _around(starts, center_T), _around(referred, center_T)]))


def _around(frames: Int64Array, center_T: Int64Array) -> Int64Array:
    """Return those of ascending frames that are the last before a centre, or the first from it on."""
    places = np.searchsorted(frames, center_T)
    places = np.concatenate([places - 1, places])
    return frames[places[(places >= 0) & (places < len(frames))]]
