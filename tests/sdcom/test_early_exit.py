"""Early exit: the first frames of the whole composition, and no more than are needed."""

import numpy as np
import pytest

from sdcom.budget import Allowance, Currency, choose_widths
from sdcom.engine.composition import compose_video
from sdcom.engine.early_exit import compose_until_confident
from sdcom.engine.ledger import Part
from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import Model
from sdcom.recognition import softmax
from tests.conftest import TINY_CONFIG
from tests.sdcom.conftest import patterned_frames

T = TINY_CONFIG.clip.num_frames


@pytest.mark.parametrize("lam", [0.0, 0.5, 3.0])
def test_a_video_that_is_never_sure_is_the_whole_composition(tiny_model: Model, lam: float) -> None:
    backend, macs_K = TorchBackend(tiny_model), tiny_model.info.macs.dynamic_by_choice
    for seed in range(4):
        frames_THWC = patterned_frames(T, seed)
        whole = compose_video(backend, frames_THWC, lambda logits: choose_widths(logits, macs_K, lam))
        fed = compose_until_confident(backend, frames_THWC, confidence=1.0, lam=lam)
        assert (fed.plan, fed.ledger) == (whole.plan, whole.ledger)
        np.testing.assert_allclose(fed.logits_TL, whole.logits_TL, rtol=0, atol=1e-5)


def test_it_ends_at_the_first_frame_that_is_sure_enough_and_pays_for_no_more(tiny_model: Model) -> None:
    backend, macs = TorchBackend(tiny_model), tiny_model.info.macs
    lengths = set()
    for seed in range(12):
        frames_THWC = patterned_frames(T, seed)
        whole = compose_until_confident(backend, frames_THWC, confidence=1.0)
        scores_T = softmax(whole.logits_TL).max(axis=-1)
        for confidence in (0.0, *scores_T.tolist()):
            fed = compose_until_confident(backend, frames_THWC, confidence=confidence)
            num_fed = int(np.argmax(scores_T >= confidence)) + 1
            lengths.add(num_fed)
            assert fed.plan.choices == whole.plan.choices[:num_fed]
            np.testing.assert_array_equal(fed.logits_TL, whole.logits_TL[:num_fed])
            widths = list(fed.ledger.width_counts.elements())
            assert fed.ledger.total_macs == macs.total(widths)
            assert fed.ledger.baseline_macs == macs.baseline(T)
    assert len(lengths) > 1, "one length alone shows little"


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_a_budget_is_never_exceeded(tiny_model: Model, share: float) -> None:
    backend, macs = TorchBackend(tiny_model), tiny_model.info.macs
    for seed in range(6):
        frames_THWC = patterned_frames(T, seed)
        free = compose_until_confident(backend, frames_THWC, confidence=1.0)
        left = int(share * free.ledger.macs[Part.DYNAMIC])
        allowance = Allowance(Currency.of_macs(macs.dynamic_by_choice), left)
        fed = compose_until_confident(backend, frames_THWC, confidence=1.0, allowance=allowance)
        assert fed.ledger.total_macs <= macs.floor(T) + left
        if share == 1.0:
            assert fed.plan == free.plan
