"""Affordable frames are as near to the centres as the decoding that they may cost allows."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.affordable import AFFORDABLE, MIN_KEYFRAMES, affordable_frames
from sdcom.sampling import Int64Array, segment_centers
from tests.sdcom.test_cheapest import costs_of, videos

TENTH = AFFORDABLE // 10


def distance(frames_T: Int64Array, center_T: Int64Array) -> int:
    return int(np.abs(frames_T - center_T).sum())


def nearest(frames: Int64Array, center_T: Int64Array) -> Int64Array:
    picked_T: Int64Array = frames[np.abs(frames - center_T[:, None]).argmin(axis=1)]
    return picked_T


@given(
    videos,
    st.booleans(),
    st.integers(1, 20),
    st.sampled_from([1, TENTH // 10, TENTH, 3 * TENTH]),
    st.sampled_from([1, TENTH // 10, TENTH]),
)
def test_they_cost_no_more_than_they_may_and_are_the_centres_where_those_do_not(
    kinds: str, reordered: bool, num_segments: int, key_cost: int, cost: int
) -> None:
    costs = costs_of(kinds, reordered, key_cost=key_cost, cost=cost)
    center_T = segment_centers(len(kinds), num_segments)
    allowed = max(AFFORDABLE, MIN_KEYFRAMES * int(costs.walk_N.min()))
    picked_T = affordable_frames(costs, center_T)
    assert picked_T.shape == (num_segments,)
    assert (np.diff(picked_T) >= 0).all()
    assert costs.of(picked_T) <= allowed
    assert picked_T.tolist() == nearest(np.unique(picked_T), center_T).tolist()
    if costs.of(center_T) <= allowed:
        assert picked_T.tolist() == center_T.tolist()


@settings(max_examples=50)
@given(st.text("IP", min_size=1, max_size=9).map(lambda kinds: "I" + kinds), st.integers(1, 5))
def test_no_other_frames_are_nearer_for_as_much_where_frames_are_stored_in_order(
    kinds: str, num_segments: int
) -> None:
    costs = costs_of(kinds, key_cost=TENTH, cost=3 * TENTH)
    center_T = segment_centers(len(kinds), num_segments)
    picked_T = affordable_frames(costs, center_T)
    num_most = min(num_segments, len(kinds))
    others = (
        nearest(np.array(frames), center_T)
        for num in range(1, num_most + 1)
        for frames in combinations(range(len(kinds)), num)
    )
    as_cheap = [distance(other_T, center_T) for other_T in others if costs.of(other_T) <= costs.of(picked_T)]
    assert distance(picked_T, center_T) == min(as_cheap)


@pytest.mark.parametrize(
    ("kinds", "num_segments", "picked"),
    [
        ("I" + 9 * "P", 2, [2, 7]),  # affordable: the centres
        ("I" + 39 * "P", 4, [5, 5, 5, 5]),  # up to the first centre; the next is too dear
        (10 * "IPPP", 10, [4, 4, 12, 12, 20, 20, 28, 28, 36, 36]),  # a keyframe for every two segments
    ],
)
def test_what_is_picked(kinds: str, num_segments: int, picked: list[int]) -> None:
    costs = costs_of(kinds, key_cost=TENTH, cost=TENTH)
    assert affordable_frames(costs, segment_centers(len(kinds), num_segments)).tolist() == picked


def test_a_long_video_without_a_second_keyframe_is_shown_by_its_first_frame() -> None:
    costs = costs_of("I" + 99_999 * "P", key_cost=TENTH, cost=TENTH)
    picked_T = affordable_frames(costs, segment_centers(100_000, 16))
    assert picked_T.tolist() == [0] * 16
