"""Batched with others, real networks say of each video what the reference composition says of it alone."""

import subprocess
import sys

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcom.budget import choose_widths
from sdcom.checkpoint import Model
from sdcom.engine.backend import Float32Array, Looked, UInt8Array
from sdcom.engine.composed import Planner
from sdcom.engine.limits import Limits
from sdcom.engine.reference import compose
from sdcom.engine.scheduler import Scheduler
from sdcom.preprocess import normalize
from tests.conftest import REPOSITORY, TINY_CONFIG
from tests.sdcom.conftest import always, patterned_frames

T, K = TINY_CONFIG.clip.num_frames, TINY_CONFIG.num_widths


class TorchParts:
    """The tiny model's parts behind the protocol, in the plainest way."""

    def __init__(self, model: Model) -> None:
        self._networks, self._clip = model.networks, model.info.config.clip

    @torch.inference_mode()
    def look(self, frames_NHWC: UInt8Array) -> Looked:
        view = self._networks.look(normalize(torch.from_numpy(frames_NHWC), self._clip))
        return Looked(view.features_ND.numpy(), self._networks.gate.embed(view.map_NCHW).numpy())

    @torch.inference_mode()
    def decide(
        self, embeddings_BTE: Float32Array, state_BH: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        state = None if state_BH is None else torch.from_numpy(state_BH)[None]
        logits_BTK, state = self._networks.gate.decide(torch.from_numpy(embeddings_BTE), state)
        return logits_BTK.numpy(), state[0].numpy()

    @torch.inference_mode()
    def fill(self, frames_NHWC: UInt8Array, width: float) -> Float32Array:
        return self._networks.fill(normalize(torch.from_numpy(frames_NHWC), self._clip), width).numpy()

    @torch.inference_mode()
    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        parts = torch.from_numpy(features_ND), torch.from_numpy(supplements_ND)
        return self._networks.fusion.project(*parts).numpy()

    @torch.inference_mode()
    def classify(self, maxima_BTF: Float32Array) -> Float32Array:
        return self._networks.fusion.classify(torch.from_numpy(maxima_BTF)).numpy()


choices = st.lists(st.integers(0, K - 1), min_size=T, max_size=T)
prices = st.sampled_from([0.0, 0.3, 2.0])


@settings(deadline=None, max_examples=12)
@given(
    st.lists(choices | prices, min_size=1, max_size=6),
    st.integers(1, 2 * T + 1),
    st.sampled_from([(), (3, 8)]),
)
def test_whatever_is_in_flight_with_it_a_video_gets_the_references_answer_and_ledger(
    tiny_model: Model, wishes: list[list[int] | float], max_batch_frames: int, buckets: tuple[int, ...]
) -> None:
    limits = Limits(max_batch_frames=max_batch_frames, max_batch_videos=3, buckets=buckets)
    planners = [_planner(tiny_model, wish) for wish in wishes]
    clips = [patterned_frames(T, seed) for seed in range(len(wishes))]
    with Scheduler(TorchParts(tiny_model), tiny_model.info.config, limits) as scheduler:
        futures = [scheduler.submit(*video) for video in zip(clips, planners, strict=True)]
        answers = [future.result(60) for future in futures]
    for clip, planner, answer in zip(clips, planners, answers, strict=True):
        expected = compose(tiny_model, clip, planner)
        np.testing.assert_allclose(answer.logits_TL, expected.logits_TL, rtol=1e-4, atol=1e-5)
        assert answer.plan == expected.plan
        assert answer.ledger == expected.ledger
        assert list(answer.stage_s) == list(expected.stage_s)


def _planner(model: Model, wish: list[int] | float) -> Planner:
    if isinstance(wish, list):
        return always(model, wish)
    return lambda logits_TK: choose_widths(logits_TK, model.info.macs.dynamic_by_choice, wish)


def test_the_scheduler_and_its_simulation_load_no_torch() -> None:
    program = (
        "import sys, sdcom.engine.scheduler, sdcom.engine.simulate, sdcom.engine.measure;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
