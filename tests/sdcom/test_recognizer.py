"""The front door: real files through real decoders and real, if tiny, networks."""

import dataclasses
import io
import json
import re
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from sdcom.cancellation import Cancellation
from sdcom.checkpoint import ModelInfo
from sdcom.engine.early_exit import compose_until_confident
from sdcom.engine.ledger import Part
from sdcom.engine.torch_backend import TorchBackend
from sdcom.errors import (
    BudgetBelowFloorError,
    DeadlineExceededError,
    FlopsBelowFloorError,
    InvalidParameterError,
    ModelDirectoryError,
    OverloadedError,
    SettingsError,
    UndecodableVideoError,
    UnsupportedContainerError,
)
from sdcom.model import Model, save_model
from sdcom.recognition import GIGA, Budget, Provider, Recognition, softmax
from sdcom.recognizer import Recognizer, bundled_model_dir
from sdcom.sampling import Sampling
from sdcom.video import DecoderPool
from sdcom.video.process import WorkerStartError
from tests.conftest import TINY_CONFIG, lively_networks
from tests.sdcom.video.videos import encode

SHARES = (0.26, 0.3, 0.4, 0.55, 0.8, 1.0)


def _without_timing(recognition: Recognition) -> Recognition:
    return dataclasses.replace(recognition, timing_ms={})


def test_a_rendered_clip_is_recognised_with_every_fact_about_it(recognizer: Recognizer, clip: Path) -> None:
    recognition = recognizer.recognize(clip, top_k=2)
    assert recognition.model == "tiny@0"
    assert len(recognition.predictions) == 2
    assert recognition.predictions[0].score >= recognition.predictions[1].score
    for prediction in recognition.predictions:
        assert prediction.label == TINY_CONFIG.labels[prediction.index]
    video = recognition.video
    assert (video.width, video.height, video.container, video.codec) == (160, 120, "mp4", "h264")
    assert video.duration_s == pytest.approx(30 / 25)
    assert set(recognition.timing_ms) == {"queue", "decode", *Part}


@pytest.mark.shared
def test_real_clips_are_recognised_and_keep_within_every_budget(
    recognizer: Recognizer, shared_dir: Path
) -> None:
    folder = shared_dir / "data" / "jhmdb"
    clips = [path for action in ("wave", "run", "golf") for path in sorted((folder / action).iterdir())[:4]]
    _check_budgets(recognizer, clips)


def test_rendered_clips_keep_within_every_budget(recognizer: Recognizer, clip: Path) -> None:
    _check_budgets(recognizer, [clip, bundled_model_dir() / "sample.mp4"])


def _check_budgets(recognizer: Recognizer, clips: list[Path]) -> None:
    """Hold every clip to the bounds of every budget: never exceeded, and more is never less width."""
    saved = set()
    for path in clips:
        answers = [recognizer.recognize(path, budget=Budget(share=share)) for share in SHARES]
        for share, answer in zip(SHARES, answers, strict=True):
            assert answer.ledger.total_macs <= share * answer.ledger.baseline_macs
            saved.add(answer.ledger.saved)
        for less, more in pairwise(answers):
            widths = [(a.width, b.width) for a, b in zip(less.frames, more.frames, strict=True)]
            assert all(a <= b for a, b in widths)
        unlimited = recognizer.recognize(path)
        assert unlimited.ledger.lam == 0
        assert unlimited.ledger.total_macs >= answers[-1].ledger.total_macs
    assert len(saved) > len(SHARES) / 2, "budgets that change nothing show nothing"


def test_the_same_bytes_give_the_same_answer_by_path_or_open_file(recognizer: Recognizer, clip: Path) -> None:
    by_path = _without_timing(recognizer.recognize(clip))
    assert _without_timing(recognizer.recognize(clip)) == by_path
    with clip.open("rb") as file:
        assert _without_timing(recognizer.recognize(file)) == by_path
        assert _without_timing(recognizer.recognize(file)) == by_path, "the file's position must not matter"


