"""The cheapest frames of the segments are one of each, in order, and never dearer than the centres."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.cheapest import DecodeCosts, cheapest_frames, costs_by_kind, decode_costs
from sdcom.sampling import Int64Array, frames_of_segments


def costs_of(kinds: str, reordered: bool = False, *, key_cost: int = 10, cost: int = 3) -> DecodeCosts:
    """Return the costs of frames given as letters in time order: I a keyframe, P a reference, b neither.

    Where reordered, a run of b is stored behind the frame that follows it.
    """
    places = list(range(len(kinds)))
    if reordered:
        stored: list[int] = []
        waiting: list[int] = []
        for frame, kind in enumerate(kinds):
            if kind == "b":
                waiting.append(frame)
            else:
                stored += [frame, *waiting]
                waiting = []
        stored += waiting
        places = np.argsort(stored).tolist()
    by_place = [kind for _, kind in sorted(zip(places, kinds, strict=True))]
    starts = [0] + [places[frame] for frame, kind in enumerate(kinds) if kind == "I"]
    return decode_costs(
        place_N=np.array(places),
        group_N=np.cumsum([kind == "I" for kind in kinds]),
        start_S=np.array(starts),
        passable_P=np.array([kind == "b" for kind in by_place]),
        cost_P=np.array([key_cost if kind == "I" else cost for kind in by_place]),
    )


def segments_of(num_frames: int, num_segments: int) -> tuple[Int64Array, Int64Array, Int64Array]:
    return frames_of_segments(np.arange(num_frames), num_frames, num_segments)


videos = st.text("IPb", min_size=1, max_size=120).map(lambda kinds: "I" + kinds)


@given(videos, st.booleans(), st.integers(1, 20))
def test_they_are_one_of_each_segment_in_order_and_never_dearer_than_the_centres(
    kinds: str, reordered: bool, num_segments: int
) -> None:
    costs = costs_of(kinds, reordered)
    first_T, center_T, last_T = segments_of(len(kinds), num_segments)
    picked_T = cheapest_frames(costs, first_T, center_T, last_T)
    assert picked_T.shape == (num_segments,)
    assert (first_T <= picked_T).all()
    assert (picked_T <= last_T).all()
    assert (np.diff(picked_T) >= (1 if len(kinds) >= 2 * num_segments else 0)).all()
    assert costs.of(picked_T) <= costs.of(center_T)


@settings(max_examples=50)
@given(st.text("IP", min_size=1, max_size=15).map(lambda kinds: "I" + kinds), st.integers(1, 4))
def test_no_other_choice_is_cheaper_where_frames_are_stored_in_order(kinds: str, num_segments: int) -> None:
    costs = costs_of(kinds)
    first_T, center_T, last_T = segments_of(len(kinds), num_segments)
    ranges = [range(first, last + 1) for first, last in zip(first_T, last_T, strict=True)]
    cheapest = min(costs.of(np.array(frames)) for frames in product(*ranges))
    assert costs.of(cheapest_frames(costs, first_T, center_T, last_T)) == cheapest


@pytest.mark.parametrize(
    ("kinds", "num_segments", "picked"),
    [
        ("IPPPPPIPPPPP", 2, [0, 6]),  # a keyframe, if the segment has one
        ("IPPPPPPPPPPP", 2, [3, 6]),  # else as early as can be; what is passed anyway, at the centre
        ("IIIIIIIIIIII", 2, [3, 9]),  # of equals the nearest to the centre
        ("IPPPPPIPPPPPPPPPPPPPPPPP", 4, [0, 9, 15, 18]),
        ("PPPPPPPPPIPP", 2, [0, 9]),  # decoding can start at the first frame, whatever it is
        ("IPbbPbbPbbPb", 2, [4, 7]),
    ],
)
def test_what_is_picked(kinds: str, num_segments: int, picked: list[int]) -> None:
    assert cheapest_frames(costs_of(kinds), *segments_of(len(kinds), num_segments)).tolist() == picked


def test_a_group_is_walked_once_for_all_frames_that_are_wanted_of_it() -> None:
    costs = costs_of("IPPPIPPP")
    assert costs.of(np.array([1, 3])) == 10 + 3 * 3
    assert costs.of(np.array([3, 5])) == 10 + 3 * 3 + 10 + 3


def test_a_frame_that_nothing_refers_to_costs_only_where_it_is_wanted() -> None:
    costs = costs_of("IbbPbbP", reordered=True)
    assert costs.of(np.array([6])) == 10 + 2 * 3
    assert costs.of(np.array([4])) == 10 + 2 * 3 + 3
    assert costs.of(np.array([1, 2])) == 10 + 3 + 2 * 3


def test_within_a_kind_all_cost_the_same_so_that_an_empty_picture_is_not_preferred() -> None:
    cost_P = costs_by_kind(
        num_bytes_P=np.array([900, 100, 40, 60, 8, 12]),
        is_key_P=np.array([True, True, False, False, False, False]),
        passable_P=np.array([False, False, False, False, True, True]),
        num_pixels=320,
    )
    assert cost_P.tolist() == [511, 511, 61, 61, 21, 21]
