"""Two decoders behind one protocol: PyAV for everything; if preferred, decord where it is surely right."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import NamedTuple, Protocol, TypeVar

import av
import numpy as np

from sdcom.sampling import Int64Array
from sdcom.video.forward import ForwardReader
from sdcom.video.geometry import MAX_ASPECT, UInt8Array, scaled_size
from sdcom.video.limits import DecodeLimits
from sdcom.video.messages import DecoderName
from sdcom.video.opening import OpenedVideo, check_dimensions
from sdcom.video.probe import VideoIndex, orientation_of
from sdcom.video.rounds import Round
from sdcom.video.scale import Scaler
from sdcom.video.source import FileView

_Result = TypeVar("_Result")


class DecoderGaveUpError(Exception):
    """This decoder cannot read the video, or not surely right; another may."""


class Picture(NamedTuple):
    """A frame as the networks' crop is taken of it.

    Attributes:
        frame_HWC: uint8, RGB, upright, scaled to the short side.
        exact: it is the wanted one: for a damaged frame stands the one before it, as a player would show it.
        size: width and height before scaling, in pixels, upright.
    """

    frame_HWC: UInt8Array
    exact: bool
    size: tuple[int, int]


class Decoder(Protocol):
    """Reads chosen frames of a video whose timeline is known."""

    name: DecoderName

    def serves(self, source: FileView, index: VideoIndex) -> bool:
        """Tell whether this decoder is known to be right for such a video."""

    def read(
        self, source: FileView, index: VideoIndex, wanted_K: Int64Array, short_side: int
    ) -> Iterator[Picture]:
        """Yield what is on screen at each wanted frame's time.

        Args:
            source: the file.
            index: its timeline.
            wanted_K: ascending, distinct positions in the timeline.
            short_side: pixels.

        Raises:
            DecoderGaveUpError: another decoder should read this video.
        """


class DecordDecoder:
    """decord 0.6: counts frames, so it is right only where all of them are there and in order.

    It squeezes rotated video, decodes no AV1, loses frames of MPEG-TS, miscounts where an edit list hides
    frames or where frames are stored behind a keyframe and shown before it, and holds the file in memory
    three times.
    """

    name: DecoderName = "decord"

    _CONTAINERS = frozenset(["mp4", "matroska"])
    _CODECS = frozenset(["h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg2video"])
    _PIXEL_FORMATS = frozenset(["yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"])
    _MAX_BYTES = 64 << 20
    _FRAMES_AT_ONCE = 16

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits

    def serves(self, source: FileView, index: VideoIndex) -> bool:
        """Tell whether decord is installed and known to be right for such a video, by its first frame."""
        return (
            load_decord() is not None
            and source.num_bytes <= self._MAX_BYTES
            and index.container in self._CONTAINERS
            and index.codec in self._CODECS
            and index.plainly_ordered
            and max(index.width, index.height) <= MAX_ASPECT * min(index.width, index.height)
            and self._is_plain(first_frame(source, index, self._limits), index)
        )

    def _is_plain(self, first: av.VideoFrame, index: VideoIndex) -> bool:
        return (
            first.format.name in self._PIXEL_FORMATS
            and (first.width, first.height) == (index.width, index.height)
            and orientation_of(first).is_upright
            and not first.interlaced_frame
        )

    def read(
        self, source: FileView, index: VideoIndex, wanted_K: Int64Array, short_side: int
    ) -> Iterator[Picture]:
        """Yield the wanted frames; gives up unless decord's own timeline is the one that was probed."""
        decord = load_decord()
        assert decord is not None
        width, height = scaled_size(index.width, index.height, short_side)
        try:
            reader = decord.VideoReader(source.rewound(), width=width, height=height, num_threads=1)
            self._check_timeline(reader, index)
            for start in range(0, len(wanted_K), self._FRAMES_AT_ONCE):
                some = wanted_K[start : start + self._FRAMES_AT_ONCE]
                for frame_HWC in reader.get_batch(some).asnumpy():
                    yield Picture(frame_HWC, True, (index.width, index.height))
        except (decord.DECORDError, AssertionError, IndexError, RuntimeError) as exc:
            raise DecoderGaveUpError(f"decord: {str(exc).splitlines()[-1:]}") from exc

    @staticmethod
    def _check_timeline(reader: object, index: VideoIndex) -> None:
        times_N = reader.get_frame_timestamp(range(len(reader)))[:, 0]  # type: ignore[arg-type, attr-defined]  # decord has no types
        expected_N = (index.pts_N - index.pts_N[0]) * float(index.time_base)
        if times_N.shape != expected_N.shape:
            raise DecoderGaveUpError(f"decord sees {times_N.size} frames of {expected_N.size}")
        if np.abs(times_N - times_N[0] - expected_N).max() > max(float(index.time_base), 1e-3):
            raise DecoderGaveUpError("decord sees other frame times")