def test_answers_do_not_depend_on_what_else_is_in_flight(recognizer: Recognizer, clip: Path) -> None:
    sample = bundled_model_dir() / "sample.mp4"
    alone = {path: _without_timing(recognizer.recognize(path)) for path in (clip, sample)}
    with ThreadPoolExecutor(4) as threads:
        paths = [clip, sample] * 4
        for path, answer in zip(paths, threads.map(recognizer.recognize, paths), strict=True):
            assert _without_timing(answer) == alone[path]


def test_frames_are_in_time_order_with_rising_times(recognizer: Recognizer, clip: Path) -> None:
    recognition = recognizer.recognize(clip)
    times_s = [frame.time_s for frame in recognition.frames]
    assert times_s == pytest.approx([index / 25 for index in (3, 11, 18, 26)], abs=1e-3)
    assert Counter(frame.width for frame in recognition.frames) == recognition.ledger.width_counts


def test_the_last_frame_fed_carries_the_videos_prediction(recognizer: Recognizer, clip: Path) -> None:
    recognition = recognizer.recognize(clip)
    last_fed = recognition.frames[2]  # coarse to fine, four frames are fed as 1 0 3 2
    best = recognition.predictions[0]
    assert (last_fed.label, last_fed.score) == (best.label, best.score)


def test_a_confident_video_ends_early_and_says_what_it_looked_at(recognizer: Recognizer, clip: Path) -> None:
    whole = recognizer.recognize(clip, budget=Budget(share=1.0))
    assert whole.to_dict()["compute"]["num_frames"] == 4
    sure = recognizer.recognize(clip, min_confidence=0.0)
    assert [frame.time_s for frame in sure.frames] == [whole.frames[1].time_s], "the middle is fed first"
    assert sure.to_dict()["compute"]["num_frames"] == 1
    assert sure.ledger.total_macs < whole.ledger.total_macs / 3
    assert sure.ledger.baseline_macs == whole.ledger.baseline_macs
    with pytest.raises(InvalidParameterError, match=r"between 0 and 1, got 1\.5"):
        recognizer.recognize(clip, min_confidence=1.5)


def test_with_early_exit_a_budget_that_suffices_changes_no_width(recognizer: Recognizer, clip: Path) -> None:
    free = recognizer.recognize(clip, min_confidence=0.7)
    assert free.ledger.lam == 0
    assert free.ledger == recognizer.recognize(clip, budget=Budget(share=1.0), min_confidence=0.7).ledger


@pytest.mark.parametrize("confidence", [None, 1.0])
def test_a_ceiling_is_kept_whatever_the_budget_allows(
    recognizer: Recognizer, clip: Path, confidence: float | None
) -> None:
    floor, saved = recognizer.info.macs.floor(4), set()
    for budget in (None, Budget(share=1.0), Budget(share=0.4)):
        free = recognizer.recognize(clip, budget=budget, min_confidence=confidence).ledger
        for ceiling in (0.0, *SHARES):
            ledger = recognizer.recognize(
                clip, budget=budget, min_confidence=confidence, max_budget=ceiling
            ).ledger
            assert ledger.total_macs <= max(ceiling * ledger.baseline_macs, floor)
            assert ledger.total_macs <= free.total_macs
            assert (ledger.max_budget, free.max_budget) == (ceiling, 1)
            saved.add(ledger.saved)
    assert len(saved) > len(SHARES) / 2, "ceilings that change nothing show nothing"
    with pytest.raises(InvalidParameterError, match=r"max_budget must be between 0 and 1, got 1\.5"):
        recognizer.recognize(clip, max_budget=1.5)


def test_the_compute_of_an_answer_is_its_widths_cost(recognizer: Recognizer, clip: Path) -> None:
    macs = recognizer.info.macs
    ledger = recognizer.recognize(clip, budget=Budget(share=0.6)).ledger
    widths = list(ledger.width_counts.elements())
    assert ledger.total_macs == macs.total(widths)
    assert ledger.baseline_macs == macs.baseline(4)
    assert ledger.saved == 1 - macs.total(widths) / macs.baseline(4)


