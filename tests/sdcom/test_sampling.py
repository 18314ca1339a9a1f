"""Sampling picks the right frames for every length, frame rate and number of segments."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcom.sampling import (
    coarse_to_fine_order,
    feeding_order,
    frames_at_times,
    frames_of_segments,
    is_constant_rate,
    random_in_segments,
    segment_center_frames,
    segment_center_times,
    segment_centers,
)

counts = st.integers(1, 2000)
segments = st.integers(1, 64)


@given(counts, segments)
def test_segment_centers_are_the_floor_of_the_exact_centre(num_frames: int, num_segments: int) -> None:
    exact = [int(Fraction(num_frames, num_segments) * (i + Fraction(1, 2))) for i in range(num_segments)]
    assert segment_centers(num_frames, num_segments).tolist() == exact


@given(counts, segments)
def test_segment_centers_are_sorted_in_range_and_distinct_when_the_video_is_long_enough(
    num_frames: int, num_segments: int
) -> None:
    picked = segment_centers(num_frames, num_segments)
    assert picked.shape == (num_segments,)
    assert picked.min() >= 0
    assert picked.max() < num_frames
    assert (np.diff(picked) >= (1 if num_frames >= num_segments else 0)).all()


@given(counts, segments)
def test_a_short_video_repeats_its_frames_evenly(num_frames: int, num_segments: int) -> None:
    repeats = np.bincount(segment_centers(num_frames, num_segments), minlength=num_frames)
    if num_frames <= num_segments:
        assert repeats.max() - repeats.min() <= 1


@given(counts, segments, st.integers(0, 2**32 - 1))
def test_training_draws_one_frame_of_each_segment(num_frames: int, num_segments: int, seed: int) -> None:
    picked = random_in_segments(num_frames, num_segments, np.random.default_rng(seed))
    edges = [i * num_frames // num_segments for i in range(num_segments + 1)]
    for frame, start, end in zip(picked, edges[:-1], edges[1:], strict=True):
        assert start <= frame < max(end, start + 1)
    assert (
        picked.tolist() == random_in_segments(num_frames, num_segments, np.random.default_rng(seed)).tolist()
    )


def test_training_reaches_every_frame() -> None:
    rng = np.random.default_rng(0)
    seen = {int(frame) for _ in range(200) for frame in random_in_segments(23, 4, rng)}
    assert seen == set(range(23))


@given(counts, segments, st.integers(1, 10_000), st.integers(-(10**9), 10**9))
def test_a_constant_rate_gives_the_segment_centres_whatever_the_tick_and_start(
    num_frames: int, num_segments: int, gap: int, start: int
) -> None:
    pts = start + gap * np.arange(num_frames, dtype=np.int64)
    by_time = segment_center_frames(pts, gap * num_frames, num_segments)
    assert by_time.tolist() == segment_centers(num_frames, num_segments).tolist()


@given(counts, segments, st.sampled_from([(1001, 30_000), (1001, 24_000), (1, 60), (1, 25), (1, 144)]))
def test_times_rounded_to_milliseconds_still_give_the_segment_centres(
    num_frames: int, num_segments: int, seconds: tuple[int, int]
) -> None:
    pts = np.array([round(Fraction(1000 * k * seconds[0], seconds[1])) for k in range(num_frames)])
    picked = segment_center_frames(pts, int(1000 * num_frames * seconds[0] / seconds[1]), num_segments)
    assert picked.tolist() == segment_centers(num_frames, num_segments).tolist()


@given(st.lists(st.integers(1, 500), min_size=2, max_size=200), segments)
def test_a_variable_rate_shows_the_last_frame_that_is_not_later(gaps: list[int], num_segments: int) -> None:
    pts = np.cumsum([0, *gaps[:-1]], dtype=np.int64)
    duration = sum(gaps)
    if is_constant_rate(pts):
        return
    for i, frame in enumerate(segment_center_frames(pts, duration, num_segments)):
        time = Fraction((2 * i + 1) * duration, 2 * num_segments)
        assert pts[frame] <= time
        assert frame == len(pts) - 1 or pts[frame + 1] > time


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), segments)
def test_the_frames_of_a_segment_start_in_it_or_are_its_centre_frame_alone(
    gaps: list[int], num_segments: int
) -> None:
    pts, duration = np.cumsum([7, *gaps[:-1]], dtype=np.int64), sum(gaps)
    first_T, center_T, last_T = frames_of_segments(pts, duration, num_segments)
    assert center_T.tolist() == segment_center_frames(pts, duration, num_segments).tolist()
    if is_constant_rate(pts):
        pts, duration = np.arange(len(pts)) + 7, len(pts)
    for i, (first, center, last) in enumerate(zip(first_T, center_T, last_T, strict=True)):
        start, end = (Fraction(k * duration, num_segments) for k in (i, i + 1))
        starting = [n for n in range(len(pts)) if start <= pts[n] - 7 < end]
        expected = starting if center in starting else [center]
        assert list(range(first, last + 1)) == expected


@given(counts, segments)
def test_segments_of_two_frames_and_more_share_none_and_leave_none_out(
    num_frames: int, num_segments: int
) -> None:
    if num_frames < 2 * num_segments:
        return
    first_T, _, last_T = frames_of_segments(np.arange(num_frames), num_frames, num_segments)
    assert (first_T[0], last_T[-1]) == (0, num_frames - 1)
    assert (last_T[:-1] + 1 == first_T[1:]).all()


def test_a_frame_that_stays_long_on_screen_is_picked_more_often() -> None:
    pts = np.array([0, 10, 20, 30, 930], dtype=np.int64)
    assert not is_constant_rate(pts)
    assert segment_center_frames(pts, 1000, 4).tolist() == [3, 3, 3, 3]
    assert segment_center_frames(pts, 1000, 50).tolist() == [1, *[3] * 45, *[4] * 4]


@given(st.floats(0, 1e6), segments)
def test_centre_times_are_evenly_spaced_inside_the_video(duration_s: float, num_segments: int) -> None:
    times = segment_center_times(duration_s, num_segments)
    assert times.shape == (num_segments,)
    assert times[0] >= 0
    assert times[-1] <= duration_s
    assert np.allclose(np.diff(times), duration_s / num_segments)


def test_a_time_before_the_first_frame_shows_the_first() -> None:
    assert frames_at_times(np.array([1.0, 2.0]), np.array([0.0, 1.0, 1.9, 2.0, 99.0])).tolist() == [
        0,
        0,
        0,
        1,
        1,
    ]


def test_sixteen_frames_are_fed_middle_first_last_then_midpoints() -> None:
    expected = [7, 0, 15, 3, 11, 1, 5, 9, 13, 2, 4, 6, 8, 10, 12, 14]
    assert coarse_to_fine_order(16).tolist() == expected


@given(st.integers(1, 300))
def test_the_feeding_order_is_a_permutation_that_covers_the_video_early(num_frames: int) -> None:
    order = coarse_to_fine_order(num_frames).tolist()
    assert sorted(order) == list(range(num_frames))
    assert {0, num_frames - 1} <= set(order[:3])
    half = sorted(order[: max(3, num_frames // 2)])
    assert max(np.diff(half), default=0) <= 4 or num_frames < 6


@pytest.mark.parametrize("num_frames", [0, -1])
def test_counts_below_one_are_refused_with_their_value(num_frames: int) -> None:
    for function in (segment_centers, lambda n, t: random_in_segments(n, t, np.random.default_rng(0))):
        with pytest.raises(ValueError, match=str(num_frames)):
            function(num_frames, 4)
        with pytest.raises(ValueError, match=str(num_frames)):
            function(4, num_frames)
    with pytest.raises(ValueError, match=str(num_frames)):
        coarse_to_fine_order(num_frames)


@pytest.mark.parametrize("duration_s", [-0.1, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_refused(duration_s: float) -> None:
    with pytest.raises(ValueError, match="duration"):
        segment_center_times(duration_s, 4)


def test_frames_are_fed_coarse_to_fine_or_as_they_come() -> None:
    assert feeding_order(5, "time").tolist() == [0, 1, 2, 3, 4]
    assert feeding_order(5, "coarse_to_fine").tolist() == coarse_to_fine_order(5).tolist()
    with pytest.raises(ValueError, match="counts must be positive"):
        feeding_order(0, "time")
