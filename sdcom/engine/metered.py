"""The one place where executed work is counted: at the backend, call by call, whoever asked and why.

So padding, batches that failed, videos that were given up half way and videos that were answered are all in
the same sums. A ledger says what one video's answer cost; this says what ran.

Shapes: as in `sdcom.engine.backend`.
"""

import threading
from collections import Counter

from sdcom.engine.backend import (
    PATIENCE_S,
    Backend,
    Begun,
    Float32Array,
    Gathered,
    Held,
    Int64Array,
    Looked,
    Picked,
    Room,
    StreamFiller,
    UInt8Array,
)
from sdcom.engine.ledger import Part


class Metered:
    """A backend that counts the MACs of every call; one that raises counts as if it had run to its end.

    Where the backend computes only batches of some sizes (`Backend.buckets`), the rows that it adds to reach
    one of them are counted as well.

    Args:
        backend: that computes.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._macs = backend.info.macs
        self._lock = threading.Lock()  # the threads that run the networks, and those that read the sums
        self._executed: Counter[Part] = Counter(dict.fromkeys(Part, 0))
        self.info = backend.info
        self.provider = backend.provider
        self.buckets = backend.buckets

    def executed(self) -> Counter[Part]:
        """Return the MACs executed so far, by part. For any thread."""
        with self._lock:
            return Counter(self._executed)

    def count_look(self, num_frames: int) -> None:
        """Count frames that the static network and the gate's embedding see."""
        num_computed = self._num_computed(num_frames)
        self._add(Part.STATIC, num_computed * self._macs.static)
        self._add(Part.GATE, num_computed * self._macs.gate_embedding)

    def count_decide(self, num_videos: int, num_frames: int) -> None:
        """Count videos, of so many frames each, that the gate decides."""
        self._add(Part.GATE, self._num_computed(num_videos) * num_frames * self._macs.gate_step)

    def count_fill(self, num_frames: int, width: float) -> None:
        """Count frames that run through the dynamic network at a width."""
        self._add(Part.DYNAMIC, self._num_computed(num_frames) * self._macs.dynamic[width])

    def count_conclude(self, num_videos: int, num_frames: int) -> None:
        """Count videos, of so many frames each, that are fused and classified."""
        self._add(Part.FUSION, self._num_computed(num_videos) * num_frames * self._macs.fusion)

    def prepare_thread(self) -> None:
        """Make the calling thread fit for calls."""
        self._backend.prepare_thread()

    def look(self, frames_NHWC: UInt8Array) -> Looked:
        """Run the static network and the gate's embedding."""
        self.count_look(len(frames_NHWC))
        return self._backend.look(frames_NHWC)

    def decide(
        self, embeddings_BTE: Float32Array, state_BH: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Run the gate."""
        num_videos, num_frames, _ = embeddings_BTE.shape
        self.count_decide(num_videos, num_frames)
        return self._backend.decide(embeddings_BTE, state_BH)

    def fill(self, frames_NHWC: UInt8Array, width: float, before_N: Int64Array | None = None) -> Float32Array:
        """Run the dynamic network."""
        self.count_fill(len(frames_NHWC), width)
        return self._backend.fill(frames_NHWC, width, before_N)

    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        """Fuse frames; the classifiers that read them afterwards are counted with it."""
        self._add(Part.FUSION, len(features_ND) * self._macs.fusion)
        return self._backend.fuse(features_ND, supplements_ND)

    def classify(self, maxima_BTF: Float32Array, first: int = 0) -> Float32Array:
        """Classify after each frame."""
        return self._backend.classify(maxima_BTF, first)

    def conclude(self, features_BTD: Float32Array, supplements_BTD: Float32Array) -> Float32Array:
        """Fuse and classify whole videos."""
        num_videos, num_frames, _ = features_BTD.shape
        self.count_conclude(num_videos, num_frames)
        return self._backend.conclude(features_BTD, supplements_BTD)

    def open_stream(self) -> StreamFiller:
        """Return what fills a new stream's frames, and counts them."""
        return _MeteredFiller(self, self._backend.open_stream())

    def open_room(self, num_videos: int, /) -> Room:
        """Return room for so many videos at once, and count what is computed there."""
        return self.meter(self._backend.open_room(num_videos))

    def meter(self, room: Room) -> Room:
        """Return the backend's own room, and count what is computed there from now on."""
        return _MeteredRoom(self, room)

    def _num_computed(self, num_rows: int) -> int:
        """Return the rows of the batches that the backend makes of so many."""
        if not self.buckets:
            return num_rows
        num_whole, rest = divmod(num_rows, self.buckets[-1])
        padded = next(size for size in self.buckets if size >= rest) if rest else 0
        return num_whole * self.buckets[-1] + padded

    def _add(self, part: Part, macs: int) -> None:
        with self._lock:
            self._executed[part] += macs


class _MeteredFiller:
    def __init__(self, metered: Metered, filler: StreamFiller) -> None:
        self._metered = metered
        self._filler = filler

    def fill(self, frame_HWC: UInt8Array, width: float) -> Float32Array:
        if width > 0:
            self._metered.count_fill(1, width)
        return self._filler.fill(frame_HWC, width)


class _MeteredRoom:
    def __init__(self, metered: Metered, room: Room) -> None:
        self._metered = metered
        self._room = room
        self.runs_ahead = room.runs_ahead

    def hold(self, frames_THWC: UInt8Array, patience_s: float = PATIENCE_S) -> Held:
        return self._room.hold(frames_THWC, patience_s)

    def release(self, held: Held) -> None:
        self._room.release(held)

    def look(self, picked: Picked) -> Begun[None]:
        self._metered.count_look(picked.size)
        return self._room.look(picked)

    def decide(self, gathered: Gathered) -> Begun[Float32Array]:
        self._metered.count_decide(gathered.size, gathered.num_frames)
        return self._room.decide(gathered)

    def fill(self, picked: Picked, width: float) -> Begun[None]:
        self._metered.count_fill(picked.size, width)
        return self._room.fill(picked, width)

    def conclude(self, gathered: Gathered) -> Begun[Float32Array]:
        self._metered.count_conclude(gathered.size, gathered.num_frames)
        return self._room.conclude(gathered)
