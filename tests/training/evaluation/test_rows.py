"""Rows of the composition and of its controls: right by other ways of computing them, and charged exactly."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sdcom.checkpoint import ExitPoint, ModelInfo, best_exits
from sdcom.model import Model
from sdcom.preprocess import normalize
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import TensorStore, patterned_store
from training.batches import evaluation_clip
from training.calibration import exit_steps
from training.evaluation.case import Case, frame_counts, running_mean
from training.evaluation.controls import control_rows
from training.evaluation.examine import examine
from training.evaluation.policies import policy_rows, priced_plans
from training.evaluation.record import Method, Row
from training.evidence import gather_evidence, priced_choices

NUM_CLIPS = 12
GIGA = 1e9
EXITS = tuple(
    ExitPoint(lam=lam, confidence=confidence, num_frames=2, gmacs=gmacs, share=0.5, top1=top1)
    for lam, confidence, gmacs, top1 in [(0, 0.6, 0.04, 0.6), (1, 0.4, 0.02, 0.4), (1, 0.9, 0.05, 0.5)]
)


@pytest.fixture(scope="module")
def store() -> TensorStore:
    return patterned_store(NUM_CLIPS)


@pytest.fixture(scope="module")
def case(store: TensorStore) -> Case:
    networks = lively_networks(TINY_CONFIG)
    info = ModelInfo(name="tiny", version="0", config=TINY_CONFIG, default_budget=0.6, exits=EXITS)
    return Case(Model(info, networks), gather_evidence(networks, store))


@pytest.fixture(scope="module")
def rows(case: Case) -> Sequence[Row]:
    return examine(case, shares=(0.1, 0.6, 1.0), num_repeats=3)


def _of(rows: Sequence[Row], method: Method) -> list[Row]:
    return [row for row in rows if row.method is method]


def test_every_way_of_answering_is_there(rows: Sequence[Row]) -> None:
    assert {row.method for row in rows} == set(Method)


def test_every_row_says_how_uncertain_its_top1_is_on_so_few_clips(rows: Sequence[Row]) -> None:
    for row in rows:
        assert row.top1_interval is not None
        low, high = row.top1_interval
        assert low - 1e-12 <= row.accuracy.top1 <= high + 1e-12
        assert 0.2 < high - low < 0.7  # ten clips


def test_the_baseline_costs_itself_and_the_static_network_a_part_of_the_floor(
    case: Case, rows: Sequence[Row]
) -> None:
    macs = case.model.info.macs
    (baseline,), (static,) = _of(rows, Method.BASELINE), _of(rows, Method.STATIC)
    assert baseline.total_gflops == pytest.approx(macs.baseline(4) / GIGA)
    assert static.total_gflops == pytest.approx((4 * macs.static + 4 * 1280 * 3) / GIGA)


def test_the_baseline_is_the_mean_of_the_dynamic_networks_own_logits(
    case: Case, store: TensorStore, rows: Sequence[Row]
) -> None:
    networks, right = case.model.networks, []
    for clip_index, clip in enumerate(store.clips):
        frames_NCHW = normalize(evaluation_clip(store, clip_index, TINY_CONFIG.clip), TINY_CONFIG.clip)
        right.append(int(networks.dynamic(frames_NCHW, 1.0).mean(dim=0).argmax()) == clip.label)
    assert _of(rows, Method.BASELINE)[0].accuracy.top1 == pytest.approx(np.mean(right))
    assert _of(rows, Method.FEWER_TSN)[-1].accuracy == _of(rows, Method.BASELINE)[0].accuracy
    assert _of(rows, Method.ONE_WIDTH_TSN)[-1].accuracy == _of(rows, Method.BASELINE)[0].accuracy


def test_budgets_are_kept_and_those_below_the_floor_left_out(case: Case, rows: Sequence[Row]) -> None:
    macs = case.model.info.macs
    assert [row.setting for row in _of(rows, Method.BUDGET)] == [0.6, 1.0]
    for row in _of(rows, Method.BUDGET):
        assert row.setting is not None
        assert macs.floor(4) / GIGA <= row.total_gflops <= row.setting * macs.baseline(4) / GIGA
    (default,) = _of(rows, Method.DEFAULT)
    assert default.model_copy(update={"method": Method.BUDGET}) == _of(rows, Method.BUDGET)[0]


def test_the_unlimited_policy_is_the_first_price_and_the_last_anytime_answer(rows: Sequence[Row]) -> None:
    (unlimited,) = _of(rows, Method.UNLIMITED)
    for same in (_of(rows, Method.PRICE)[0], _of(rows, Method.ANYTIME)[-1]):
        assert same.accuracy == unlimited.accuracy
        assert same.gflops == pytest.approx(unlimited.gflops)


def test_random_widths_cost_what_the_policy_does_less_the_gate(case: Case, rows: Sequence[Row]) -> None:
    gate = 4 * case.model.info.macs.gate / GIGA
    for policy, random in zip(_of(rows, Method.PRICE), _of(rows, Method.RANDOM), strict=True):
        assert random.setting == policy.setting
        assert "gate" not in random.gflops
        assert random.total_gflops == pytest.approx(policy.total_gflops - gate)
    spreads = [row.top1_spread for row in _of(rows, Method.RANDOM)]
    assert max(spreads) > 0
    assert spreads[-1] == 0  # all frames at width 0: nothing to deal


def test_random_widths_are_the_same_for_the_same_seed(case: Case) -> None:
    plans = priced_plans(case, prices=(0.0,))
    one, again = (control_rows(case, plans, np.random.default_rng(5), num_repeats=2) for _ in range(2))
    assert one == again


def test_one_width_for_all_frames_costs_that_width(case: Case, rows: Sequence[Row]) -> None:
    macs = case.model.info.macs
    for row in _of(rows, Method.ONE_WIDTH):
        assert row.setting is not None
        dynamic = macs.dynamic[row.setting]
        assert row.total_gflops == pytest.approx(4 * (macs.static + macs.fusion + dynamic) / GIGA)
    assert [row.setting for row in _of(rows, Method.ONE_WIDTH)] == [0, 0.25, 0.5, 0.75, 1]
    (full,) = _of(rows, Method.BASELINE_FUSION)
    assert full.accuracy == _of(rows, Method.ONE_WIDTH)[-1].accuracy == _of(rows, Method.FEWER)[-1].accuracy


def test_fewer_frames_cost_their_share_of_all(rows: Sequence[Row]) -> None:
    for method in (Method.FEWER, Method.FEWER_TSN):
        found = _of(rows, method)
        assert [row.setting for row in found] == [1, 2, 3, 4]
        for row in found:
            assert row.setting is not None
            assert row.total_gflops == pytest.approx(found[-1].total_gflops * row.setting / 4)


def test_part_counts_of_a_row_multiply_to_its_cost_and_its_time(case: Case, rows: Sequence[Row]) -> None:
    macs_K = case.model.info.macs.dynamic_by_choice
    choices_BT = priced_choices(case.evidence, macs_K, 0.0)
    (unlimited,) = _of(rows, Method.UNLIMITED)
    for choice, width in list(enumerate(TINY_CONFIG.widths))[1:]:
        count = float((choices_BT == choice).sum() / NUM_CLIPS)
        assert unlimited.frames[f"dynamic at {width:g}"] == pytest.approx(count)
        assert unlimited.gflops[f"dynamic at {width:g}"] == pytest.approx(count * macs_K[choice] / GIGA)
    part_ms = {"static": 2.0, "dynamic at 1": 10.0}
    expected = 4 * 2.0 + unlimited.frames["dynamic at 1"] * 10.0
    assert unlimited.ms(part_ms) == pytest.approx(expected)


def test_an_exit_is_scored_by_its_own_frame_and_pays_for_no_later_one(
    case: Case, rows: Sequence[Row]
) -> None:
    found = _of(rows, Method.EXIT)
    assert [row.setting for row in found] == [0.6, 0.4]  # prices 0 and 1; the dominated point is left out
    for row, lam in zip(found, (0.0, 1.0), strict=True):
        choices_BT = priced_choices(case.evidence, case.model.info.macs.dynamic_by_choice, lam)
        logits_BTL = case.logits(choices_BT)
        fed_B = exit_steps(torch.from_numpy(logits_BTL), row.setting or 0)
        last = [logits_TL[fed - 1].argmax() for logits_TL, fed in zip(logits_BTL, fed_B, strict=True)]
        assert row.accuracy.top1 == pytest.approx(np.mean(last == case.evidence.first_labels))
        assert row.frames["static"] == row.frames["gate"] == row.frames["fusion"] == fed_B.mean() < 4


def test_only_exits_that_nothing_cheaper_matches_are_worth_having() -> None:
    assert [(point.gmacs, point.top1) for point in best_exits(EXITS)] == [(0.02, 0.4), (0.04, 0.6)]


def test_prices_that_change_nothing_are_tried_once(case: Case) -> None:
    plans = priced_plans(case, prices=(0.0, 1e-9, 1.0, 1e6, 1e7))
    assert list(plans) == [0.0, 1.0, 1e6]


def test_a_policy_of_no_default_budget_defaults_to_itself(case: Case) -> None:
    info = case.model.info.model_copy(update={"default_budget": None, "exits": ()})
    free = Case(Model(info, case.model.networks), case.evidence)
    rows = policy_rows(free, priced_plans(free, prices=(0.0,)), shares=())
    assert _of(rows, Method.DEFAULT)[0].accuracy == _of(rows, Method.UNLIMITED)[0].accuracy
    assert not _of(rows, Method.EXIT)


def test_a_running_mean_is_of_the_frames_so_far() -> None:
    logits_BTL = np.array([[[1.0], [3.0], [8.0]]], dtype=np.float32)
    assert running_mean(logits_BTL).ravel().tolist() == [1, 2, 4]


def test_long_clips_are_cut_at_sixteen_lengths() -> None:
    assert frame_counts(3) == [1, 2, 3]
    counts = frame_counts(64)
    assert (counts[0], counts[-1], len(counts)) == (1, 64, 16)