def test_an_answer_is_json_whose_gflops_are_the_whole_macs(recognizer: Recognizer, clip: Path) -> None:
    recognition = recognizer.recognize(clip)
    document = json.loads(json.dumps(recognition.to_dict(), allow_nan=False))
    compute, ledger = document["compute"], recognition.ledger
    assert round(compute["gflops"] * 1e9) == ledger.total_macs
    assert round(compute["baseline_gflops"] * 1e9) == ledger.baseline_macs
    assert {part: round(compute[f"{part}_gflops"] * 1e9) for part in Part} == ledger.macs
    assert document["predictions"][0]["label"] == recognition.predictions[0].label


def test_asking_for_more_classes_than_there_are_gives_all(recognizer: Recognizer, clip: Path) -> None:
    predictions = recognizer.recognize(clip, top_k=100).predictions
    assert sorted(prediction.index for prediction in predictions) == [0, 1, 2]
    assert sum(prediction.score for prediction in predictions) == pytest.approx(1)


def test_asking_for_no_class_is_refused(recognizer: Recognizer, clip: Path) -> None:
    with pytest.raises(InvalidParameterError, match="at least 1, got 0"):
        recognizer.recognize(clip, top_k=0)


def test_a_budget_below_the_floor_names_a_floor_that_is_enough(recognizer: Recognizer, clip: Path) -> None:
    with pytest.raises(FlopsBelowFloorError) as refused:
        recognizer.recognize(clip, budget=Budget(share=0.1))
    floor = recognizer.info.macs.floor(4)  # 24,824,512: to four digits it would be rounded down
    assert round(refused.value.floor_gmacs * 1e9) == floor
    asked = re.search(r"max_gflops >= ([\d.]+) or budget >= ([\d.]+)", str(refused.value))
    assert asked is not None
    for budget in (Budget(gflops=float(asked[1])), Budget(share=float(asked[2]))):
        assert recognizer.recognize(clip, budget=budget).ledger.total_macs == floor


def test_the_exact_floor_is_enough_and_a_mac_less_is_not(recognizer: Recognizer, clip: Path) -> None:
    floor = recognizer.info.macs.floor(4)
    assert recognizer.recognize(clip, budget=Budget(gflops=floor / GIGA)).ledger.total_macs == floor
    with pytest.raises(BudgetBelowFloorError):
        recognizer.recognize(clip, budget=Budget(gflops=(floor - 1) / GIGA))


def test_the_figures_of_an_answer_as_budget_give_that_answer_again(
    recognizer: Recognizer, clip: Path
) -> None:
    first = recognizer.recognize(clip, budget=Budget(share=0.6))
    cost = first.to_dict()["compute"]["gflops"]
    assert recognizer.recognize(clip, budget=Budget(gflops=cost)).frames == first.frames


def test_a_deadline_in_the_past_is_refused_and_costs_the_next_request_nothing(
    recognizer: Recognizer, clip: Path
) -> None:
    with pytest.raises(DeadlineExceededError):
        recognizer.recognize(clip, deadline=time.monotonic() - 1)
    assert recognizer.recognize(clip, deadline=time.monotonic() + 60).predictions


def test_the_networks_run_on_their_own_threads_whoever_asks(tiny_model_dir: Path) -> None:
    met = threading.Barrier(3)

    def meet() -> int:
        met.wait(20)
        return threading.get_ident()

    with (
        Recognizer.load(tiny_model_dir, num_decode_workers=1, num_network_workers=3) as recognizer,
        ThreadPoolExecutor(6) as threads,
    ):
        asked = [threads.submit(recognizer._turns.call, meet) for _ in range(6)]
        assert len({one.result(20) for one in asked}) == 3


def test_the_torch_engine_gets_its_threads(tiny_model_dir: Path) -> None:
    with Recognizer.load(tiny_model_dir, num_decode_workers=1, num_threads=2, engine="torch") as recognizer:
        assert recognizer._turns.call(torch.get_num_threads) == 2
    torch.set_num_threads(
        1
    )  # some of torch's libraries keep one number for all threads: the other tests' again


