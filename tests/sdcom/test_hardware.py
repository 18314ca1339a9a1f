"""Budgets in milliseconds keep within the times measured, and those count only where they were measured."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdcom.checkpoint import ModelInfo
from sdcom.config import ClipConfig
from sdcom.engine.hardware import (
    HARDWARE_FILE,
    HardwareCosts,
    applying,
    load_hardware,
    measure_hardware,
    save_hardware,
)
from sdcom.engine.ledger import Ledger, Part
from sdcom.engine.loading import load_backend
from sdcom.engine.planning import video_planner
from sdcom.errors import InvalidParameterError, ModelDirectoryError, TimeBelowFloorError
from sdcom.processors import processor_name
from sdcom.recognition import Budget, Provider
from sdcom.recognizer import Recognizer
from tests.conftest import TINY_CONFIG
from tests.sdcom.video.videos import encode

INFO = ModelInfo(name="tiny", version="0", config=TINY_CONFIG)
HERE = Provider("onnxruntime-cpu", "1")
T, WIDTHS = TINY_CONFIG.clip.num_frames, TINY_CONFIG.widths
MACS_K = INFO.macs.dynamic_by_choice


def costs(*dynamic_us: int, num_threads: int = 1, provider: Provider = HERE) -> HardwareCosts:
    """Return a record of the tiny model, whose floor is 4 frames of 16 microseconds."""
    return HardwareCosts(
        provider=provider.name,
        provider_version=provider.version,
        num_threads=num_threads,
        machine=processor_name(),
        macs=INFO.macs,
        static_us=10,
        gate_us=2,
        fusion_us=4,
        dynamic_us=dict(zip(WIDTHS[1:], dynamic_us or (3, 9, 20, 40), strict=True)),
    )


FLOOR_US = costs().floor_us(T)
tables = st.lists(st.integers(1, 60), min_size=4, max_size=4).map(lambda us: costs(*us))  # as noisy as can be
logits = st.lists(st.lists(st.floats(-30, 30), min_size=5, max_size=5), min_size=T, max_size=T)
budgets = st.floats(FLOOR_US / 1000, 0.4)


@given(logits, tables, budgets, st.floats(0, 1))
@example([[0.0, 0.0, 0.0, 0.0, 1.0]] * T, costs(40, 3, 20, 9), FLOOR_US / 1000, 1.0)
@example([[0.0, 0.0, 0.0, 0.0, 1.0]] * T, costs(40, 40, 40, 40), 0.4, 0.6)
def test_a_plan_never_takes_more_than_its_milliseconds_by_the_table(
    logits_TK: list[list[float]], table: HardwareCosts, ms: float, max_budget: float
) -> None:
    plan = video_planner(INFO, Budget(ms=ms), hardware=table, max_budget=max_budget)(
        np.array(logits_TK, dtype=np.float32)
    )
    taken_us = FLOOR_US + sum(table.dynamic_us.get(WIDTHS[choice], 0) for choice in plan.choices)
    assert taken_us / 1000 <= ms
    assert plan.macs == sum(MACS_K[choice] for choice in plan.choices)
    if max_budget < 1:
        floor = INFO.macs.floor(T)
        assert floor + plan.macs <= max(max_budget * INFO.macs.baseline(T), floor)


@given(logits, tables, budgets, budgets)
def test_more_milliseconds_never_mean_less_width_for_any_frame(
    logits_TK: list[list[float]], table: HardwareCosts, one: float, other: float
) -> None:
    small, large = (
        video_planner(INFO, Budget(ms=ms), hardware=table)(np.array(logits_TK, dtype=np.float32))
        for ms in sorted((one, other))
    )
    assert all(a <= b for a, b in zip(small.choices, large.choices, strict=True))


@given(logits, tables)
def test_time_enough_is_the_trained_policy(logits_TK: list[list[float]], table: HardwareCosts) -> None:
    plan = video_planner(INFO, Budget(ms=1e308), hardware=table)(np.array(logits_TK, dtype=np.float32))
    assert plan.lam == 0
    assert plan.choices == tuple(np.argmax(np.array(logits_TK, dtype=np.float32), axis=1))


def test_a_width_that_noise_made_quicker_than_a_narrower_one_counts_as_that_one() -> None:
    table = costs(5, 4, 20, 19)
    assert table.dynamic_by_choice == (0, 5, 5, 20, 20)
    shuffled = table.model_copy(update={"dynamic_us": dict(reversed(table.dynamic_us.items()))})
    assert shuffled.dynamic_by_choice == table.dynamic_by_choice


@pytest.mark.parametrize(("ms", "microseconds"), [(0.0641, 64), (0.064, 64), (0.3, 300), (12.0009, 12_000)])
def test_milliseconds_are_whole_microseconds_never_more(ms: float, microseconds: int) -> None:
    assert Budget(ms=ms).microseconds == microseconds


def test_milliseconds_below_the_floor_name_a_floor_that_is_enough() -> None:
    table = costs().model_copy(update={"static_us": 123_457})
    with pytest.raises(TimeBelowFloorError, match="static network, gate and fusion") as refused:
        video_planner(INFO, Budget(ms=3), hardware=table)
    assert refused.value.floor_ms == table.floor_us(T) / 1000
    asked = re.search(r"max_ms >= ([\d.]+)", str(refused.value))
    assert asked is not None
    video_planner(INFO, Budget(ms=float(asked[1])), hardware=table)
    video_planner(INFO, Budget(ms=refused.value.floor_ms), hardware=table)


@pytest.mark.parametrize("ms", [-1, float("nan"), float("inf")])
def test_milliseconds_that_are_no_amount_are_refused(ms: float) -> None:
    with pytest.raises(InvalidParameterError, match=f"finite number, at least 0, got {ms}"):
        Budget(ms=ms)


def test_two_currencies_at_once_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="only one"):
        Budget(ms=1, gflops=1)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert load_hardware(tmp_path) == ()
    save_hardware(tmp_path, costs())
    assert load_hardware(tmp_path) == (costs(),)
    assert [each.name for each in tmp_path.iterdir()] == [HARDWARE_FILE]


def test_a_record_replaces_that_of_its_own_place_and_keeps_the_others(tmp_path: Path) -> None:
    two_threads, on_torch = costs(num_threads=2), costs(provider=Provider("torch-cpu", "2"))
    for record in (costs(), two_threads, on_torch, costs(1, 2, 3, 4)):
        save_hardware(tmp_path, record)
    assert load_hardware(tmp_path) == (two_threads, on_torch, costs(1, 2, 3, 4))


def test_a_record_of_another_place_or_model_does_not_apply() -> None:
    records = (costs(9, 9, 9, 9, num_threads=2), costs())
    assert applying(records, INFO, HERE, 1) == costs()
    assert applying(records, INFO, HERE, 2) == records[0]
    assert applying(records, INFO, HERE, 3) is None
    assert applying(records, INFO, Provider("onnxruntime-cpu-compiled", "1"), 1) == costs(), "not of one clip"
    assert applying(records, INFO, Provider("onnxruntime-cuda", "1"), 1) is None
    assert applying(records, INFO, Provider("onnxruntime-cpu", "2"), 1) is None
    assert applying([costs().model_copy(update={"machine": "another"})], INFO, HERE, 1) is None
    wider = TINY_CONFIG.model_copy(update={"clip": ClipConfig(num_frames=4, short_side=80, crop=80)})
    assert applying(records, INFO.model_copy(update={"config": wider}), HERE, 1) is None


def _document(damage: dict[str, object]) -> str:
    return json.dumps({"records": [costs().model_dump(mode="json") | damage]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Invalid JSON"),
        ("[1]", "damaged"),
        ("\xff\x00", "damaged"),
        ('{"schema_version": 2, "records": []}', "schema_version"),
        ('{"records": [{"static_us": -1}]}', "records.0"),
        (_document({"gate_us": None}), "gate_us"),
        (_document({"dynamic_us": {"0.3": 4}}), "MACs"),
        (_document({"dynamic_us": {}}), "dynamic_us"),
        (_document({"num_threads": "many"}), "num_threads"),
    ],
)
def test_a_damaged_file_is_told_and_what_to_do(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / HARDWARE_FILE).write_text(text, encoding="latin-1")
    with pytest.raises(ModelDirectoryError, match="run `sdcom calibrate --hardware` again") as told:
        load_hardware(tmp_path)
    assert words in str(told.value)
    with pytest.raises(ModelDirectoryError):
        save_hardware(tmp_path, costs())
    assert (tmp_path / HARDWARE_FILE).read_text(encoding="latin-1") == text


def test_a_damaged_file_is_told_when_its_model_is_loaded(tiny_model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "tiny")
    (tmp_path / "tiny" / HARDWARE_FILE).write_text("{")
    with pytest.raises(ModelDirectoryError, match="is damaged"):
        _loaded(tmp_path / "tiny", num_threads=1)


def test_a_directory_that_cannot_be_written_is_told_and_keeps_what_it_has(tmp_path: Path) -> None:
    save_hardware(tmp_path, costs())
    (tmp_path / f".{HARDWARE_FILE}.partial").mkdir()  # so that root, too, cannot write there
    with pytest.raises(ModelDirectoryError, match="copy the model directory"):
        save_hardware(tmp_path, costs(1, 2, 3, 4))
    assert load_hardware(tmp_path) == (costs(),)


@pytest.fixture(scope="module")
def measured_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with the times of this machine, one thread, in torch."""
    directory = tmp_path_factory.mktemp("measured") / "tiny"
    shutil.copytree(tiny_model_dir, directory)
    backend = load_backend(directory, engine="torch", device="cpu", num_threads=1)
    save_hardware(directory, measure_hardware(backend, num_threads=1, num_repeats=1))
    return directory


