"""Several evaluations become one page: means, spreads and leads at equal FLOPs, and reproducible plots."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli import app
from training.evaluation.metrics import Accuracy
from training.evaluation.plots import draw_against_gflops, draw_against_ms
from training.evaluation.record import (
    Method,
    Record,
    RecordError,
    Row,
    Timing,
    WholeTiming,
    read_records,
    write_record,
)
from training.evaluation.report import BEGIN, END, PageError, placed, report
from training.evaluation.summary import (
    Point,
    at_cost,
    at_equal_flops,
    curve,
    estimate,
    lead_at_equal_flops,
    lead_over_row,
    paired_lead,
)
from training.evaluation.tables import Score, card_table, kinds_table, lead_table


def _row(method: Method, gflops: float, top1: float, setting: float | None = None) -> Row:
    scored = Accuracy(top1=top1, top5=min(1.0, top1 + 0.3), map_first=top1, map_all=top1)
    frames = {"static": 4.0, "dynamic at 1": gflops / 2}
    parts = {"static": 0.1, "dynamic at 1": gflops - 0.1}
    return Row(method=method, setting=setting, accuracy=scored, frames=frames, gflops=parts)


def _record(split: str, top1: float, name: str = "plain", seed: int = 0) -> Record:
    """Return a record whose policy is `top1` right at 1 of 2 GFLOPs, and its controls a little less."""
    rows = (
        _row(Method.UNLIMITED, 1.0, top1),
        _row(Method.DEFAULT, 1.0, top1),
        _row(Method.PRICE, 0.5, top1 - 0.2, 1.0),
        _row(Method.PRICE, 1.0, top1, 0.0),
        _row(Method.RANDOM, 0.5, top1 - 0.25, 1.0),
        _row(Method.RANDOM, 1.0, top1 - 0.1, 0.0),
        _row(Method.FEWER_TSN, 0.4, top1 - 0.3, 1),
        _row(Method.FEWER_TSN, 2.0, top1 + 0.1, 4),
        _row(Method.ANYTIME, 1.0, top1, 4),
        _row(Method.STATIC, 0.1, 0.1),
        _row(Method.BASELINE, 2.0, top1 + 0.1),
    )
    return Record(
        name=name,
        model=f"{name}@1",
        data="clips",
        split=split,
        seed=seed,
        num_clips=20,
        num_frames=4,
        calibrated_on="held-out groups",
        command=f"sdcom evaluate {name} --data clips --split {split}",
        machine="2 cores",
        versions={"torch": "2"},
        baseline_gflops=2.0,
        timing=Timing(
            device="cpu",
            num_threads=1,
            part_ms={"static": 2.0, "dynamic at 1": 10.0},
            whole=(WholeTiming(name=Method.BASELINE, total_ms=90, decode_ms=30),),
            num_videos=3,
        ),
        rows=rows,
    )


RUNS = [_record("split1", 0.5), _record("split2", 0.6)]


def test_between_two_sizes_a_control_is_on_the_line_and_beyond_them_no_better() -> None:
    points = [Point(1.0, 0.2), Point(3.0, 0.6), Point(4.0, 0.5)]
    assert at_cost(points, 1.0) == 0.2
    assert at_cost(points, 2.0) == pytest.approx(0.4)
    assert at_cost(points, 3.5) == pytest.approx(0.55)
    assert at_cost(points, 9.0) == 0.5
    assert at_cost(points, 0.9) is None
    assert at_cost([], 1.0) is None


def test_a_curve_rises_in_cost_and_keeps_the_better_of_equal_costs() -> None:
    rows = (_row(Method.PRICE, 2, 0.3), _row(Method.PRICE, 1, 0.2), _row(Method.PRICE, 2, 0.4))
    record = RUNS[0].model_copy(update={"rows": rows})
    points = curve(record, Method.PRICE, lambda row: row.accuracy.top1, lambda row: row.total_gflops)
    assert points == [Point(1.0, 0.2), Point(2.0, 0.4)]


def test_an_estimate_is_a_mean_and_a_sample_standard_deviation() -> None:
    assert estimate([1.0, 3.0]) == pytest.approx((2, 2**0.5, 2))
    assert estimate([4.0]) == (4.0, 0.0, 1)


def test_leads_are_taken_run_by_run_so_that_a_harder_split_does_not_widen_them() -> None:
    alone = at_equal_flops(RUNS, Method.PRICE, Score.TOP1.of, 0.5)
    assert alone is not None
    assert alone.spread == pytest.approx(50**0.5)
    lead = lead_at_equal_flops(RUNS, Method.PRICE, Method.RANDOM, Score.TOP1.of, 0.5)
    assert lead == pytest.approx((10, 0, 2))
    over_baseline = lead_over_row(RUNS, Method.PRICE, Method.BASELINE, Score.TOP1.of, 0.5)
    assert over_baseline == pytest.approx((-10, 0, 2))


def test_below_what_any_run_can_spend_nothing_is_said() -> None:
    assert at_equal_flops(RUNS, Method.PRICE, Score.TOP1.of, 0.2) is None
    assert lead_at_equal_flops(RUNS, Method.PRICE, Method.FEWER_TSN, Score.TOP1.of, 0.2) is None
    assert "| 20 % |" not in lead_table(RUNS, Score.TOP1)
    assert "| 25 % |" in lead_table(RUNS, Score.TOP1)


def test_kinds_are_compared_on_the_runs_that_share_split_and_seed() -> None:
    other = [
        _record("split1", 0.55, "meta"),
        _record("split3", 0.9, "meta"),
        _record("split2", 0.9, "meta", 1),
    ]
    lead = paired_lead(other, RUNS, Method.PRICE, Score.TOP1.of, 0.5)
    assert lead == pytest.approx((5, 0, 1))
    table = kinds_table({"plain": RUNS, "meta": other}, Score.TOP1)
    assert "| meta, lead over plain |" in table


def test_the_report_has_means_spreads_commands_and_machines() -> None:
    text = report(RUNS, Score.TOP1, "sdcom results one.json two.json --output results.md")
    assert "### plain on clips" in text
    assert "55.0 ± 7.1" in text
    assert "+10.0 ± 0.0" in text
    assert "sdcom results one.json two.json --output results.md" in text
    for record in RUNS:
        assert f"`{record.command}`" in text
    assert "2 cores" in text
    assert "### Kinds compared" not in text
    both = report([*RUNS, _record("split1", 0.5, "meta")], Score.TOP1, "sdcom results")
    assert "### Kinds compared on clips" in both


def test_every_table_has_as_many_cells_in_every_line() -> None:
    text = report(RUNS, Score.MAP_ALL, "sdcom results")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 7
    for lines in tables:
        assert len(lines) > 2
        assert len({line.count("|") for line in lines}) == 1


def test_what_is_written_by_hand_survives() -> None:
    page = f"# Results\n\nBy hand.\n\n{BEGIN}\nold\n{END}\n\n## Also by hand\n"
    again = placed(page, "new")
    assert again == f"# Results\n\nBy hand.\n\n{BEGIN}\n\nnew\n\n{END}\n\n## Also by hand\n"
    assert placed(again, "new") == again
    assert placed("# Results\n", "new") == f"# Results\n\n{BEGIN}\n\nnew\n\n{END}\n"


@pytest.mark.parametrize("page", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_a_clear_place_is_refused(page: str) -> None:
    with pytest.raises(PageError, match="needs the line"):
        placed(page, "new")


def test_plots_are_the_same_bytes_every_time_and_differ_with_the_records(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.svg", "again.svg", "other.svg")]
    draw_against_gflops(paths[0], RUNS, Score.TOP1)
    draw_against_gflops(paths[1], RUNS, Score.TOP1)
    draw_against_gflops(paths[2], RUNS[:1], Score.TOP1)
    one, again, other = (path.read_text() for path in paths)
    assert one == again != other
    assert "<svg" in one
    for method in (Method.PRICE, Method.RANDOM, Method.BASELINE):
        assert str(method) in one
    draw_against_ms(paths[0], RUNS, Score.TOP1)
    assert "ms of a video" in paths[0].read_text()


def test_one_command_makes_the_page_and_its_plots(tmp_path: Path) -> None:
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, record in zip(files, RUNS, strict=True):
        write_record(file, record)
    assert read_records(files) == RUNS
    page = tmp_path / "docs" / "results.md"
    arguments = ["results", *map(str, files), "--output", str(page)]
    for _ in range(2):
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.count(BEGIN) == 1
    links = [line.split("(")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert links == ["plots/plain-clips-gflops.svg", "plots/plain-clips-ms.svg"]
    assert all((page.parent / link).is_file() for link in links)


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"none\.json cannot be read"):
        read_records([tmp_path / "none.json"])
    (tmp_path / "other.json").write_text('{"form": 1}')
    with pytest.raises(RecordError, match=r"other\.json is not an evaluation's record: name"):
        read_records([tmp_path / "other.json"])


def test_a_card_has_its_own_model_beside_the_mean_of_its_kind(tmp_path: Path) -> None:
    own, other = _record("split1", 0.5), _record("split2", 0.7)
    assert "| SDCOM, unlimited budget | 50.0 | 1.000 | 50.0 | 60.0 ± 14.1 at 50.0 % |" in card_table(
        own, [own, other]
    )
    files = [tmp_path / "own.json", tmp_path / "other.json"]
    for file, record in zip(files, (own, other), strict=True):
        write_record(file, record)
    card = tmp_path / "CARD.md"
    card.write_text(f"# Card\n\n{BEGIN}\nold\n{END}\n\nLimits.\n")
    words = [
        "results",
        *map(str, [files[0], *files]),
        "--output",
        str(tmp_path / "page.md"),
        "--card",
        str(card),
    ]
    assert CliRunner().invoke(app, words).exit_code == 0
    made = card.read_text()
    assert "old" not in made
    assert "| full-width baseline (TSN) | 60.0 | 2.000 | 100.0 | 70.0 ± 14.1 at 100.0 % |" in made
    assert made.startswith("# Card")
    assert made.endswith("Limits.\n")
