"""Evidence: what is looked up is what serving computes."""

import numpy as np
import pytest
import torch

from sdcom.budget import WidthPlan, fit_widths
from sdcom.checkpoint import ModelInfo
from sdcom.config import ModelConfig
from sdcom.engine.reference import compose
from sdcom.model import Model
from sdcom.models.composition import SDCOM
from sdcom.preprocess import normalize
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import TensorStore, patterned_store
from training import evidence as gathering
from training.batches import evaluation_clip
from training.evidence import Evidence, fitted_choices, gather_evidence, joined, planned_logits

NUM_CLIPS = 10
CLOSE = 1e-4  # a batch of another size is summed in another order


@pytest.fixture(scope="module")
def networks() -> SDCOM:
    return lively_networks(TINY_CONFIG)


@pytest.fixture(scope="module")
def store() -> TensorStore:
    return patterned_store(NUM_CLIPS)


@pytest.fixture(scope="module")
def evidence(networks: SDCOM, store: TensorStore) -> Evidence:
    return gather_evidence(networks, store)


@pytest.mark.parametrize("share_of_dynamic", [0.0, 0.3, 1.0])
def test_looked_up_answers_are_those_that_serving_computes(
    networks: SDCOM, store: TensorStore, evidence: Evidence, share_of_dynamic: float
) -> None:
    model = Model(ModelInfo(name="tiny", version="0", config=TINY_CONFIG), networks)
    macs_K = model.info.macs.dynamic_by_choice
    allowed = int(share_of_dynamic * 4 * macs_K[-1])
    choices_BT = fitted_choices(evidence, macs_K, allowed)
    logits_BTL = planned_logits(networks, evidence, choices_BT)
    for clip_index in range(NUM_CLIPS):
        frames_THWC = evaluation_clip(store, clip_index, TINY_CONFIG.clip).numpy()
        composed = compose(model, frames_THWC, lambda logits_TK: fit_widths(logits_TK, macs_K, allowed))
        assert composed.plan.choices == tuple(choices_BT[clip_index])
        np.testing.assert_allclose(logits_BTL[clip_index].numpy(), composed.logits_TL, rtol=0, atol=CLOSE)


def test_the_two_networks_own_answers_are_kept_frame_by_frame(
    networks: SDCOM, store: TensorStore, evidence: Evidence
) -> None:
    frames_NCHW = normalize(evaluation_clip(store, 3, TINY_CONFIG.clip), TINY_CONFIG.clip)
    with torch.inference_mode():
        full_TL = networks.dynamic(frames_NCHW, 1.0)
        static_TL = networks.static.classify(networks.look(frames_NCHW).features_ND)
    torch.testing.assert_close(evidence.dynamic_logits_KBTL[-1, 3], full_TL, rtol=CLOSE, atol=CLOSE)
    torch.testing.assert_close(evidence.static_logits_BTL[3], static_TL, rtol=CLOSE, atol=CLOSE)
    assert evidence.labels == tuple(clip.labels for clip in store.clips)


def test_batches_of_any_size_gather_the_same(
    networks: SDCOM, store: TensorStore, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gathering.FRAMES_AT_ONCE, "cpu", 12)  # three clips at once, the last alone
    monkeypatch.setattr(gathering, "LOOKED_UP_AT_ONCE", 3)
    again = gather_evidence(networks, store)
    torch.testing.assert_close(again.projected, evidence.projected, rtol=CLOSE, atol=CLOSE)
    torch.testing.assert_close(
        again.dynamic_logits_KBTL, evidence.dynamic_logits_KBTL, rtol=CLOSE, atol=CLOSE
    )
    np.testing.assert_allclose(again.gate_logits_BTK, evidence.gate_logits_BTK, rtol=CLOSE, atol=CLOSE)
    choices_BT = np.arange(NUM_CLIPS * 4).reshape(NUM_CLIPS, 4) % 5
    torch.testing.assert_close(
        planned_logits(networks, again, choices_BT),
        planned_logits(networks, evidence, choices_BT),
        rtol=1e-4,
        atol=1e-5,
    )


def test_no_clips_are_no_evidence() -> None:
    with pytest.raises(ValueError, match="no clip was given"):
        joined([])


def test_with_temporal_shift_a_plan_is_run_as_serving_runs_it(store: TensorStore) -> None:
    clip = TINY_CONFIG.clip.model_copy(update={"order": "time"})
    shifting = {"clip": clip, "dynamic": "resnet18", "temporal_shift": True}
    config = ModelConfig.model_validate(TINY_CONFIG.model_dump() | shifting)
    torch.manual_seed(0)
    model = Model(ModelInfo(name="tiny", version="0", config=config), SDCOM(config).eval())
    evidence = gather_evidence(model.networks, store)
    choices_BT = np.random.default_rng(0).integers(0, 5, (NUM_CLIPS, 4))
    logits_BTL = planned_logits(model.networks, evidence, choices_BT)
    for clip_index, choices_T in enumerate(choices_BT.tolist()):
        frames_THWC = evaluation_clip(store, clip_index, config.clip).numpy()
        plan = WidthPlan(tuple(choices_T), 0.0, 0)
        composed = compose(model, frames_THWC, lambda _, plan=plan: plan)  # type: ignore[misc]
        np.testing.assert_allclose(logits_BTL[clip_index].numpy(), composed.logits_TL, rtol=0, atol=CLOSE)
    full_width = planned_logits(model.networks, evidence, np.full_like(choices_BT, 4))
    assert (full_width - logits_BTL).abs().max() > 10 * CLOSE
    assert not evidence.dynamic_logits_KBTL[0].any()
