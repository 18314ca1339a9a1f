"""What runs the networks: the seam between the composition and whatever computes it.

A backend works on arrays, one call at a time, and knows nothing of videos, budgets or queues.

Shapes: N frames of any videos, H W pixels, B videos, T frames of each in feeding order, D features, E
embedding, K widths, F fused features, L labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

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


PATIENCE_S = 30.0
"""How long a newcomer waits by default for videos that were given up and are still being computed."""

Held = object
"""A video in a room: its frames, and what the parts made of them. The room's own business."""


@dataclass(frozen=True, slots=True)
class Picked:
    """Frames of several videos, for one batch.

    Attributes:
        shares: of each video, what `Room.hold` returned, and the positions of frames in it.
        size: rows to compute, at least as many as there are frames; those beyond are padding.
        repeats: of videos among them, pairs of positions: what comes of the first is the second's, too.
    """

    shares: Sequence[tuple[Held, Sequence[int]]]
    size: int
    repeats: Sequence[tuple[Held, Sequence[tuple[int, int]]]] = ()


@dataclass(frozen=True, slots=True)
class Gathered:
    """Whole videos of one length, for one batch.

    Attributes:
        videos: what `Room.hold` returned for each.
        num_frames: that each has.
        size: rows to compute, at least as many as there are videos; those beyond are padding.
    """

    videos: Sequence[Held]
    num_frames: int
    size: int


P = ParamSpec("P")
Answer = TypeVar("Answer")

Begun = Callable[[], Answer]
"""A batch that has begun: waits for its end, on any thread, and returns what came of it. Call it once."""


def to_the_end(begin: Callable[P, Begun[Answer]], *args: P.args, **options: P.kwargs) -> Answer:
    """Begin a batch, wait for its end, and return what came of it."""
    return begin(*args, **options)()


class Room(Protocol):
    """Videos where a backend computes: their frames, and what its parts make of each.

    Batches of any videos' frames are computed from here, and what comes of them is kept here for the next
    part: only decisions and answers leave. One batch is begun at a time, and may be before another has
    ended; each finds what those begun before it leave behind. A batch that is run again replaces what it
    left. `hold` and `release` are for any thread, also while another call runs.
    """

    @property
    def runs_ahead(self) -> bool:
        """Whether a batch that has begun is computed while whoever began it goes on."""

    def hold(self, frames_THWC: UInt8Array, patience_s: float = PATIENCE_S) -> Held:
        """Take a video in: its RGB crops in feeding order, at most T; they are not changed meanwhile.

        Args:
            frames_THWC: those.
            patience_s: how long to wait in a full room for a video that leaves.

        Raises:
            OverloadedError: none left.
        """

    def release(self, held: Held) -> None:
        """Let a video leave, once, when no batch with frames of it is running or will run."""

    def look(self, picked: Picked) -> Begun[None]:
        """Look at frames of several videos."""

    def decide(self, gathered: Gathered) -> Begun[Float32Array]:
        """Run the gate over videos that were looked at; the end returns width logits [B, T, K] of each."""

    def fill(self, picked: Picked, width: float) -> Begun[None]:
        """Fill frames of several videos at one width above 0. Frames that never are have width 0."""

    def conclude(self, gathered: Gathered) -> Begun[Float32Array]:
        """Fuse and classify videos that are filled; the end returns logits [B, T, L] of each."""


class StreamFiller(Protocol):
    """The dynamic network on the frames of one stream."""

    def fill(self, frame_HWC: UInt8Array, width: float) -> Float32Array:
        """Return the features [Dd] of the stream's next frame, zeros at width 0."""


class Parts(Protocol):
    """Computes the parts of one model, one call at a time.

    Arrays given are not kept after the call: they are overwritten. Arrays returned are the caller's to keep.
    `sdcom.engine.on_host.OnHost` gives the functions that follow from the others.
    """

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

    def open_room(self, num_videos: int, /) -> Room:
        """Return room for so many videos at once; to `fill` there, frames must not read one another.

        Its memory is the backend's for as long as that lives: open one, and use it again.
        """


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