class PyAVDecoder:
    """PyAV with its own recent FFmpeg: right for everything that it can open.

    Args:
        limits: for opening a file.
        opened: the file that will be read, if it is open already.
    """

    name: DecoderName = "pyav"

    def __init__(self, limits: DecodeLimits, opened: OpenedVideo | None = None) -> None:
        self._limits = limits
        self._opened = opened

    def serves(self, source: FileView, index: VideoIndex) -> bool:  # noqa: ARG002  # of the protocol
        """Return True: this decoder serves whatever could be probed."""
        return True

    def read(
        self, source: FileView, index: VideoIndex, wanted_K: Int64Array, short_side: int
    ) -> Iterator[Picture]:
        """Yield the wanted frames."""
        scaler = Scaler(short_side)
        with ForwardReader(source, index, self._limits, self._opened) as reader:
            for frame, exact in reader.read(wanted_K):
                yield self._picture(frame, scaler, exact=exact)

    def read_rounds(
        self, source: FileView, index: VideoIndex, rounds: Iterable[Round], short_side: int
    ) -> Iterator[list[tuple[int, Picture]]]:
        """Yield each round's frames as `read` would, with their positions in the timeline.

        Raises:
            OutOfOrderError: a frame cannot be read; `read` finds what stands in for it.
        """
        scaler = Scaler(short_side)
        with ForwardReader(source, index, self._limits, self._opened) as reader:
            for legs in rounds:
                yield [
                    (position, self._picture(frame, scaler, exact=True))
                    for leg in legs
                    for position, frame in zip(leg.frames, reader.read_leg(leg), strict=True)
                ]

    def _picture(self, frame: av.VideoFrame, scaler: Scaler, *, exact: bool) -> Picture:
        check_dimensions(frame.width, frame.height, self._limits)
        turn = orientation_of(frame)
        return Picture(turn.apply(scaler.scale(frame)), exact, turn.size(frame.width, frame.height))


def first_frame(source: FileView, index: VideoIndex, limits: DecodeLimits) -> av.VideoFrame:
    """Return the first frame that can be decoded.

    Raises:
        UndecodableVideoError: none can.
    """
    with ForwardReader(source, index, limits) as reader:
        return next(reader.read(np.array([0])))[0]


def use_first_able(
    decoders: Iterable[Decoder], source: FileView, index: VideoIndex, use: Callable[[Decoder], _Result]
) -> tuple[DecoderName, _Result]:
    """Return `use` of the first decoder that serves the video and does not give up, and its name.

    Raises:
        DecoderGaveUpError: none of them reads it.
    """
    for decoder in decoders:
        if decoder.serves(source, index):
            with suppress(DecoderGaveUpError):
                return decoder.name, use(decoder)
    raise DecoderGaveUpError(f"no decoder reads this {index.codec} video")


@cache
def load_decord() -> ModuleType | None:
    """Return decord, silenced, or None where it is not installed: it has wheels for Linux on x86_64 only."""
    try:
        import decord  # noqa: PLC0415  # heavy, and only decoding processes want it
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    module: ModuleType = decord
    return module
