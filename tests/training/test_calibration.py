"""Calibration: looked-up plans are what serving computes, and a price buys less compute."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdcom.budget import choose_widths, fit_widths
from sdcom.checkpoint import CalibrationPoint, Model, ModelInfo
from sdcom.engine.reference import compose
from sdcom.models.composition import SDCOM
from sdcom.preprocess import normalize
from sdcom.recognition import Budget
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import TensorStore, patterned_store
from training.batches import evaluation_clip
from training.calibration import (
    PRICES,
    Evidence,
    calibrate,
    default_budget,
    gather_evidence,
    planned_logits,
)

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
def evidence(networks: SDCOM, store: TensorStore) -> list[Evidence]:
    return list(gather_evidence(networks, store))


@pytest.mark.parametrize("share_of_dynamic", [0.0, 0.3, 1.0])
def test_looked_up_answers_are_those_that_serving_computes(
    model: Model, store: TensorStore, evidence: list[Evidence], share_of_dynamic: float
) -> None:
    macs_K = model.info.macs.dynamic_by_choice
    allowed = int(share_of_dynamic * 4 * macs_K[-1])
    for clip_index, clip in enumerate(evidence):
        frames_THWC = evaluation_clip(store, clip_index, TINY_CONFIG.clip).numpy()
        composed = compose(model, frames_THWC, lambda logits_TK: fit_widths(logits_TK, macs_K, allowed))
        plan = fit_widths(clip.gate_logits_TK, macs_K, allowed)
        assert plan.choices == composed.plan.choices
        logits_L = planned_logits(model.networks, clip, plan)
        np.testing.assert_allclose(logits_L.numpy(), composed.logits_TL[-1], rtol=0, atol=1e-5)


def test_evidence_keeps_the_two_networks_own_answers(
    networks: SDCOM, store: TensorStore, evidence: list[Evidence]
) -> None:
    frames_NCHW = normalize(evaluation_clip(store, 0, TINY_CONFIG.clip), TINY_CONFIG.clip)
    with torch.inference_mode():
        full_L = networks.dynamic(frames_NCHW, 1.0).mean(dim=0)
        static_L = networks.static.classify(networks.look(frames_NCHW).features_ND).mean(dim=0)
    torch.testing.assert_close(evidence[0].full_width_logits_L, full_L, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(evidence[0].static_logits_L, static_L, rtol=1e-4, atol=1e-5)
    assert [clip.label for clip in evidence] == [clip.label for clip in store.clips]


def test_cost_falls_as_the_price_rises_from_the_trained_policy_to_the_floor(
    model: Model, evidence: list[Evidence]
) -> None:
    points = calibrate(model.networks, evidence)
    assert [point.lam for point in points] == sorted(PRICES)
    gmacs = [point.gmacs for point in points]
    assert gmacs == sorted(gmacs, reverse=True)
    macs = model.info.macs
    policy = [choose_widths(clip.gate_logits_TK, macs.dynamic_by_choice, 0.0).macs for clip in evidence]
    assert gmacs[0] == pytest.approx((macs.floor(4) + np.mean(policy)) / 1e9)
    assert gmacs[-1] == pytest.approx(macs.floor(4) / 1e9)
    assert gmacs[0] > gmacs[-1]


def test_a_point_says_its_accuracy_share_and_widths(model: Model, evidence: list[Evidence]) -> None:
    for point in calibrate(model.networks, evidence, prices=(0.0, 2.0)):
        macs = model.info.macs
        assert point.share == pytest.approx(point.gmacs * 1e9 / macs.baseline(4))
        assert sum(point.width_shares) == pytest.approx(1)
        mean_dynamic = sum(
            4 * share * cost for share, cost in zip(point.width_shares, macs.dynamic_by_choice, strict=True)
        )
        assert point.gmacs == pytest.approx((macs.floor(4) + mean_dynamic) / 1e9)
        plans = [choose_widths(clip.gate_logits_TK, macs.dynamic_by_choice, point.lam) for clip in evidence]
        right = [
            int(planned_logits(model.networks, clip, plan).argmax()) == clip.label
            for clip, plan in zip(evidence, plans, strict=True)
        ]
        assert point.top1 == pytest.approx(sum(right) / NUM_CLIPS)


def _point(share: float, top1: float, lam: float = 0.0) -> CalibrationPoint:
    return CalibrationPoint(lam=lam, gmacs=share, share=share, top1=top1, width_shares=(1, 0, 0, 0, 0))


def test_the_default_budget_is_the_cheapest_that_is_as_good_as_the_trained_policy() -> None:
    points = [_point(0.9, 0.80), _point(0.6, 0.82), _point(0.4, 0.795), _point(0.2, 0.7)]
    assert default_budget(points) == 0.4
    assert default_budget(points, tolerance=0.2) == 0.2
    assert default_budget(points[:1]) == 0.9


@given(st.floats(0.0001, 1))
def test_the_default_budget_always_pays_for_the_point_that_it_was_taken_from(share: float) -> None:
    assert share <= default_budget([_point(share, 0.5)]) <= share + 1.01e-4


def test_a_policy_that_costs_more_than_the_baseline_still_has_a_default_budget() -> None:
    assert Budget(share=default_budget([_point(1.0432, 0.5)])) == Budget(share=1)