@pytest.fixture(scope="module")
def recognizer(measured_dir: Path) -> Iterator[Recognizer]:
    with _loaded(measured_dir, num_threads=1) as recognizer:
        yield recognizer


def _loaded(directory: Path, num_threads: int) -> Recognizer:
    return Recognizer.load(
        directory, num_decode_workers=1, num_threads=num_threads, engine="torch", device="cpu"
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clips") / "clip.mp4"
    file.write_bytes(encode(num_frames=12))
    return file


def _taken_us(table: HardwareCosts, ledger: Ledger) -> int:
    num_frames = ledger.width_counts.total()
    widths = ledger.width_counts.items()
    return table.floor_us(num_frames) + sum(table.dynamic_us.get(width, 0) * n for width, n in widths)


@pytest.mark.parametrize("min_confidence", [None, 1.0, 0.0])
def test_a_video_keeps_within_milliseconds_and_its_ledger_counts_exact_macs(
    recognizer: Recognizer, measured_dir: Path, clip: Path, min_confidence: float | None
) -> None:
    (table,) = load_hardware(measured_dir)
    floor_us, most_us = table.floor_us(T), table.floor_us(T) + T * table.dynamic_by_choice[-1]
    for us in np.linspace(floor_us, most_us, 7).astype(int).tolist():
        answer = recognizer.recognize(clip, budget=Budget(ms=us / 1000), min_confidence=min_confidence)
        assert _taken_us(table, answer.ledger) <= us
        widths = list(answer.ledger.width_counts.elements())
        assert answer.ledger.total_macs == recognizer.info.macs.total(widths)
        if us == floor_us:
            assert answer.ledger.macs[Part.DYNAMIC] == 0
    assert answer.ledger == recognizer.recognize(clip, min_confidence=min_confidence).ledger


def test_a_stream_is_told_that_its_budget_is_in_flops(recognizer: Recognizer) -> None:
    with pytest.raises(InvalidParameterError, match="a share or GFLOPs"):
        recognizer.open_stream(budget=Budget(ms=100))


@pytest.mark.parametrize("min_confidence", [None, 0.5])
def test_milliseconds_that_were_not_measured_so_are_refused_with_the_command(
    measured_dir: Path, clip: Path, min_confidence: float | None
) -> None:
    with _loaded(measured_dir, num_threads=2) as other:
        with pytest.raises(InvalidParameterError, match="sdcom calibrate --hardware"):
            other.recognize(clip, budget=Budget(ms=1000), min_confidence=min_confidence)
        assert other.recognize(clip, budget=Budget(share=1)).ledger.lam == 0
