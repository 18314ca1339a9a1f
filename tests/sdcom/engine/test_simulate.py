"""The simulation: what the scheduler reaches on a GPU's and on a processor's costs."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.engine.costs import MACHINES
from sdcom.engine.limits import BatchSizes, Limits
from sdcom.engine.simulate import LIMITS, MIX, Report, main, perfect_video_s, simulate, simulate_loads
from sdcom.engine.traces import Arrival, poisson_trace, read_trace


def _at_load(machine: str, load: float, *, num_videos: int, deadline_s: float = math.inf) -> Report:
    limits, costs = LIMITS[machine], MACHINES[machine]
    (report,) = simulate_loads(
        limits, costs, [load], num_videos=num_videos, deadline_s=deadline_s, seed=1
    ).values()
    return report


machines = pytest.mark.parametrize("machine", sorted(MACHINES))


@machines
@pytest.mark.parametrize("load", [1.5, math.inf])
def test_at_saturation_the_scheduler_reaches_95_percent_of_perfectly_batched(
    machine: str, load: float
) -> None:
    report = _at_load(machine, load, num_videos=2000)
    assert report.of_perfect >= 0.95
    assert report.max_in_flight <= LIMITS[machine].max_frames_in_flight


@machines
@pytest.mark.parametrize(
    "mix", [{0.25: 1.0}, {0.0: 1.0}, {0.0: 1, 0.25: 1, 0.5: 1, 0.75: 1, 1.0: 1}], ids=str
)
def test_so_it_does_whatever_widths_the_gate_chooses(machine: str, mix: dict[float, float]) -> None:
    trace = poisson_trace(2000, videos_per_s=math.inf, mix=mix)
    report = simulate(trace, LIMITS[machine], MACHINES[machine], max_outside=math.inf)
    assert len(report.latencies_s) == len(trace)
    assert report.of_perfect >= 0.95


@machines
def test_under_a_light_load_a_video_is_hardly_delayed_by_others(machine: str) -> None:
    report = _at_load(machine, 0.01, num_videos=200)
    (alone,) = simulate(
        [Arrival(0.0, (0.25, 0.5, 0.75, 1.0) * 4)], LIMITS[machine], MACHINES[machine]
    ).latencies_s
    assert report.latency_s(0.5) <= alone


@machines
@pytest.mark.parametrize("load", [1.5, 3.0])
def test_overload_with_deadlines_does_not_waste_the_device_on_answers_that_come_too_late(
    machine: str, load: float
) -> None:
    """Earliest deadline first alone would begin every video at the last moment and answer next to none."""
    deadline_s = 30 * simulate([Arrival(0.0, (0.25,) * 16)], LIMITS[machine], MACHINES[machine]).span_s
    report = _at_load(machine, load, num_videos=6000, deadline_s=deadline_s)
    assert report.num_expired + report.num_refused > 500
    assert report.of_perfect >= 0.75
    assert report.latency_s(1) <= 1.1 * deadline_s


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(0, 5), max_size=40).map(sorted),
    st.integers(1, 8),
    st.sampled_from([math.inf, 0.01, 1.0]),
    st.sampled_from(["cpu", "h200"]),
    st.sampled_from([0.0, 3.0, math.inf]),
)
def test_every_arrival_is_answered_refused_or_expired_and_perfect_is_never_passed(
    times: list[float], num_frames: int, deadline_s: float, machine: str, max_outside: float
) -> None:
    trace = [Arrival(at_s, (0.0, 0.25, 1.0, 0.5)[:num_frames], deadline_s) for at_s in times]
    limits = Limits(max_frames_in_flight=12, buckets=(4, 16))
    report = simulate(trace, limits, MACHINES[machine], max_outside=max_outside)
    assert len(report.latencies_s) + report.num_refused + report.num_expired == len(trace)
    assert report.perfect_s <= report.busy_s + 1e-9
    assert report.busy_s <= report.span_s + 1e-9
    assert report.max_in_flight <= 12
    assert report.max_waiting <= 12
    assert not (report.num_refused and math.isinf(max_outside))


def test_the_same_trace_gives_the_same_report() -> None:
    first, again = (_at_load("h200", 0.9, num_videos=300, deadline_s=0.1) for _ in range(2))
    assert first == again


def test_a_perfect_video_takes_the_sum_of_its_parts() -> None:
    sizes = BatchSizes(Limits(max_batch_frames=10, max_batch_videos=10), MACHINES["cpu"])
    look, whole, fill = 5.5 + 0.005, 2 * 0.005 + 2 * (0.9 + 0.5), 40.4 + 0.005
    assert perfect_video_s((0.0, 1.0), sizes) == pytest.approx((2 * look + whole + fill) / 1e3)


def test_an_empty_trace_is_no_trouble() -> None:
    report = simulate([], Limits(), MACHINES["cpu"])
    assert report == Report()
    assert math.isnan(report.latency_s(0.5))
    assert report.videos_per_s == 0


def test_random_arrivals_come_at_their_rate_with_their_mix() -> None:
    trace = poisson_trace(4000, videos_per_s=50, mix=MIX, num_frames=4)
    assert trace[-1].at_s == pytest.approx(80, rel=0.1)
    widths = [width for arrival in trace for width in arrival.widths]
    assert widths.count(0.25) / len(widths) == pytest.approx(MIX[0.25], abs=0.02)


def test_a_recorded_trace_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    rows = [{"at_s": 2, "widths": [0, 1]}, {"at_s": 1, "widths": [0.25], "deadline_s": 0.5}]
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert read_trace(path) == [Arrival(1, (0.25,), 0.5), Arrival(2, (0, 1))]


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"at_s": "x", "widths": [1]}', '{"at_s": 1, "widths": []}']
)
def test_a_line_that_is_no_video_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"at_s": 1, "widths": [1]}\n' + line)
    with pytest.raises(ValueError, match=r"trace\.jsonl:2 is"):
        read_trace(path)


def test_the_command_prints_a_row_for_each_load(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--machine", "cpu", "--videos", "20", "--loads", "0.5", "inf"])
    printed = capsys.readouterr().out.splitlines()
    assert "of perfect" in printed[1]
    assert [line.split()[0] for line in printed[2:]] == ["0.5", "inf"]


def test_the_command_replays_a_trace_with_measured_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, costs = tmp_path / "day.jsonl", tmp_path / "costs.json"
    trace.write_text("".join(f'{{"at_s": {i}, "widths": [0, 0.25]}}\n' for i in range(5)))
    costs.write_text(json.dumps([{"stage": "look", "width": 0, "fixed_ms": 100, "frame_ms": 50}]))
    main(["--trace", str(trace), "--costs", str(costs)])
    name, _, _, p50_ms, *_ = capsys.readouterr().out.splitlines()[-1].split()
    assert (name, p50_ms) == ("trace", "200")
