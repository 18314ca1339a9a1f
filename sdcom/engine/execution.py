"""A batch of many videos' frames on a backend: brought, picked, computed, and handed back to each video.

Shapes: B videos, T frames of each in feeding order, N frames of any videos, H W pixels, C channels, D
features, K widths, L labels.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from sdcom.architecture import feature_channels
from sdcom.budget import WidthPlan
from sdcom.config import ModelConfig
from sdcom.engine.backend import Float32Array, Held, Parts, Picked, UInt8Array
from sdcom.engine.composed import Composed
from sdcom.engine.costs import Stage
from sdcom.engine.ledger import Ledger, Part
from sdcom.engine.queues import Batch

Answer = TypeVar("Answer")


class Timed(Protocol):
    """Calls the backend, wherever that has to happen."""

    def __call__(self, work: Callable[[], Answer]) -> tuple[Answer, float]:
        """Return what `work` returns, and the seconds that it took."""
        ...


@dataclass(slots=True)
class VideoWork:
    """What is known of one video in flight; frames are stored as they come, in batches side by side.

    Attributes:
        frames_THWC: its frames in feeding order.
        ledger: what it has cost so far.
        features_TD: static features.
        embeddings_TE: the gate's vectors.
        supplements_TD: dynamic features, zeros where the width is 0; empty before the plan.
        gate_logits_TK: the gate's answer; empty before DECIDE.
        held: its frames where the backend computes from them; None before `bring_to`.
        plan: the widths chosen; None before.
        logits_TL: the answer; empty before FUSE.
        stage_s: its share of the time of every batch that it was in.
        came_s: when it was admitted.
        begun_s: when its first frame went into a batch; None before.
    """

    frames_THWC: UInt8Array
    ledger: Ledger
    features_TD: Float32Array
    embeddings_TE: Float32Array
    supplements_TD: Float32Array
    gate_logits_TK: Float32Array
    logits_TL: Float32Array
    held: Held | None = None
    plan: WidthPlan | None = None
    stage_s: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(Part, 0.0))
    came_s: float = 0.0
    begun_s: float | None = None
    _bringing: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def begin(cls, frames_THWC: UInt8Array, ledger: Ledger, config: ModelConfig) -> Self:
        """Return a video of which nothing has been computed yet."""
        num_frames, nothing = len(frames_THWC), np.empty((0, 0), dtype=np.float32)
        features_TD = np.empty((num_frames, feature_channels(config.static)), dtype=np.float32)
        embeddings_TE = np.empty((num_frames, config.gate_features), dtype=np.float32)
        return cls(frames_THWC, ledger, features_TD, embeddings_TE, nothing, nothing, nothing)

    def bring_to(self, backend: Parts) -> None:
        """Take the frames to where the backend computes, once, however many batches in hand have some.

        Raises:
            Exception: whatever the backend raises.
        """
        with self._bringing:
            if self.held is None:
                self.held = backend.hold(self.frames_THWC)

    def enter_plan(self, plan: WidthPlan, config: ModelConfig) -> list[float]:
        """Take the plan made of the gate's logits; return the width of every frame.

        Raises:
            ValueError: the plan does not fit the video or the model.
        """
        num_frames, widths = len(self.frames_THWC), config.widths
        if len(plan.choices) != num_frames or not set(plan.choices) <= set(range(len(widths))):
            raise ValueError(
                f"a plan needs {num_frames} choices out of {len(widths)} widths, got {plan.choices}"
            )
        chosen = [widths[choice] for choice in plan.choices]
        self.plan = plan
        self.supplements_TD = np.zeros((num_frames, feature_channels(config.dynamic)), dtype=np.float32)
        self.ledger.lam = plan.lam
        self.ledger.width_counts.update(chosen)
        return chosen

    def composed(self) -> Composed:
        """Return the answer, once all stages ran."""
        assert self.plan is not None
        assert self.begun_s is not None
        queue_s = self.begun_s - self.came_s
        return Composed(self.logits_TL, self.plan, self.ledger, self.stage_s, queue_s)


class Execution:
    """Runs batches on a backend, one at a time.

    Args:
        backend: of the model.
        timed: calls it.
    """

    def __init__(self, backend: Parts, timed: Timed) -> None:
        self._backend = backend
        self._timed = timed

    def bring(self, videos: Sequence[VideoWork]) -> dict[int, Exception]:
        """Take the frames of videos that come for the first time to the backend.

        Returns:
            What the backend raised for single videos, by their positions in the sequence.
        """
        errors: dict[int, Exception] = {}
        for position, video in enumerate(videos):
            try:
                video.bring_to(self._backend)
            except Exception as exc:  # whatever it is, it is this video's
                errors[position] = exc
        return errors

    def run(self, batch: Batch, videos: Sequence[VideoWork]) -> float:
        """Compute a batch and store each video's part of it; return the backend's seconds.

        Args:
            batch: as the policy made it.
            videos: those of its shares, in their order, brought to the backend.

        Raises:
            ValueError: the backend returned rows of another number or size than the model's.
            Exception: whatever the backend raises; nothing is stored that a second run would not replace.
        """
        match batch.lane.stage:
            case Stage.LOOK:
                return self._look(batch, videos)
            case Stage.DECIDE:
                return self._decide(batch, videos)
            case Stage.FILL:
                return self._fill(batch, videos)
            case Stage.FUSE:
                return self._fuse(batch, videos)

    def _look(self, batch: Batch, videos: Sequence[VideoWork]) -> float:
        picked = _picked(batch, videos)
        looked, seconds = self._timed(lambda: self._backend.look_picked(picked))
        _hand_back(looked.features_ND, batch, [video.features_TD for video in videos])
        _hand_back(looked.embeddings_NE, batch, [video.embeddings_TE for video in videos])
        return seconds

    def _decide(self, batch: Batch, videos: Sequence[VideoWork]) -> float:
        """Decide whole videos from the start. Rounds would pass the state that the last one returned."""
        embeddings_BTE = _padded(np.stack([video.embeddings_TE for video in videos]), batch.size)
        (logits_BTK, _), seconds = self._timed(lambda: self._backend.decide(embeddings_BTE))
        for video, logits_TK in zip(videos, _checked(logits_BTK, batch), strict=False):
            video.gate_logits_TK = logits_TK
        return seconds

    def _fill(self, batch: Batch, videos: Sequence[VideoWork]) -> float:
        picked, width = _picked(batch, videos), batch.lane.width
        filled_ND, seconds = self._timed(lambda: self._backend.fill_picked(picked, width))
        _hand_back(filled_ND, batch, [video.supplements_TD for video in videos])
        return seconds

    def _fuse(self, batch: Batch, videos: Sequence[VideoWork]) -> float:
        features_BTD = _padded(np.stack([video.features_TD for video in videos]), batch.size)
        supplements_BTD = _padded(np.stack([video.supplements_TD for video in videos]), batch.size)
        logits_BTL, seconds = self._timed(lambda: self._backend.conclude(features_BTD, supplements_BTD))
        for video, logits_TL in zip(videos, _checked(logits_BTL, batch), strict=False):
            video.logits_TL = logits_TL.copy()  # not a view that keeps all of the batch
        return seconds


def _picked(batch: Batch, videos: Sequence[VideoWork]) -> Picked:
    shares = zip((video.held for video in videos), batch.shares, strict=True)
    return Picked([(held, share.positions) for held, share in shares], batch.size)


def _hand_back(rows_ND: Float32Array, batch: Batch, videos_TD: Sequence[Float32Array]) -> None:
    """Store a batch's rows where they belong in each of its videos."""
    start = 0
    for video_TD, share in zip(videos_TD, batch.shares, strict=True):
        end = start + len(share.positions)
        video_TD[list(share.positions)] = _checked(rows_ND, batch)[start:end]
        start = end


def _padded(rows_B: Float32Array, size: int) -> Float32Array:
    missing = size - len(rows_B)
    return np.pad(rows_B, ((0, missing), (0, 0), (0, 0))) if missing else rows_B


def _checked(rows: npt.NDArray[np.float32], batch: Batch) -> npt.NDArray[np.float32]:
    if len(rows) != batch.size:
        raise ValueError(f"the backend answered {len(rows)} rows of {batch.size} in {batch.lane}")
    return rows
