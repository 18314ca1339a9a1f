"""Whatever comes, whenever it leaves or fails: each video's work is done once, in bounds, and in turn."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.engine.costs import MACHINES, CostTable, Lane, Stage
from sdcom.engine.limits import Limits
from sdcom.engine.policy import FINISHING, Policy
from sdcom.errors import OverloadedError
from tests.sdcom.engine.fake_device import LEAST_BATCH_S, FakeDevice, History, Script

WIDTHS = (0.0, 0.25, 0.5, 0.75, 1.0)

limits = st.builds(
    Limits,
    max_batch_frames=st.integers(1, 12),
    max_batch_videos=st.integers(1, 4),
    max_frames_in_flight=st.integers(8, 40),
    buckets=st.sampled_from([(), (4,), (1, 4, 8), (2, 12)]),
    due_s=st.sampled_from([0.0, 0.05, 1.0]),
    patience_s=st.sampled_from([0.01, 0.2]),
)
machines = st.sampled_from([CostTable(), MACHINES["cpu"], MACHINES["h200"]])
times = st.floats(0, 1, allow_nan=False)
widths = st.lists(st.sampled_from(WIDTHS), min_size=1, max_size=8).map(tuple)
stages = st.sampled_from(Stage)
well_behaved = st.builds(Script, times, widths)
any_fate = st.builds(
    Script,
    times,
    widths,
    patience_s=st.sampled_from([math.inf, 0.0, 0.02, 0.3]),
    cancel_after=st.none() | st.integers(0, 12),
    poisons=st.none() | stages,
)
memories = st.sampled_from([math.inf, 1, 3, 7])
many = settings(deadline=None, max_examples=60)


@many
@given(st.lists(any_fate, max_size=12), limits, machines, memories)
def test_every_video_admitted_ends_once_and_with_the_outcome_that_it_deserves(
    scripts: list[Script], limits: Limits, costs: CostTable, memory: float
) -> None:
    history = FakeDevice(limits, costs, memory).run(scripts)
    assert len(history.outcomes) + history.num_refused == len(scripts)
    for ticket, outcome in history.outcomes.items():
        script = history.scripts[ticket]
        if outcome == "answered":
            assert script.poisons is None or (script.poisons is Stage.FILL and not any(script.widths))
        if outcome == "failed":
            assert script.poisons is not None, "one failure is isolated"
        if outcome == "expired":
            assert history.ended_s[ticket] >= script.at_s + script.patience_s
        if outcome == "cancelled":
            assert script.cancel_after is not None


@many
@given(st.lists(any_fate, max_size=12), limits, machines, memories)
def test_an_answer_is_made_of_all_of_its_work_done_once_and_nobody_gets_more(
    scripts: list[Script], limits: Limits, costs: CostTable, memory: float
) -> None:
    history = FakeDevice(limits, costs, memory).run(scripts)
    for ticket, outcome in history.outcomes.items():
        needed, computed = history.scripts[ticket].units(), history.computed[ticket]
        assert computed <= needed
        assert outcome != "answered" or computed == needed


@many
@given(st.lists(any_fate, max_size=20), limits, machines, memories)
def test_no_bound_is_ever_passed(
    scripts: list[Script], limits: Limits, costs: CostTable, memory: float
) -> None:
    history = FakeDevice(limits, costs, memory).run(scripts)
    assert history.most_in_flight <= limits.max_frames_in_flight
    assert history.most_waiting <= limits.max_frames_in_flight
    for ran in history.ran:
        batch = ran.batch
        assert 1 <= batch.num_units <= batch.size <= limits.max_units(batch.lane)
        assert len({share.ticket for share in batch.shares}) == len(batch.shares)


@many
@given(st.lists(any_fate, max_size=12), limits, machines)
def test_nothing_is_computed_for_a_video_whose_deadline_passed_or_whose_caller_left(
    scripts: list[Script], limits: Limits, costs: CostTable
) -> None:
    history = FakeDevice(limits, costs).run(scripts)
    for ran in history.ran:
        for share in ran.batch.shares:
            script = history.scripts[share.ticket]
            assert share.ticket in ran.in_flight
            assert ran.at_s < script.at_s + script.patience_s


@many
@given(st.lists(any_fate, max_size=20), limits, machines)
def test_nobody_without_a_deadline_is_passed_by_a_video_that_came_much_later(
    scripts: list[Script], limits: Limits, costs: CostTable
) -> None:
    """A batch is led by its most urgent video; the others only fill what room it leaves."""
    history = FakeDevice(limits, costs).run(scripts)
    most_s = limits.due_s + limits.patience_s * (1 + FINISHING)
    admitted_s = _admission_times(history)
    for ran in history.ran:
        led_by = admitted_s[ran.batch.shares[0].ticket]
        patient = [ticket for ticket in ran.in_flight if history.scripts[ticket].patience_s == math.inf]
        assert all(led_by <= admitted_s[ticket] + most_s + 1e-9 for ticket in patient)


def _admission_times(history: History) -> dict[int, float]:
    """Return when each video's turn began, at the latest: the first batch that it was in flight for."""
    first_seen: dict[int, float] = {}
    for ran in history.ran:
        for ticket in ran.in_flight:
            first_seen.setdefault(ticket, ran.at_s)
    return first_seen


