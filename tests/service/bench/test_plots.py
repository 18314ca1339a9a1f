"""The figures of docs/performance.md: drawn from what the bench commands save, the same every time."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sdcom.engine.bench import PartTiming
from sdcom.video.bench import WAYS, Row
from service.bench.app import app
from service.bench.load import LoadRow
from service.bench.networks import Whole
from service.bench.peers.comparison import Standing
from service.bench.plots.figures import FIGURES, draw_all
from tests.conftest import REPOSITORY

RECORDS = REPOSITORY / "docs" / "records" / "bench"
PLOTS = REPOSITORY / "docs" / "plots"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A folder of every record, with rows as the commands make them."""
    parts = [
        PartTiming("static", 8, 1.0),
        *(PartTiming(f"dynamic at {w:g}", int(100 * w), w) for w in (0.25, 1)),
    ]
    wholes = [Whole("full", 2.0, 60.0, 1.0, 1.0), Whole("budget 0.1", 0.2, 9.0, 10.0, 6.7)]
    row = LoadRow(20, 300, 19.5, {200: 300}, {50: 0.1, 95: 0.2, 99: 0.3}, saved=0.6)
    nothing = LoadRow(90, 900, 0.0, {503: 900})
    decoded = [
        Row(f"{kind}-h264-gop{gop}", 3.0, way, 9, 100.0, (100.0,), 1.0)
        for kind in ("720p-10s", "1080p-60s")
        for gop in (250, 30)
        for way in WAYS
    ]
    standing = Standing("sdcom", "composition", 20.0, 1.0, row, (19.0, 20.0, 21.0))
    peers = {"model": "tiny@0", "video": "sample.mp4", "p99_s": 1.0}
    _save(tmp_path, {"parts": parts, "parts-paper": parts, "engine": wholes, "engine-paper": wholes})
    _save(
        tmp_path, {"serve": [row, nothing], "serve-governor": [replace(row, goodput=20)], "decode": decoded}
    )
    _save(tmp_path, {"peers": [standing], "peers-paper": [standing]}, peers)
    return tmp_path


def _save(folder: Path, documents: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> None:
    for name, rows in documents.items():
        document = {**(facts or {}), "rows": [asdict(row) for row in rows]}
        (folder / f"{name}.json").write_text(json.dumps(document))


def test_every_figure_is_the_same_bytes_every_time(records: Path, tmp_path: Path) -> None:
    first, second = draw_all(records, tmp_path / "first"), draw_all(records, tmp_path / "second")
    assert [path.name for path in first] == [f"bench-{name}.svg" for name in FIGURES]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("figure", FIGURES)
def test_each_figure_shows_what_every_record_of_it_says(figure: str, records: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in draw_all(records, tmp_path / "before")}
    for needed in FIGURES[figure][0]:
        file = records / f"{needed}.json"
        text = file.read_text()
        document = json.loads(text)
        changed = document["rows"][0]
        changed |= {key: value * 1.5 for key, value in changed.items() if isinstance(value, float)}
        file.write_text(json.dumps(document))
        after = {path.name: path.read_bytes() for path in draw_all(records, tmp_path / "after")}
        assert [name for name in before if after[name] != before[name]] == [f"bench-{figure}.svg"], needed
        file.write_text(text)


def test_a_figure_whose_records_are_not_all_there_is_left_out(records: Path, tmp_path: Path) -> None:
    (records / "engine-paper.json").unlink()
    done = CliRunner().invoke(app, ["plots", str(records), "--output", str(tmp_path / "plots")])
    assert done.exit_code == 0, done.output
    drawn = {path.name for path in (tmp_path / "plots").iterdir()}
    assert drawn == {f"bench-{name}.svg" for name in FIGURES if name != "speedups"}


def test_the_figures_in_the_documentation_are_those_of_its_records(tmp_path: Path) -> None:
    drawn = {path.name: path.read_bytes() for path in draw_all(RECORDS, tmp_path)}
    assert drawn
    assert drawn == {path.name: path.read_bytes() for path in PLOTS.glob("bench-*.svg")}
    page = (REPOSITORY / "docs" / "performance.md").read_text()
    assert set(re.findall(r"plots/(bench-\S+\.svg)", page)) == set(drawn)
