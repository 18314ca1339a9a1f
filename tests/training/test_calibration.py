"""Calibration: looked-up plans are what serving computes, and a price buys less compute."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdcom.budget import choose_widths
from sdcom.checkpoint import CalibrationPoint, ExitPoint, ModelInfo
from sdcom.model import Model
from sdcom.models.composition import SDCOM
from sdcom.recognition import Budget
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import TensorStore, patterned_store
from training.calibration import (
    CONFIDENCES,
    EXIT_PRICES,
    PRICES,
    accuracy_interval,
    budgeted_point,
    calibrate,
    calibrate_exits,
    calibrated,
    calibrated_as,
    default_budget,
    default_point,
    exit_steps,
)
from training.evidence import Evidence, gather_evidence, planned_logits, priced_choices

NUM_CLIPS = 10


@pytest.fixture(scope="module")
def networks() -> SDCOM:
    return lively_networks(TINY_CONFIG)


@pytest.fixture(scope="module")
def model(networks: SDCOM) -> Model:
    return Model(ModelInfo(name="tiny", version="0", config=TINY_CONFIG), networks)


@pytest.fixture(scope="module")
def store() -> TensorStore:
    return patterned_store(NUM_CLIPS)


@pytest.fixture(scope="module")
def evidence(networks: SDCOM, store: TensorStore) -> Evidence:
    return gather_evidence(networks, store)


def test_cost_falls_as_the_price_rises_from_the_trained_policy_to_the_floor(
    model: Model, evidence: Evidence
) -> None:
    points = calibrate(model.networks, evidence)
    assert [point.lam for point in points] == sorted(PRICES)
    gmacs = [point.gmacs for point in points]
    assert gmacs == sorted(gmacs, reverse=True)
    macs = model.info.macs
    policy = [choose_widths(logits_TK, macs.dynamic_by_choice, 0.0) for logits_TK in evidence.gate_logits_BTK]
    assert gmacs[0] == pytest.approx((macs.floor(4) + np.mean([plan.macs for plan in policy])) / 1e9)
    assert gmacs[-1] == pytest.approx(macs.floor(4) / 1e9)
    assert gmacs[0] > gmacs[-1]


def test_a_point_says_its_accuracy_share_and_widths(model: Model, evidence: Evidence) -> None:
    for point in calibrate(model.networks, evidence, prices=(0.0, 2.0)):
        macs = model.info.macs
        assert point.share == pytest.approx(point.gmacs * 1e9 / macs.baseline(4))
        assert sum(point.width_shares) == pytest.approx(1)
        mean_dynamic = sum(
            4 * share * cost for share, cost in zip(point.width_shares, macs.dynamic_by_choice, strict=True)
        )
        assert point.gmacs == pytest.approx((macs.floor(4) + mean_dynamic) / 1e9)
        choices_BT = priced_choices(evidence, macs.dynamic_by_choice, point.lam)
        predicted_B = planned_logits(model.networks, evidence, choices_BT)[:, -1].argmax(dim=-1)
        assert point.top1 == pytest.approx(np.mean(predicted_B.numpy() == evidence.first_labels))


def test_a_video_exits_at_the_first_frame_that_is_sure_or_after_the_last() -> None:
    sure, unsure = [9.0, 0.0, 0.0], [0.1, 0.0, 0.0]
    logits_BTL = torch.tensor([[unsure, sure, unsure], [unsure, unsure, unsure], [sure, sure, sure]])
    assert exit_steps(logits_BTL, 0.9).tolist() == [2, 3, 1]
    assert exit_steps(logits_BTL, 0.0).tolist() == [1, 1, 1]
    assert exit_steps(logits_BTL, 1.0).tolist() == [3, 3, 3]


def test_an_exit_costs_the_frames_fed_and_answers_as_after_the_last_of_them(
    model: Model, evidence: Evidence
) -> None:
    macs = model.info.macs
    (point,) = calibrate_exits(model.networks, evidence, prices=(1.0,), confidences=(0.5,))
    choices_BT = priced_choices(evidence, macs.dynamic_by_choice, 1.0)
    logits_BTL = planned_logits(model.networks, evidence, choices_BT)
    fed_B = exit_steps(logits_BTL, 0.5)
    assert 1 < fed_B.mean() < 4
    costs, right = [], []
    for video, fed in enumerate(fed_B):
        costs.append(fed * macs.floor(1) + sum(macs.dynamic_by_choice[k] for k in choices_BT[video, :fed]))
        right.append(int(logits_BTL[video, fed - 1].argmax()) == evidence.labels[video][0])
    assert point.num_frames == pytest.approx(fed_B.mean())
    assert point.gmacs == pytest.approx(np.mean(costs) / 1e9)
    assert point.share == pytest.approx(np.mean(costs) / macs.baseline(4))
    assert point.top1 == pytest.approx(np.mean(right))


def test_never_stopping_early_is_the_calibration_without_exits(model: Model, evidence: Evidence) -> None:
    plain = calibrate(model.networks, evidence, prices=(0.0, 1.0))
    exits = calibrate_exits(model.networks, evidence, prices=(0.0, 1.0), confidences=(1.0,))
    for point, exit_point in zip(plain, exits, strict=True):
        assert exit_point.num_frames == 4
        assert exit_point.gmacs == pytest.approx(point.gmacs)
        assert exit_point.top1 == point.top1


def test_a_model_calibrated_as_another_has_its_own_costs_and_the_others_accuracies_there(
    model: Model, evidence: Evidence
) -> None:
    own = calibrate(model.networks, evidence)
    dearer, cheaper = (
        own[0].model_copy(update={"lam": lam, "share": share, "top1": top1})
        for lam, share, top1 in ((0.0, 0.9, 0.8), (50.0, 0.1, 0.4))
    )
    first = ModelInfo(
        name="first",
        version="0",
        config=TINY_CONFIG,
        default_budget=0.9,
        calibration=(dearer, cheaper),
        exits=(ExitPoint(lam=2, confidence=0.7, num_frames=2.5, gmacs=0.03, share=0.31, top1=0.35),),
        provenance={"num_calibration_clips": 7, "calibrated_on": "held-out groups", "licence": "theirs"},
    )
    info = calibrated_as(model, evidence, first)
    for point, plain in zip(info.calibration, own, strict=True):
        assert point.top1 == pytest.approx(0.4 + 0.5 * (plain.share - 0.1))  # on the line between the two
        assert point.model_copy(update={"top1": plain.top1}) == plain
    assert len({point.top1 for point in info.calibration}) > 1
    assert (info.name, info.exits) == (model.info.name, first.exits)
    assert info.provenance == {
        "num_calibration_clips": 7,
        "calibrated_on": "held-out groups",
        "refit": "on all clips, after calibration",
    }


@pytest.mark.parametrize("chosen", [0, 7, 12, -1])
def test_a_model_calibrated_as_another_spends_by_default_what_the_price_chosen_there_costs_here(
    model: Model, evidence: Evidence, chosen: int
) -> None:
    own = calibrate(model.networks, evidence)
    assert len({point.share for point in own}) > len(own) / 2  # so that a wrong price is seen
    theirs = tuple(point.model_copy(update={"share": 0.1 + point.share / 2}) for point in own)
    first = ModelInfo(
        name="first",
        version="0",
        config=TINY_CONFIG,
        default_budget=default_budget([theirs[chosen]]),
        calibration=theirs,
        provenance={"num_calibration_clips": 7, "calibrated_on": "held-out groups"},
    )
    info = calibrated_as(model, evidence, first)
    assert info.default_budget == default_budget([own[chosen]]) != first.default_budget
    point = budgeted_point(info)
    assert point is not None
    assert point.share == own[chosen].share
    unbounded = calibrated_as(model, evidence, first.model_copy(update={"default_budget": None}))
    assert unbounded.default_budget is None
    assert budgeted_point(unbounded) is None


def test_a_calibrated_record_says_on_what_and_keeps_the_rest(model: Model, evidence: Evidence) -> None:
    before = model.info.model_copy(update={"provenance": {"licence": "ours"}})
    info = calibrated(Model(before, model.networks), evidence, on="ten patterns")
    assert info.provenance == {
        "licence": "ours",
        "num_calibration_clips": NUM_CLIPS,
        "calibrated_on": "ten patterns",
    }
    assert (info.name, info.config) == (before.name, before.config)
    assert info.default_budget == default_budget(info.calibration)
    assert len(info.exits) == len(EXIT_PRICES) * len(CONFIDENCES)
    assert ModelInfo.model_validate_json(info.model_dump_json()) == info


def _point(share: float, top1: float, lam: float = 0.0) -> CalibrationPoint:
    return CalibrationPoint(lam=lam, gmacs=share, share=share, top1=top1, width_shares=(1, 0, 0, 0, 0))


def test_the_default_budget_is_the_cheapest_that_is_as_good_as_the_trained_policy() -> None:
    points = [_point(0.9, 0.80), _point(0.6, 0.82), _point(0.4, 0.795), _point(0.2, 0.7)]
    assert default_budget(points) == 0.4
    assert default_budget(points, tolerance=0.2) == 0.2
    assert default_budget(points[:1]) == 0.9


@given(st.floats(0.0001, 1))
def test_the_default_budget_always_pays_for_the_point_that_it_was_taken_from(share: float) -> None:
    budget = default_budget([_point(share, 0.5)])
    assert budget is not None
    assert share <= budget <= share + 1.01e-4


def test_a_policy_that_costs_more_than_the_baseline_still_has_a_default_budget() -> None:
    assert Budget(share=default_budget([_point(1.0432, 0.5), _point(0.4, 0.1)])) == Budget(share=1)


def test_no_budget_is_the_default_where_even_the_cheapest_plan_costs_more_than_the_baseline() -> None:
    assert default_budget([_point(1.3, 0.5), _point(1.1, 0.5)]) is None


def test_the_default_point_is_the_one_that_the_default_budget_pays_for() -> None:
    points = [_point(0.9, 0.80), _point(0.6, 0.82), _point(0.4, 0.795), _point(0.2, 0.7)]
    assert default_point(points) == points[2]
    dear = [_point(1.0432, 0.5), _point(0.4, 0.1)]
    assert default_point(dear) == dear[0]
    assert default_point([_point(1.3, 0.5), _point(1.1, 0.5)]) is None


@pytest.mark.parametrize(
    ("num_right", "num_clips", "low", "high"),
    [(5, 10, 0.237, 0.763), (0, 10, 0.0, 0.278), (3, 3, 0.438, 1.0), (500, 1000, 0.469, 0.531)],
)
def test_the_fewer_clips_the_less_an_accuracy_says(
    num_right: int, num_clips: int, low: float, high: float
) -> None:
    interval = accuracy_interval(num_right / num_clips, num_clips)
    assert interval == pytest.approx((low, high), abs=1e-3)  # as tables of Wilson's interval have it


@given(st.integers(1, 500), st.floats(0, 1))
def test_an_accuracy_lies_in_its_interval(num_clips: int, share: float) -> None:
    top1 = round(share * num_clips) / num_clips
    low, high = accuracy_interval(top1, num_clips)
    assert 0 <= low <= top1 + 1e-12
    assert top1 - 1e-12 <= high <= 1