def test_an_endless_stream_of_urgent_videos_starves_nobody() -> None:
    """Full batches of others with near deadlines, for ever; one patient video of a rare width."""
    limits = Limits(max_batch_frames=8, max_batch_videos=8, due_s=0.1, patience_s=0.1)
    urgent = [Script(0.004 * i, (0.25,) * 4, patience_s=0.09) for i in range(500)]
    history = FakeDevice(limits, MACHINES["h200"]).run([*urgent, Script(0.5, (1.0,))])
    (patient,) = [ticket for ticket, script in history.scripts.items() if script.widths == (1.0,)]
    assert history.outcomes[patient] == "answered"
    assert history.ended_s[patient] < 1.0


def test_frames_of_different_videos_share_batches_by_width() -> None:
    history = FakeDevice(Limits(), MACHINES["h200"]).run(
        [Script(0, (0.25, 0.0, 0.75)), Script(0, (0.75, 0.25, 0.0)), Script(0, (0.0, 0.0, 0.75))]
    )
    batches = [(ran.batch.lane, ran.batch.num_units) for ran in history.ran]
    assert sorted(batches) == [
        (Lane(Stage.LOOK), 9),
        (Lane(Stage.DECIDE, num_frames=3), 3),
        (Lane(Stage.FILL, 0.25), 2),
        (Lane(Stage.FILL, 0.75), 3),
        (Lane(Stage.FUSE, num_frames=3), 3),
    ]


def test_videos_of_different_lengths_share_frames_but_are_decided_and_fused_apart() -> None:
    history = FakeDevice(Limits(), CostTable()).run([Script(0, (0.5,) * 2), Script(0, (0.5,) * 3)])
    lanes = [(ran.batch.lane, ran.batch.num_units) for ran in history.ran]
    assert lanes[0] == (Lane(Stage.LOOK), 5)
    for stage in (Stage.DECIDE, Stage.FUSE):
        assert sorted(lane.num_frames for lane, _ in lanes if lane.stage is stage) == [2, 3]


def test_where_batching_saves_nothing_the_oldest_video_is_finished_first() -> None:
    limits = Limits(max_batch_frames=4, max_batch_videos=4)
    history = FakeDevice(limits, MACHINES["cpu"]).run([Script(0, (0.25,) * 4)] * 5)
    ended = [history.ended_s[ticket] for ticket in sorted(history.ended_s)]
    assert ended == sorted(ended)
    assert len(set(ended)) == 5, "one after the other, not all at the end"


def test_where_batching_saves_much_full_batches_go_first() -> None:
    limits = Limits(max_batch_frames=8, max_batch_videos=8)
    history = FakeDevice(limits, MACHINES["h200"]).run([Script(0, (0.25,) * 4)] * 8)
    assert {ran.batch.num_units for ran in history.ran} == {8}


def test_the_nearest_deadline_is_served_first() -> None:
    limits = Limits(max_batch_frames=2, max_batch_videos=1)
    later, sooner = Script(0, (0.5, 0.5), patience_s=0.9), Script(0, (0.5, 0.5), patience_s=0.5)
    history = FakeDevice(limits, MACHINES["cpu"]).run([later, sooner])
    by_script = {script: history.ended_s[ticket] for ticket, script in history.scripts.items()}
    assert by_script[sooner] < by_script[later]


