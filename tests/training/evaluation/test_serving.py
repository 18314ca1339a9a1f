"""Clips answered one by one are what a server answers, and what the looked-up rows say."""

from pathlib import Path

import numpy as np
import pytest

from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import Model
from sdcom.recognizer import Recognizer
from service.demo import ServerProcess
from training.cli.models import examined_evidence, opened
from training.data import Clip, DataError, read_split
from training.evaluation.case import Case
from training.evaluation.policies import policy_rows, priced_plans
from training.evaluation.record import Method
from training.evaluation.serving import UNLIMITED, offline, over_http

ONE_WORKER = {"SDCOM_DECODE_WORKERS": "1"}


def test_a_server_of_the_bundled_model_answers_as_the_offline_evaluation(rendered_set: Path) -> None:
    with Recognizer.load(num_decode_workers=1) as recognizer, ServerProcess(ONE_WORKER) as server:
        clips = read_split(rendered_set, "split", recognizer.info.config.labels).test[:2]
        url = f"http://127.0.0.1:{server.http_port}"
        for budget in (UNLIMITED, None):
            here, there = offline(recognizer, budget), over_http(url, budget)
            assert [here(clip) for clip in clips] == [there(clip) for clip in clips]


def test_rows_say_what_answering_the_clips_one_by_one_says(rendered_set: Path, tiny_model_dir: Path) -> None:
    clips = read_split(rendered_set, "split").train
    with opened(tiny_model_dir, "cpu") as found:
        info, networks = found.model
        model = Model(info.model_copy(update={"default_budget": 0.6}), networks)
        case = Case(model, examined_evidence(found, clips))
        recognizer = Recognizer(TorchBackend(model), found.decoders)
        rows = {row.method: row for row in policy_rows(case, priced_plans(case, prices=(0.0,)), shares=())}
        for method, budget in ((Method.UNLIMITED, UNLIMITED), (Method.DEFAULT, None)):
            outcomes = [offline(recognizer, budget)(clip) for clip in clips]
            gflops = np.mean([outcome.gflops for outcome in outcomes])
            right = [outcome.predicted == clip.label for outcome, clip in zip(outcomes, clips, strict=True)]
            assert rows[method].total_gflops == pytest.approx(gflops)
            assert rows[method].accuracy.top1 == pytest.approx(np.mean(right))


def test_a_file_that_is_no_video_is_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    with (
        opened(tiny_model_dir, "cpu") as found,
        pytest.raises(DataError, match=r"notes\.mp4 cannot be evaluated"),
    ):
        examined_evidence(found, [Clip(path, (0,), "g")])