def test_both_engines_give_the_same_answer(tiny_model_dir: Path, recognizer: Recognizer, clip: Path) -> None:
    with Recognizer.load(tiny_model_dir, num_decode_workers=1, engine="torch") as reference:
        for budget in (None, Budget(share=0.5)):
            ours, theirs = (each.recognize(clip, budget=budget) for each in (recognizer, reference))
            assert ours.ledger == theirs.ledger
            assert [frame.width for frame in ours.frames] == [frame.width for frame in theirs.frames]
            for our, their in zip(ours.predictions, theirs.predictions, strict=True):
                assert our.label == their.label
                assert our.score == pytest.approx(their.score, rel=1e-4)


def test_batches_across_videos_say_what_each_alone_would(
    tiny_model_dir: Path, recognizer: Recognizer, clip: Path
) -> None:
    sample = bundled_model_dir() / "sample.mp4"
    wishes = [(path, budget) for path in (clip, sample) for budget in (None, Budget(share=0.5))] * 4
    with (
        Recognizer.load(tiny_model_dir, num_decode_workers=2, batching=True) as batching,
        ThreadPoolExecutor(len(wishes)) as threads,
    ):
        batching.warm_up()
        stream, alone = batching.open_stream(), recognizer.open_stream()
        answers = [threads.submit(batching.recognize, path, budget=budget) for path, budget in wishes]
        frame_HWC = np.full((80, 100, 3), 90, np.uint8)
        step, expected_step = stream.push(frame_HWC), alone.push(frame_HWC)
        assert (step.width, step.prediction.label) == (expected_step.width, expected_step.prediction.label)
        for (path, budget), answer in zip(wishes, answers, strict=True):
            expected, found = recognizer.recognize(path, budget=budget), answer.result(60)
            assert found.ledger == expected.ledger
            assert [frame.width for frame in found.frames] == [frame.width for frame in expected.frames]
            assert found.predictions[0].score == pytest.approx(expected.predictions[0].score, rel=1e-4)
        assert len(batching.recognize(clip, min_confidence=0.0).frames) == 1
    with pytest.raises(OverloadedError, match="closed"):
        stream.push(frame_HWC)


def test_a_video_of_fewer_frames_than_a_clip_pays_for_those_it_has(
    tiny_model_dir: Path, recognizer: Recognizer, tmp_path: Path
) -> None:
    path, macs, num_frames = tmp_path / "three.mp4", recognizer.info.macs, TINY_CONFIG.clip.num_frames
    path.write_bytes(encode("libx264", "mp4", num_frames=3))
    with Recognizer.load(tiny_model_dir, num_decode_workers=1, batching=True) as batching:
        batched = batching.recognize(path)
    whole, fed = recognizer.recognize(path), recognizer.recognize(path, min_confidence=1.0)
    for answer in (whole, fed, batched):
        assert len({frame.time_s for frame in answer.frames}) == 3 < len(answer.frames) == num_frames
        assert answer.ledger.macs[Part.STATIC] == 3 * macs.static
        filled = {(frame.time_s, frame.width) for frame in answer.frames}
        assert answer.ledger.macs[Part.DYNAMIC] == sum(macs.dynamic[width] for _, width in filled)
        assert answer.ledger == whole.ledger
        assert answer.ledger.baseline_macs == macs.baseline(num_frames)


def test_early_exit_keeps_the_deadline_between_frames(tiny_model: Model) -> None:
    frames_THWC = np.zeros((4, 64, 64, 3), np.uint8)
    with pytest.raises(DeadlineExceededError, match="passed after 0 frames"):
        compose_until_confident(
            TorchBackend(tiny_model), frames_THWC, confidence=1.0, deadline=time.monotonic() - 1
        )


