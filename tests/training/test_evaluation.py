"""Evaluation goes through what serves: the same answers, clip by clip, and costs summed before divided."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdcom.recognizer import Recognizer
from service.demo import ServerProcess
from training.cli import app
from training.data import Clip, DataError, read_split
from training.evaluation import UNLIMITED, Outcome, full_width, offline, over_http, score, static_alone
from training.rendered import generate


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of a few rendered clips."""
    folder = tmp_path_factory.mktemp("drawn")
    generate(folder, clips_per_action=6, seed=3, actions=["golf", "wave"], num_processes=1)
    return folder


@pytest.fixture(scope="module")
def recognizer() -> Iterator[Recognizer]:
    with Recognizer.load(num_decode_workers=1) as recognizer:
        yield recognizer


def test_a_score_divides_sums() -> None:
    clips = [Clip(Path(name), (label,), "g") for name, label in (("a", 0), ("b", 1))]
    row = score("x", clips, [Outcome(0, 1.0), Outcome(0, 3.0)], baseline_gflops=4.0)
    assert (row.top1, row.gflops, row.share) == (0.5, 2.0, 0.5)


def test_the_baseline_costs_itself_and_the_static_network_a_part_of_it(
    recognizer: Recognizer, drawn: Path
) -> None:
    clip = read_split(drawn, "split", recognizer.model.info.config.labels).test[0]
    macs = recognizer.model.info.macs
    num_frames = recognizer.model.info.config.clip.num_frames
    assert full_width(recognizer)(clip).gflops == macs.baseline(num_frames) / 1e9
    assert 0 < static_alone(recognizer)(clip).gflops < macs.floor(num_frames) / 1e9 * 1.01


def test_a_server_of_the_bundled_model_answers_as_the_offline_evaluation(
    recognizer: Recognizer, drawn: Path
) -> None:
    clips = read_split(drawn, "split", recognizer.model.info.config.labels).test
    with ServerProcess({"SDCOM_DECODE_WORKERS": "1"}) as server:
        url = f"http://127.0.0.1:{server.http_port}"
        for budget in (UNLIMITED, None):
            here, there = offline(recognizer, budget), over_http(url, budget)
            assert [here(clip) for clip in clips] == [there(clip) for clip in clips]


def test_evaluate_prints_a_row_for_each_way_of_answering(drawn: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--data", str(drawn), "--split", "split"])
    assert result.exit_code == 0, result.output
    for row in ("unlimited budget", "default budget", "full-width baseline", "static network alone"):
        assert row in result.stdout


def test_evaluating_on_nothing_says_what_is_missing(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"splits\.tsv is missing"):
        CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path)], catch_exceptions=False)
    manifest = (drawn / "splits.tsv").read_text(encoding="utf-8")
    (tmp_path / "splits.tsv").write_text(manifest.replace("\ttest", "\ttrain"), encoding="utf-8")
    with pytest.raises(DataError, match="no test clips in split"):
        CliRunner().invoke(
            app, ["evaluate", "--data", str(tmp_path), "--split", "split"], catch_exceptions=False
        )
