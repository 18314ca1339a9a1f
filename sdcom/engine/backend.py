"""What runs the networks: the seam between the composition and whatever computes it.

A backend works on arrays, one call at a time, and knows nothing of videos, budgets or queues.

Shapes: N frames of any videos, H W pixels, B videos, T frames of each in feeding order, D features, E
embedding, K widths, F fused features, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sdcom.checkpoint import ModelInfo
from sdcom.recognition import Provider

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Looked:
    """What the static network sees in N frames.

    Attributes:
        features_ND: its pooled features [N, Ds].
        embeddings_NE: the gate's embedding of each frame.
    """

    features_ND: Float32Array
    embeddings_NE: Float32Array


Held = object
"""A video's frames where a backend computes from them: its own business."""


@dataclass(frozen=True, slots=True)
class Picked:
    """Frames of several videos, for one batch.

    Attributes:
        shares: of each video, what `Parts.hold` returned, and the positions of frames in it.
        size: rows to compute, at least as many as there are frames; those beyond are padding.
    """

    shares: Sequence[tuple[Held, Sequence[int]]]
    size: int


class StreamFiller(Protocol):
    """The dynamic network on the frames of one stream."""

    def fill(self, frame_HWC: UInt8Array, width: float) -> Float32Array:
        """Return the features [Dd] of the stream's next frame, zeros at width 0."""


class Parts(Protocol):
    """Computes the parts of one model, one call at a time.

    Arrays given are not kept after the call: they are overwritten. Arrays returned are the caller's to keep.
    `sdcom.engine.on_host.OnHost` gives the functions that follow from the others.
    """

    def hold(self, frames_THWC: UInt8Array) -> Held:
        """Take a video's frames to where they are computed from; they are not changed meanwhile.

        For any thread: unlike the others, this may be called while another call runs.
        """

    def look_picked(self, picked: Picked) -> Looked:
        """Look at frames of several videos; return as many rows as the batch has, padding included."""

    def fill_picked(self, picked: Picked, width: float) -> Float32Array:
        """Fill frames of several videos at one width; return as many rows as the batch has."""

    def look(self, frames_NHWC: UInt8Array) -> Looked:
        """Run the static network and the gate's embedding on RGB crops."""

    def decide(
        self, embeddings_BTE: Float32Array, state_BH: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Run the gate over frames in feeding order.

        Args:
            embeddings_BTE: as `look` gave them.
            state_BH: what the call on the frames before returned; None at the start.

        Returns:
            Width logits [B, T, K], and the state after the last frame.
        """

    def fill(self, frames_NHWC: UInt8Array, width: float) -> Float32Array:
        """Run the dynamic network on RGB crops, at a width above 0; return features [N, Dd], zero-padded."""

    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        """Return each frame's fused features z [N, F], at least 0."""

    def classify(self, maxima_BTF: Float32Array) -> Float32Array:
        """Return the logits [B, T, L] after each of the first T frames, from running maxima of z."""

    def conclude(self, features_BTD: Float32Array, supplements_BTD: Float32Array) -> Float32Array:
        """Fuse and classify videos from their first frame on; return logits [B, T, L] after each frame."""


class Backend(Parts, Protocol):
    """Parts of a model that is known, streams and temporal shift included."""

    @property
    def info(self) -> ModelInfo:
        """The model."""

    @property
    def provider(self) -> Provider:
        """What really computes, as found after loading."""

    @property
    def buckets(self) -> tuple[int, ...]:
        """The only sizes of batches that it computes, ascending, whatever it is given; empty: any size."""

    def prepare_thread(self) -> None:
        """Make the calling thread fit for calls; once, before its first one."""

    def fill(self, frames_NHWC: UInt8Array, width: float, before_N: Int64Array | None = None) -> Float32Array:
        """Run the dynamic network.

        Args:
            frames_NHWC: RGB crops.
            width: above 0.
            before_N: for a model with temporal shift, the row of the frame before each in its video at this
                width; -1 where there is none.

        Returns:
            Features [N, Dd], zero-padded.
        """

    def classify(self, maxima_BTF: Float32Array, first: int = 0) -> Float32Array:
        """Return the logits after each frame.

        Args:
            maxima_BTF: running maxima of z.
            first: position in feeding order of the first of them.

        Returns:
            [B, T, L].
        """

    def open_stream(self) -> StreamFiller:
        """Return what fills a new stream's frames."""


class FrameByFrame:
    """The dynamic network on the frames of a stream, of a model that looks at each alone.

    Args:
        backend: of the model.
        num_features: Dd.
    """

    def __init__(self, backend: Backend, num_features: int) -> None:
        self._backend = backend
        self._num_features = num_features

    def fill(self, frame_HWC: UInt8Array, width: float) -> Float32Array:
        """Return the features [Dd] of the stream's next frame, zeros at width 0."""
        if width == 0:
            return np.zeros(self._num_features, dtype=np.float32)
        features_D: Float32Array = self._backend.fill(frame_HWC[None], width)[0]
        return features_D