def test_what_early_exit_executed_when_its_deadline_passed_is_counted(
    tiny_model: Model, recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.monotonic()]
    patient = Recognizer(TorchBackend(tiny_model), recognizer.decoders)
    call = patient._turns.call

    def slow(step: Any) -> Any:
        now[0] += 1000
        return call(step)

    monkeypatch.setattr(patient._turns, "call", slow)
    monkeypatch.setattr("sdcom.engine.early_exit.time.monotonic", lambda: now[0])
    with pytest.raises(DeadlineExceededError, match="passed after 2 frames"):
        patient.recognize(clip, min_confidence=1.0, deadline=now[0] + 1500)
    assert patient.executed_macs()[Part.STATIC] == 2 * tiny_model.info.macs.static
    patient._turns.close()


@pytest.mark.parametrize("sampling", ["centers", "cheapest"])
def test_early_exit_in_rounds_says_what_decoding_all_and_then_exiting_early_says(
    tiny_model_dir: Path, tmp_path: Path, sampling: Sampling
) -> None:
    path, num_decoded = tmp_path / "keyframes.mp4", set()
    path.write_bytes(encode("libx264", "mp4", num_frames=120, options={"g": "10"}))
    with Recognizer.load(
        tiny_model_dir, num_decode_workers=1, num_threads=1, sampling=sampling
    ) as recognizer:
        frames_THWC = recognizer.decoders.decode(path).frames_THWC[recognizer._order_T]
        for confidence in (0.0, 0.3, 0.4, 0.5, 0.6, 1.0):
            expected = compose_until_confident(recognizer.backend, frames_THWC, confidence=confidence)
            found = recognizer.recognize(path, min_confidence=confidence)
            assert found.ledger.macs == expected.ledger.macs
            best = softmax(expected.logits_TL[-1]).max()
            assert found.predictions[0].score == pytest.approx(best, rel=1e-6)
            num_decoded.add(len(found.frames))
    assert min(num_decoded) == 1
    assert max(num_decoded) == TINY_CONFIG.clip.num_frames


def test_a_caller_who_leaves_between_rounds_frees_decoder_and_networks(
    tiny_model: Model, recognizer: Recognizer, tmp_path: Path
) -> None:
    path, cancellation = tmp_path / "keyframes.mp4", Cancellation()
    path.write_bytes(encode("libx264", "mp4", num_frames=120, options={"g": "10"}))
    patient = Recognizer(TorchBackend(tiny_model), recognizer.decoders)
    cancellation.cancel()
    with pytest.raises(CancelledError):
        patient.submit(path, min_confidence=1.0, cancellation=cancellation)
    assert patient.executed_macs().total() == 0
    assert not recognizer.decoders._busy
    patient._turns.close()


