"""What comes out of a decoder: the frames of a clip and its facts, all at once or as they are asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from sdcom.video.messages import ClipFacts, DecoderName, Progress
from sdcom.video.process import WorkerProcess

if TYPE_CHECKING:
    from sdcom.sampling import Int64Array
    from sdcom.video.geometry import UInt8Array


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """The frames that the networks see of one video, and what is known of it.

    Attributes:
        frames_THWC: uint8, shape (T, crop, crop, 3), RGB, upright, in time order.
        times_s: when each frame is shown, in seconds from the video's first frame.
        duration_s: seconds from the first frame's start to the last one's end.
        num_frames: frames in the video.
        width: pixels, upright.
        height: pixels, upright.
        container: as `sniff_container` names it.
        codec: FFmpeg's name.
        decoder: which decoder read it.
        num_unreadable_frames: of the sampled frames, those that could not be read; others stand for them.
        num_missing_frames: frames that the header lists and a cut-off file lacks, where that is known.
    """

    frames_THWC: UInt8Array
    times_s: tuple[float, ...]
    duration_s: float
    num_frames: int | None
    width: int
    height: int
    container: str
    codec: str
    decoder: DecoderName
    num_unreadable_frames: int
    num_missing_frames: int

    def pictures(self, order_T: Int64Array) -> list[float]:
        """Return what each frame shows, in this order: frames of one time are one picture."""
        return [self.times_s[place] for place in order_T.tolist()]

    @classmethod
    def of(cls, frames_THWC: UInt8Array, facts: ClipFacts | None) -> DecodedClip:
        """Return frames with the facts that a worker told of them."""
        assert facts is not None
        return cls(frames_THWC, **asdict(facts))


class ClipOnDemand:
    """A clip whose decoder waits, with the file open, until more frames are asked for. Not thread-safe.

    Args:
        worker: has decoded a first round.
        progress: what it said.
        run_on: has it decode one more.
        decode_s: seconds that the first one took.

    Attributes:
        clip: its facts as known by now, and the frames that are there; the others are black.
        decode_s: seconds that the decoder has been waited for.
        num_ready: frames that are there.
    """

    def __init__(
        self, worker: WorkerProcess, progress: Progress, run_on: Callable[[], Progress], decode_s: float
    ) -> None:
        self._worker = worker
        self._run_on = run_on
        self._more = False
        self._ready: set[int] = set()
        self.clip = DecodedClip.of(np.zeros_like(worker.frames_THWC), progress.facts)
        self.decode_s = decode_s
        self._take(progress)

    @property
    def num_ready(self) -> int:
        """Frames decoded so far."""
        return len(self._ready)

    def frames(
        self, order_T: Int64Array, before_round: Callable[[], object] = lambda: None
    ) -> Iterator[UInt8Array]:
        """Yield frames, decoding no more than the rounds that they are in.

        Args:
            order_T: their places in time.
            before_round: called before more is decoded; may raise.

        Raises:
            VideoRejectedError: the file turns out not to be decodable, or costs the decoder its life.
            DeadlineExceededError: the deadline passed.
            OverloadedError: the decoders are closed.
        """
        for place in order_T.tolist():
            while place not in self._ready:
                if not self._more:
                    raise self._worker.caught_lying()
                before_round()
                started, self._more = time.perf_counter(), False  # nothing is to be stopped if this fails
                self._take(self._run_on())
                self.decode_s += time.perf_counter() - started
            yield self.clip.frames_THWC[place]

    def leave(self) -> None:
        """Have nothing more decoded; the worker is free for the next file."""
        if self._more and self._worker.fate is None:
            self._worker.stop()

    def _take(self, progress: Progress) -> None:
        """Copy what is there now: the next file's frames will stand in the same memory.

        A round brings at least one frame that was not there before, or asking for more would never end.
        """
        places = list(progress.ready)
        if self._ready.issuperset(places):
            raise self._worker.caught_lying()
        self.clip = DecodedClip.of(self.clip.frames_THWC, progress.facts)
        self.clip.frames_THWC[places] = self._worker.frames_THWC[places]
        self._ready.update(places)
        self._more = progress.more
