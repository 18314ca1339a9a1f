"""What a peer hosts: networks that answer clips, in one worker.

The composition and the full-width network run in the same ONNX Runtime sessions that `sdcom serve` uses.
Batches are taken clip by clip: on a processor a clip's frames are a batch already, and larger ones take no
less time a frame.

Shapes: T frames, H W pixels, D features, L labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np

from sdcom.checkpoint import load_weights
from sdcom.engine.backend import Backend, Float32Array, UInt8Array
from sdcom.engine.composition import compose_video
from sdcom.engine.loading import load_backend
from sdcom.engine.planning import video_planner
from sdcom.recognition import Budget, top_predictions
from sdcom.sampling import feeding_order
from service.bench.decord_frames import decode_with_decord

Network = Literal["composition", "full-width"]
"""The whole of SDCOM, or its dynamic network alone, at full width on every frame."""


class Answer(TypedDict):
    """What a peer says of a video: as much as `sdcom serve`'s answers have in common with it."""

    label: str
    score: float
    compute: dict[str, float]


Answers = Callable[[Sequence[bytes]], list[Answer]]


@dataclass(frozen=True, slots=True)
class Hosting:
    """How a peer hosts a model.

    Attributes:
        model_dir: of the model.
        network: what answers.
        budget: share of the baseline's FLOPs that the composition may cost; None is the model's default.
        port: on 127.0.0.1.
        num_workers: processes that decode and compute, one thread each.
        max_batch: videos in a batch.
        batch_wait_s: how long a batch waits for its next video.
    """

    model_dir: Path
    network: Network
    port: int
    num_workers: int
    budget: float | None = None
    max_batch: int = 4
    batch_wait_s: float = 0.01

    def load(self) -> Answers:
        """Load the networks into this process; return what answers a batch of videos, given as bytes."""
        backend = load_backend(self.model_dir, engine="onnx", device="cpu", num_threads=1)
        backend.prepare_thread()
        budget = None if self.budget is None else Budget(share=self.budget)
        one = (
            composition(backend, budget)
            if self.network == "composition"
            else full_width(backend, self.model_dir)
        )
        clip = backend.info.config.clip
        return lambda videos: [one(decode_with_decord(video, clip)) for video in videos]


def composition(backend: Backend, budget: Budget | None) -> Callable[[UInt8Array], Answer]:
    """Return what answers a clip [T, H, W, 3], in order of time, by the whole of SDCOM within a budget."""
    config = backend.info.config
    order_T = feeding_order(config.clip.num_frames, config.clip.order)
    planner = video_planner(backend.info, budget)

    def answer(frames_THWC: UInt8Array) -> Answer:
        composed = compose_video(backend, frames_THWC[order_T], planner)
        return _answer(composed.logits_TL[-1], config.labels, saved=composed.ledger.saved)

    return answer


def full_width(backend: Backend, model_dir: Path) -> Callable[[UInt8Array], Answer]:
    """Return what answers a clip [T, H, W, 3] by the dynamic network at full width, logits averaged (TSN)."""
    config = backend.info.config
    weights = load_weights(model_dir, backend.info)
    head = "dynamic.classifier.1" if "dynamic.classifier.1.weight" in weights else "dynamic.fc"
    weight_LD = weights[f"{head}.weight"].astype(np.float32)
    bias_L = weights[f"{head}.bias"].astype(np.float32)

    def answer(frames_THWC: UInt8Array) -> Answer:
        features_D: Float32Array = backend.fill(frames_THWC, 1.0).mean(axis=0)
        return _answer(weight_LD @ features_D + bias_L, config.labels, saved=0.0)

    return answer


def _answer(logits_L: Float32Array, labels: Sequence[str], *, saved: float) -> Answer:
    best = top_predictions(logits_L, labels, 1)[0]
    return Answer(label=best.label, score=best.score, compute={"saved": saved})
