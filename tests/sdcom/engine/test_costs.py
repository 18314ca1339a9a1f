"""Cost tables, batch sizes and the running mean: the policy's arithmetic."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcom.engine.costs import MACHINES, CostTable, Lane, Stage
from sdcom.engine.limits import BatchSizes, Limits
from sdcom.engine.service_time import ServiceTime

LOOK = Lane(Stage.LOOK)


def test_a_table_survives_json() -> None:
    for table in MACHINES.values():
        rows = json.loads(json.dumps(table.to_rows()))
        for (stage, width), cost in CostTable.from_rows(rows).costs.items():
            assert cost.fixed_s == pytest.approx(table.costs[stage, width].fixed_s)
            assert cost.frame_s == pytest.approx(table.costs[stage, width].frame_s)


@pytest.mark.parametrize("bad", [{"frame_ms": -1.0}, {"fixed_ms": "nan"}, {"stage": "dream"}])
def test_a_row_that_makes_no_sense_is_refused(bad: dict[str, float | str]) -> None:
    row: dict[str, float | str] = {"stage": "look", "width": 0.0, "fixed_ms": 1.0, "frame_ms": 1.0}
    with pytest.raises((ValueError, KeyError)):
        CostTable.from_rows([{**row, **bad}])


@given(
    st.integers(1, 300),
    st.integers(1, 64),
    st.sampled_from([(), (8, 16, 32), (1, 64)]),
    st.sampled_from(sorted(MACHINES)),
)
def test_the_best_batch_fits_and_wastes_no_more_than_all_would(
    num_waiting: int, most: int, buckets: tuple[int, ...], machine: str
) -> None:
    costs = MACHINES[machine]
    sizes = BatchSizes(Limits(max_batch_frames=most, buckets=buckets), costs)
    num_units, efficiency = sizes.best(LOOK, num_waiting)
    assert 1 <= num_units <= sizes.padded(LOOK, num_units) <= sizes.most(LOOK) <= most
    assert 0 < efficiency <= 1
    every = min(num_waiting, sizes.most(LOOK))
    taken_s = costs.cost_s(LOOK, sizes.padded(LOOK, every))
    assert efficiency >= every * sizes.ideal_unit_s(LOOK) / taken_s - 1e-9
    assert num_waiting < sizes.most(LOOK) or efficiency == pytest.approx(1)


def test_a_little_over_a_bucket_is_not_padded_to_the_next_where_rows_cost_time() -> None:
    limits = Limits(max_batch_frames=32, buckets=(16, 32))
    best = {
        (machine, waiting): BatchSizes(limits, MACHINES[machine]).best(LOOK, waiting)[0]
        for machine in ("cpu", "h200")
        for waiting in (17, 31)
    }
    assert best == {("cpu", 17): 16, ("cpu", 31): 16, ("h200", 17): 16, ("h200", 31): 31}


def test_a_larger_batch_that_fails_later_does_not_raise_the_limit_again() -> None:
    sizes = BatchSizes(Limits(max_batch_frames=32), MACHINES["h200"])
    most = []
    for size in (32, 16, 32, 8, 1):
        sizes.shrink(LOOK, size)
        most.append(sizes.most(LOOK))
    assert most == [16, 8, 8, 4, 1]
    assert sizes.most(Lane(Stage.FILL, 0.25)) == 32


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_frames": 0},
        {"max_frames_in_flight": 0},
        {"patience_s": 0.0},
        {"due_s": -1.0},
        {"buckets": (8, 4)},
        {"buckets": (0, 4)},
    ],
    ids=str,
)
def test_limits_that_cannot_be_kept_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Limits(**wrong)  # type: ignore[arg-type]


def test_the_service_time_knows_what_one_video_took_from_the_first_on() -> None:
    service = ServiceTime()
    assert service.most_s == 0
    service.add(0.1)
    assert (service.mean_s, service.deviation_s) == (0.1, 0.05)  # RFC 6298, 2.2


def test_the_service_time_forgets_a_hiccup() -> None:
    service = ServiceTime()
    for _ in range(50):
        service.add(0.1)
    assert service.most_s == pytest.approx(0.1, rel=0.05)
    service.add(10.0)
    assert service.most_s > 1
    for _ in range(50):
        service.add(0.1)
    assert service.most_s < 0.2