def test_a_video_that_cannot_be_answered_in_time_yields_to_those_that_can() -> None:
    """Each takes 27 ms. Once that is known, one with 10 ms left is not begun before one with time."""
    device = FakeDevice(Limits(max_batch_frames=4, max_batch_videos=1), MACHINES["cpu"])
    device.run([Script(0.01 * i, (0.0,) * 4) for i in range(30)])
    now_s = device.now_s
    hopeless = device.policy.admit(4, now_s, now_s + 0.01)
    in_time = device.policy.admit(4, now_s, now_s + 0.5)
    batch = device.policy.next_batch(now_s)
    assert batch is not None
    assert [share.ticket for share in batch.shares] == [in_time]
    batch = device.policy.next_batch(now_s)
    assert batch is not None, "it still runs when nothing else does"
    assert [share.ticket for share in batch.shares] == [hopeless]


def test_a_batch_that_does_not_fit_is_halved_once_for_all() -> None:
    device = FakeDevice(Limits(max_batch_frames=16), CostTable(), memory=5)
    device.run([Script(0, (1.0,) * 16)])
    looks = [ran.batch.num_units for ran in device.history.ran if ran.batch.lane == Lane(Stage.LOOK)]
    assert looks == [16, 8, 4, 4, 4, 4]
    device.run([Script(device.now_s, (1.0,) * 16)])
    looks = [ran.batch.num_units for ran in device.history.ran if ran.batch.lane == Lane(Stage.LOOK)]
    assert looks == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4]


def test_after_a_failure_its_videos_run_one_by_one_and_then_together_again() -> None:
    policy = Policy(Limits(), CostTable())
    tickets = [policy.admit(2, 0.0) for _ in range(3)]
    together = policy.next_batch(0.0)
    assert together is not None
    assert together.num_units == 6
    policy.put_back(together, apart=True)
    apart = [policy.next_batch(0.0) for _ in range(3)]
    for ticket, batch in zip(tickets, apart, strict=True):
        assert batch is not None
        assert [share.ticket for share in batch.shares] == [ticket]
        assert policy.complete(batch, 0.0) == [ticket]
    together = policy.next_batch(0.0)
    assert together is not None
    assert [share.ticket for share in together.shares] == tickets


@pytest.mark.parametrize("buckets", [(), (4, 8)])
def test_what_has_time_waits_until_it_is_full(buckets: tuple[int, ...]) -> None:
    policy = Policy(Limits(max_batch_frames=8, buckets=buckets), MACHINES["h200"])
    policy.admit(7, 0.0)
    assert policy.next_batch(0.0, only_full=True) is None
    policy.admit(3, 0.0)
    full = policy.next_batch(0.0, only_full=True)
    assert full is not None
    assert full.num_units == full.size == 8
    assert policy.next_batch(0.0, only_full=True) is None
    rest = policy.next_batch(0.0)
    assert rest is not None, "it goes when the device would be idle"
    assert rest.num_units == 2


def test_a_full_house_says_when_to_come_back() -> None:
    policy = Policy(Limits(max_frames_in_flight=20), MACHINES["cpu"])
    policy.admit(16, 0.0)
    assert policy.has_room(4)
    assert not policy.has_room(5)
    with pytest.raises(OverloadedError, match="16 of at most 20 frames") as caught:
        policy.admit(5, 0.0)
    assert caught.value.retry_after_s == pytest.approx(policy.backlog_s(), abs=0.1)


@pytest.mark.parametrize("num_frames", [0, 21])
def test_a_video_that_could_never_be_admitted_is_an_error(num_frames: int) -> None:
    with pytest.raises(ValueError, match="1 to 20 frames"):
        Policy(Limits(max_frames_in_flight=20), CostTable()).admit(num_frames, 0.0)


def test_a_video_of_width_zero_alone_is_never_filled() -> None:
    history = FakeDevice(Limits(), CostTable()).run([Script(0, (0.0,) * 5)])
    assert [ran.batch.lane.stage for ran in history.ran] == [Stage.LOOK, Stage.DECIDE, Stage.FUSE]
    assert history.ended_s[0] == pytest.approx(3 * LEAST_BATCH_S)
