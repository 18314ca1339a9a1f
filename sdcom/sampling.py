"""Which frames of a video are looked at, and in which order. Pure arithmetic: no decoder, no clock.

Legend of shape suffixes: T sampled frames, N frames of the video.
"""

from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

FeedingOrder = Literal["coarse_to_fine", "time"]

Sampling = Literal["centers", "cheapest", "affordable"]
"""Which frame stands for a segment: the one at its centre; the one of it that costs the least to decode; the
nearest to its centre that a fixed amount of decoding brings, be it of another segment."""

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


def _check_counts(**counts: int) -> None:
    if min(counts.values()) < 1:
        raise ValueError(f"counts must be positive, got {counts}")


def segment_centers(num_frames: int, num_segments: int) -> Int64Array:
    """Return the centre frame of each of `num_segments` equal segments (TSN, arXiv:1608.00859, 3.1).

    Videos shorter than `num_segments` repeat frames.

    Args:
        num_frames: frames in the video, at least 1.
        num_segments: frames to pick, T.

    Returns:
        Non-decreasing indices, shape (T,), each in [0, num_frames).

    Raises:
        ValueError: a count is below 1.
    """
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    return (2 * np.arange(num_segments, dtype=np.int64) + 1) * num_frames // (2 * num_segments)


def segment_center_times(duration_s: float, num_segments: int) -> Float64Array:
    """Return the middle of each of `num_segments` equal stretches of time.

    Args:
        duration_s: seconds from the first frame's start to the last frame's end, not negative.
        num_segments: T.

    Returns:
        Ascending seconds from the first frame, shape (T,), each in [0, duration_s].

    Raises:
        ValueError: the count is below 1 or the duration is negative or not finite.
    """
    _check_counts(num_segments=num_segments)
    if not 0 <= duration_s < np.inf:
        raise ValueError(f"duration must be finite and not negative, got {duration_s}")
    return (2 * np.arange(num_segments, dtype=np.float64) + 1) * duration_s / (2 * num_segments)


def frames_at_times(pts_N: Int64Array | Float64Array, times_T: Int64Array | Float64Array) -> Int64Array:
    """Return the frame on screen at each time: the last one whose presentation time is not later.

    Args:
        pts_N: ascending presentation times, at least one.
        times_T: when to look, in the same unit as `pts_N`; a time before the first frame shows the first.

    Returns:
        Indices into `pts_N`, shape (T,).

    Raises:
        ValueError: there is no frame.
    """
    _check_counts(num_frames=len(pts_N))
    return np.maximum(np.searchsorted(pts_N, times_T, side="right") - 1, 0).astype(np.int64)


def is_constant_rate(pts_N: Int64Array) -> bool:
    """Tell whether frames are evenly spaced, but for the rounding of times to the container's clock.

    Matroska, for one, rounds to a millisecond: 30 frames a second become gaps of 33, 34 and 33.

    Args:
        pts_N: ascending presentation times in ticks of the container's clock, at least one.
    """
    _check_counts(num_frames=len(pts_N))
    if len(pts_N) <= 2:
        return True
    gap = (pts_N[-1] - pts_N[0]) / (len(pts_N) - 1)
    deviation = np.abs(pts_N - (pts_N[0] + gap * np.arange(len(pts_N))))
    return bool(deviation.max() <= min(1.0, gap / 4))


def segment_center_frames(pts_N: Int64Array, duration: int, num_segments: int) -> Int64Array:
    """Return the frames on screen at the segments' centre times, exact for any frame rate.

    At a constant rate this is `segment_centers`, whatever the rounding of the times; otherwise the frame on
    screen at each centre time, in integer arithmetic.

    Args:
        pts_N: ascending presentation times in ticks, at least one.
        duration: ticks from the first frame's start to the last frame's end.
        num_segments: T.

    Returns:
        Non-decreasing indices into `pts_N`, shape (T,).

    Raises:
        ValueError: there is no frame, or the count is below 1.
    """
    _check_counts(num_frames=len(pts_N), num_segments=num_segments)
    if is_constant_rate(pts_N):
        return segment_centers(len(pts_N), num_segments)
    centers_T = (2 * np.arange(num_segments, dtype=np.int64) + 1) * duration
    return frames_at_times((pts_N - pts_N[0]) * (2 * num_segments), centers_T)


def frames_of_segments(
    pts_N: Int64Array, duration: int, num_segments: int
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return each segment's first, centre and last frame: those of which any one may stand for the segment.

    They are the frames that start within the segment. Where these do not include the centre frame of
    `segment_center_frames`, because a segment is shorter than two frames or one frame stays longer than that,
    the centre frame is all three.

    Args:
        pts_N: ascending presentation times in ticks, at least one.
        duration: ticks from the first frame's start to the last frame's end.
        num_segments: T.

    Returns:
        Non-decreasing indices into `pts_N`: first, centre and last, each of shape (T,).

    Raises:
        ValueError: there is no frame, or the count is below 1.
    """
    center_T = segment_center_frames(pts_N, duration, num_segments)
    if is_constant_rate(pts_N):
        start_N, duration = np.arange(len(pts_N), dtype=np.int64), len(pts_N)
    else:
        start_N = pts_N - pts_N[0]
    edges = np.arange(num_segments + 1, dtype=np.int64) * duration
    starts = np.searchsorted(start_N * num_segments, edges, side="left").astype(np.int64)
    first_T, last_T = starts[:-1], starts[1:] - 1
    holds_center_T = (first_T <= center_T) & (center_T <= last_T)
    return np.where(holds_center_T, first_T, center_T), center_T, np.where(holds_center_T, last_T, center_T)


def random_in_segments(num_frames: int, num_segments: int, rng: np.random.Generator) -> Int64Array:
    """Return one random frame of each of `num_segments` equal segments, for training.

    Videos shorter than `num_segments` repeat frames evenly.

    Args:
        num_frames: frames in the video, at least 1.
        num_segments: T.
        rng: where the randomness comes from.

    Returns:
        Non-decreasing indices, shape (T,), each in [0, num_frames).

    Raises:
        ValueError: a count is below 1.
    """
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    edges = np.arange(num_segments + 1, dtype=np.int64) * num_frames // num_segments
    starts, ends = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
    return rng.integers(starts, ends, dtype=np.int64)


def coarse_to_fine_order(num_frames: int) -> Int64Array:
    """Return the feeding order: middle, first, last, then midpoints of the remaining gaps, level by level.

    The first few frames fed then already cover the whole video. `order[k]` is the frame fed k-th; 16 frames
    give 7 0 15 3 11 1 5 9 13 2 4 6 8 10 12 14.

    Args:
        num_frames: T.

    Returns:
        A permutation of range(T), shape (T,).

    Raises:
        ValueError: the count is below 1.
    """
    _check_counts(num_frames=num_frames)
    order = list(dict.fromkeys([(num_frames - 1) // 2, 0, num_frames - 1]))
    while len(order) < num_frames:
        fed = sorted(order)
        order += [(left + right) // 2 for left, right in pairwise(fed) if right - left > 1]
    return np.array(order, dtype=np.int64)


def feeding_order(num_frames: int, order: FeedingOrder) -> Int64Array:
    """Return the positions in time, shape (T,), of the frames in the order that a model is fed them.

    Raises:
        ValueError: the count is below 1.
    """
    _check_counts(num_frames=num_frames)
    return np.arange(num_frames, dtype=np.int64) if order == "time" else coarse_to_fine_order(num_frames)
