"""One lane's queue against the plainest model of it: a list of single frames, sorted."""

from hypothesis import given
from hypothesis import strategies as st

from sdcom.engine.queues import LaneQueue, Rank, Share

videos = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 1.0, 2.0]), st.sets(st.integers(0, 9), min_size=1)),
    max_size=6,
)


@given(videos, st.lists(st.integers(1, 7), max_size=8), st.sets(st.integers(0, 5)))
def test_batches_are_taken_in_the_order_of_rank_and_position_and_those_apart_come_alone(
    videos: list[tuple[bool, float, set[int]]], takes: list[int], apart: set[int]
) -> None:
    queue = LaneQueue()
    ranks = [Rank(is_late, due_s, ticket) for ticket, (is_late, due_s, _) in enumerate(videos)]
    for rank, (_, _, positions) in zip(ranks, videos, strict=True):
        for position in sorted(positions, reverse=True):  # as failed batches come back: in any order
            queue.add(rank, (position,))
    frames = [(rank.ticket, p) for rank in sorted(ranks) for p in sorted(videos[rank.ticket][2])]
    for most in takes:
        if not frames:
            break
        first = frames[0][0]
        together = next((i for i, (ticket, _) in enumerate(frames) if ticket in apart), len(frames))
        if first in apart:
            together = sum(ticket == first for ticket, _ in frames)
        shares = queue.take(most, apart)
        taken = [(share.ticket, position) for share in shares for position in share.positions]
        assert taken == frames[: min(most, together)]
        frames = frames[len(taken) :]
        assert queue.num_units == len(frames)
        assert len(queue) == len({ticket for ticket, _ in frames})


@given(videos, st.data())
def test_removing_a_video_leaves_the_others_as_they_were(
    videos: list[tuple[bool, float, set[int]]], data: st.DataObject
) -> None:
    queue = LaneQueue()
    ranks = [Rank(is_late, due_s, ticket) for ticket, (is_late, due_s, _) in enumerate(videos)]
    for rank, (_, _, positions) in zip(ranks, videos, strict=True):
        queue.add(rank, tuple(sorted(positions)))
    gone = data.draw(st.sets(st.sampled_from(ranks))) if ranks else set()
    for rank in gone:
        assert queue.remove(rank) == tuple(sorted(videos[rank.ticket][2]))
        assert queue.remove(rank) == ()
    left = [
        Share(rank.ticket, tuple(sorted(videos[rank.ticket][2])))
        for rank in sorted(ranks)
        if rank not in gone
    ]
    assert queue.take(1000, apart=()) == tuple(left)
    assert (len(queue), queue.num_units) == (0, 0)
