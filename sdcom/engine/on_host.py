"""Parts computed from the processor's memory: what follows from them for whole videos, and their room."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcom.architecture import feature_channels
from sdcom.config import ModelConfig
from sdcom.engine.backend import PATIENCE_S, Begun, Float32Array, Gathered, Held, Parts, Picked, UInt8Array


class OnHost(ABC):
    """A backend's function that follows from two others."""

    @abstractmethod
    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        """Return each frame's fused features [N, F]."""

    @abstractmethod
    def classify(self, maxima_BTF: Float32Array) -> Float32Array:
        """Return the logits [B, T, L] after each frame."""

    def conclude(self, features_BTD: Float32Array, supplements_BTD: Float32Array) -> Float32Array:
        """Fuse and classify videos from their first frame on; return logits [B, T, L] after each frame."""
        rows_ND, supplements_ND = (
            rows.reshape(-1, rows.shape[-1]) for rows in (features_BTD, supplements_BTD)
        )
        z_BTF = self.fuse(rows_ND, supplements_ND).reshape(*features_BTD.shape[:2], -1)
        return self.classify(np.maximum.accumulate(z_BTF, axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class _Video:
    """A video in the room: its frames, their static features, the gate's vectors, dynamic features."""

    frames_THWC: UInt8Array
    features_TD: Float32Array
    embeddings_TE: Float32Array
    supplements_TD: Float32Array


class HostRoom:
    """Room for any number of videos, in the processor's memory. A batch has ended when it has begun.

    Args:
        parts: what computes.
        config: of their model.
    """

    runs_ahead = False

    def __init__(self, parts: Parts, config: ModelConfig) -> None:
        self._parts = parts
        self._sizes = (
            feature_channels(config.static),
            config.gate_features,
            feature_channels(config.dynamic),
        )
        self._staging_NHWC: UInt8Array = np.empty((0, 0, 0, 0), dtype=np.uint8)

    def hold(self, frames_THWC: UInt8Array, patience_s: float = PATIENCE_S) -> Held:  # noqa: ARG002 - it is never full
        """Take a video in; its frames stay where they are."""
        rows = (np.zeros((len(frames_THWC), size), dtype=np.float32) for size in self._sizes)
        return _Video(frames_THWC, *rows)

    def release(self, held: Held) -> None:
        """Nothing: its memory is freed with the last that refers to it."""

    def look(self, picked: Picked) -> Begun[None]:
        """Look at frames of several videos.

        Raises:
            ValueError: another number or size of rows came back than the model's; as all functions do.
        """
        looked = self._parts.look(self._frames(picked))
        _hand_back(looked.features_ND, picked, lambda video: video.features_TD)
        _hand_back(looked.embeddings_NE, picked, lambda video: video.embeddings_TE)
        return _no_more

    def decide(self, gathered: Gathered) -> Begun[Float32Array]:
        """Run the gate over videos."""
        embeddings_BTE = _stacked([_video(held).embeddings_TE for held in gathered.videos], gathered.size)
        logits_BTK = _checked(self._parts.decide(embeddings_BTE)[0], gathered.size)
        return lambda: logits_BTK

    def fill(self, picked: Picked, width: float) -> Begun[None]:
        """Fill frames of several videos at one width."""
        filled_ND = self._parts.fill(self._frames(picked), width)
        _hand_back(filled_ND, picked, lambda video: video.supplements_TD)
        return _no_more

    def conclude(self, gathered: Gathered) -> Begun[Float32Array]:
        """Fuse and classify videos."""
        videos = [_video(held) for held in gathered.videos]
        features_BTD = _stacked([video.features_TD for video in videos], gathered.size)
        supplements_BTD = _stacked([video.supplements_TD for video in videos], gathered.size)
        logits_BTL = _checked(self._parts.conclude(features_BTD, supplements_BTD), gathered.size)
        return lambda: logits_BTL

    def _frames(self, picked: Picked) -> UInt8Array:
        """Return a batch's frames [size, H, W, C]: a view where it is a run of one video's frames.

        Copies go into an array that the next batch uses again: fresh memory costs more than the copy.
        """
        size, videos = picked.size, _videos(picked)
        first = picked.shares[0][1]
        is_run = len(videos) == 1 and first[-1] - first[0] + 1 == len(first) == size
        if is_run:
            return videos[0].frames_THWC[first[0] : first[-1] + 1]
        frame_shape = videos[0].frames_THWC.shape[1:]
        if len(self._staging_NHWC) < size or self._staging_NHWC.shape[1:] != frame_shape:
            self._staging_NHWC = np.empty((size, *frame_shape), dtype=np.uint8)
        start = 0
        for video, (_, positions) in zip(videos, picked.shares, strict=True):
            end = start + len(positions)
            np.take(video.frames_THWC, positions, axis=0, out=self._staging_NHWC[start:end], mode="clip")
            start = end
        self._staging_NHWC[start:size] = 0
        return self._staging_NHWC[:size]


def _no_more() -> None:
    """Nothing is left to wait for."""


def _video(held: Held) -> _Video:
    assert isinstance(held, _Video), "held in another room"
    return held


def _videos(picked: Picked) -> list[_Video]:
    return [_video(held) for held, _ in picked.shares]


def _hand_back(rows_ND: Float32Array, picked: Picked, rows_of: Callable[[_Video], Float32Array]) -> None:
    """Store a batch's rows where they belong in each of its videos."""
    _checked(rows_ND, picked.size)
    start = 0
    for held, positions in picked.shares:
        end = start + len(positions)
        rows_of(_video(held))[list(positions)] = rows_ND[start:end]
        start = end
    for held, pairs in picked.repeats:
        rows_TD = rows_of(_video(held))
        for first, again in pairs:
            rows_TD[again] = rows_TD[first]


def _stacked(videos_TD: Sequence[Float32Array], size: int) -> Float32Array:
    rows_BTD = np.stack(videos_TD)
    missing = size - len(rows_BTD)
    return np.pad(rows_BTD, ((0, missing), (0, 0), (0, 0))) if missing else rows_BTD


def _checked(rows: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    if len(rows) != size:
        raise ValueError(f"the backend answered {len(rows)} rows of {size}")
    return rows
