"""Other servers with the same networks: they say what ours says, and the comparison counts fairly."""

import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sdcom.checkpoint import ModelInfo
from sdcom.engine.loading import load_backend
from sdcom.errors import SdcomError, SettingsError
from sdcom.model import save_model
from sdcom.recognizer import Recognizer, bundled_model_dir
from service.bench.app import app
from service.bench.load import LoadRow, post
from service.bench.peers.capacity import Capacity, find_capacity, keeps_up
from service.bench.peers.comparison import Contender, contenders, standings, take_turns, tried
from service.bench.peers.hosting import Hosting, full_width
from service.bench.peers.process import HostedPeer, Peer, PeerProcess
from tests.conftest import TINY_CONFIG, lively_networks
from tests.sdcom.conftest import patterned_frames

SAMPLE = bundled_model_dir() / "sample.mp4"


def _row(rate: float, in_time: float, *, seconds: float = 10.0) -> LoadRow:
    """Return what so many of `rate * seconds` requests in time make of a rate."""
    return LoadRow(rate, round(rate * seconds), in_time / seconds, {200: round(in_time)})


@given(st.floats(1, 100), st.floats(1 / 60, 60))
def test_the_capacity_found_is_within_a_tenth_below_the_true_one(first: float, ratio: float) -> None:
    true = first * ratio

    def load(rate: float) -> LoadRow:
        return LoadRow(rate, 1000, 100.0 if rate <= true else 0.0, {200: 1000})

    found = find_capacity(load, first=first, seconds=10.0)
    assert found.best is not None
    assert true / 1.1 <= found.best.rate * (1 + 1e-9)
    assert found.best.rate <= true
    assert len(found.rows) <= 6 + abs(math.log2(ratio))


def test_the_search_ends_where_a_server_never_keeps_up() -> None:
    found = find_capacity(lambda rate: _row(rate, 0), first=8.0, seconds=10.0)
    assert found.best is None
    assert found.throughput == 0
    assert min(row.rate for row in found.rows) == 8 / 64


def test_refusals_and_late_answers_count_against_a_rate() -> None:
    assert keeps_up(_row(10, 99), 10.0)
    assert not keeps_up(_row(10, 98), 10.0)
    nothing_asked = LoadRow(0.1, 0, 0.0, {})
    assert not keeps_up(nothing_asked, 10.0)


def test_the_median_turn_stands_for_a_server_and_ours_is_what_the_others_are_compared_with() -> None:
    entrants = contenders(bundled_model_dir(), {}, budget=0.5, num_workers=2)
    assert [(entrant.server, entrant.network) for entrant in entrants] == [
        ("sdcom", "composition"),
        ("LitServe", "composition"),
        ("Ray Serve", "composition"),
        ("LitServe", "full-width"),
        ("Ray Serve", "full-width"),
    ]
    found = iter([10, 5, 10, 2, 0, 30, 4, 10, 1, 0, 20, 40, 10, 3, 0])

    def measured(_: Contender) -> Capacity:
        rate = next(found)
        return Capacity((_row(rate, 10 * rate), _row(2 * rate, 0)), 10.0)

    turns = take_turns(entrants * 3, measured)
    rows = standings(turns)
    assert [row.throughput for row in rows] == [20, 5, 10, 2, 0]
    assert [row.times_less for row in rows] == [1, 4, 2, 10, None]
    assert rows[0].best == _row(20, 200)
    assert list(rows[0].turns) == [10, 30, 20]
    assert len(json.loads(json.dumps(tried(turns), allow_nan=False))) == 5 * 3 * 2


def test_a_peer_is_told_the_budget_only_where_one_is_named() -> None:
    hosted = HostedPeer("ray", "composition", Path("model"), num_workers=2)
    words = ["--port", "81", "--model", "model", "--network", "composition", "--workers", "2"]
    assert hosted.command(81)[3:] == ["ray", *words]
    assert replace(hosted, budget=0.1).command(81)[3:] == ["ray", *words, "--budget", "0.1"]


def test_hosted_composition_says_what_our_own_service_says() -> None:
    hosting = Hosting(bundled_model_dir(), "composition", port=0, num_workers=1)
    first, second = hosting.load()([SAMPLE.read_bytes()] * 2)
    assert first == second
    with Recognizer.load(num_decode_workers=1, engine="onnx") as recognizer:
        ours = recognizer.recognize(SAMPLE)
    assert first["label"] == ours.predictions[0].label
    assert first["score"] == pytest.approx(ours.predictions[0].score, abs=0.1), "another decoder's scaling"
    assert first["compute"]["saved"] == pytest.approx(ours.ledger.saved, abs=0.1)


@pytest.mark.parametrize("dynamic", ["mobilenet_v2", "resnet18"])
def test_hosted_full_width_is_the_mean_of_the_dynamic_networks_own_logits(
    dynamic: str, tmp_path: Path
) -> None:
    config = TINY_CONFIG.model_copy(update={"dynamic": dynamic})
    networks = lively_networks(config)
    save_model(tmp_path, ModelInfo(name="tiny", version="0", config=config), networks)
    frames_THWC = patterned_frames(config.clip.num_frames, seed=0)
    scaled_TCHW = torch.from_numpy(frames_THWC / np.float32(255)).permute(0, 3, 1, 2)
    mean_C, std_C = torch.tensor(config.clip.mean), torch.tensor(config.clip.std)
    with torch.inference_mode():
        logits_TL = networks.dynamic((scaled_TCHW - mean_C[:, None, None]) / std_C[:, None, None], 1.0)
    scores_L = logits_TL.mean(dim=0).softmax(dim=0)
    answer = full_width(load_backend(tmp_path, engine="onnx"), tmp_path)(frames_THWC)
    assert answer["label"] == config.labels[int(scores_L.argmax())]
    assert answer["score"] == pytest.approx(float(scores_L.max()), abs=1e-4)


@pytest.mark.parametrize("peer", get_args(Peer))
def test_a_peer_answers_posted_bytes_and_leaves_no_process(peer: Peer, tiny_model_dir: Path) -> None:
    pytest.importorskip(peer, reason=f"{peer} is not installed; the extra `peers` has it")
    with PeerProcess(HostedPeer(peer, "composition", tiny_model_dir, num_workers=1)) as server:
        reply = post(server.url, SAMPLE.read_bytes(), deadline_s=60)
        assert server.process is not None
        group = server.process.pid
    assert reply.status == 200
    assert reply.saved != 0
    states = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
    assert [state for state, _, member, *_ in states if int(member) == group and state != "Z"] == []


def test_a_peer_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = PeerProcess(HostedPeer("litserve", "composition", tmp_path / "absent", num_workers=1))
    with pytest.raises(SdcomError, match=r"did not come up:\n(.|\n)*Error"):
        server.__enter__()


def test_missing_peers_are_named_before_anything_is_measured() -> None:
    if all(find_spec(peer) for peer in get_args(Peer)):
        pytest.skip("both peers are installed")
    done = CliRunner().invoke(app, ["peers"])
    assert isinstance(done.exception, SettingsError)
    assert "pip install '.[cpu,peers]'" in str(done.exception)