def test_decoders_that_cannot_start_leave_no_thread_of_the_networks(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_decoders(*_: object, **__: object) -> None:
        raise WorkerStartError("no jail today")

    before = set(threading.enumerate())
    monkeypatch.setattr("sdcom.recognizer.DecoderPool", no_decoders)
    with pytest.raises(WorkerStartError, match="no jail today"):
        Recognizer.load(tiny_model_dir, num_decode_workers=1, batching=True)
    assert not set(threading.enumerate()) - before


def test_batches_of_a_model_with_temporal_shift_are_refused(tmp_path: Path) -> None:
    clip = TINY_CONFIG.clip.model_copy(update={"order": "time"})
    config = TINY_CONFIG.model_copy(update={"clip": clip, "dynamic": "resnet18", "temporal_shift": True})
    save_model(tmp_path, ModelInfo(name="shift", version="0", config=config), lively_networks(config))
    with pytest.raises(SettingsError, match="shift@0 has a temporal shift: its frames cannot share batches"):
        Recognizer.load(tmp_path, num_decode_workers=1, batching=True)


def test_what_computes_the_networks_is_named_with_its_version(
    tiny_model: Model, recognizer: Recognizer
) -> None:
    assert recognizer.provider == Provider("onnxruntime-cpu", onnxruntime.__version__)
    reference = Recognizer(TorchBackend(tiny_model), recognizer.decoders)
    assert reference.provider == Provider("torch-cpu", torch.__version__)


def test_networks_are_closed_even_if_the_decoders_cannot_be(
    tiny_model: Model, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck() -> None:
        raise OSError("no end today")

    monkeypatch.setattr(recognizer.decoders, "close", stuck)
    closing = Recognizer(TorchBackend(tiny_model), recognizer.decoders)
    with pytest.raises(OSError, match="no end today"):
        closing.close()
    with pytest.raises(OverloadedError, match="closed"):
        closing._turns.call(lambda: 0)


def test_a_closed_recognizer_refuses(tiny_model: Model, recognizer: Recognizer) -> None:
    closed = Recognizer(TorchBackend(tiny_model), recognizer.decoders)
    stream = closed.open_stream()
    closed._turns.close()
    with pytest.raises(OverloadedError, match="closed"):
        stream.push(np.zeros((64, 64, 3), np.uint8))


def test_a_file_that_is_no_video_is_refused(recognizer: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("#EXTM3U\nhttp://localhost/secret.ts\n")
    with pytest.raises(UnsupportedContainerError):
        recognizer.recognize(path)


def test_a_cut_off_file_is_refused_and_the_next_one_is_not_harmed(
    recognizer: Recognizer, clip: Path, tmp_path: Path
) -> None:
    before = _without_timing(recognizer.recognize(clip))
    path = tmp_path / "cut_off.mp4"
    path.write_bytes(clip.read_bytes()[:600])
    with pytest.raises(UndecodableVideoError):
        recognizer.recognize(path)
    assert _without_timing(recognizer.recognize(clip)) == before


def test_a_file_without_a_descriptor_is_an_error_of_the_caller(recognizer: Recognizer) -> None:
    with pytest.raises(io.UnsupportedOperation):
        recognizer.recognize(io.BytesIO(b"no descriptor"))


def test_a_warm_up_changes_no_answer(recognizer: Recognizer, clip: Path) -> None:
    before = _without_timing(recognizer.recognize(clip))
    recognizer.warm_up()
    assert _without_timing(recognizer.recognize(clip)) == before


def test_a_models_default_budget_holds_for_requests_that_name_none(
    tiny_model: Model, recognizer: Recognizer, clip: Path, tmp_path: Path
) -> None:
    info = tiny_model.info.model_copy(update={"default_budget": 0.4})
    save_model(tmp_path, info, tiny_model.networks)
    named = recognizer.recognize(clip, budget=Budget(share=0.4))
    with Recognizer.load(tmp_path, num_decode_workers=1) as frugal:
        assert _without_timing(frugal.recognize(clip)) == _without_timing(named)
        whole = frugal.recognize(clip, budget=Budget(share=1))
        assert whole.ledger.total_macs > named.ledger.total_macs
        assert frugal.open_stream().push(np.zeros((90, 90, 3), np.uint8)).ledger.lam == 50


def test_a_directory_that_is_no_model_is_refused_before_a_worker_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelDirectoryError, match="is not a model directory"):
        Recognizer.load(tmp_path)


def test_the_public_names_lead_to_the_parts() -> None:
    import sdcom  # noqa: PLC0415 - the subject

    assert sdcom.Recognizer is Recognizer
    assert sdcom.Budget is Budget
    assert sdcom.Recognition is Recognition
    assert sdcom.errors.BudgetBelowFloorError is BudgetBelowFloorError
    assert sdcom.load_model.__module__ == "sdcom.model"
    with pytest.raises(AttributeError, match="no attribute 'recognise'"):
        sdcom.recognise  # noqa: B018 - raises


def test_sampling_decides_which_frames_are_looked_at(tiny_model_dir: Path, clip: Path) -> None:
    with Recognizer.load(tiny_model_dir, num_decode_workers=1, sampling="cheapest") as thrifty:
        times_s = [frame.time_s for frame in thrifty.recognize(clip).frames]
        decoded = thrifty.decoders.decode(clip)
    assert times_s == list(decoded.times_s)
    with DecoderPool(TINY_CONFIG.clip, num_workers=1) as plain:
        assert plain.decode(clip).times_s != decoded.times_s
