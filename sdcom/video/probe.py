"""What is in a file, found without decoding: limits and timeline.

Only PyAV probes, with its demuxer forced to the container that the first bytes announce. What comes out says
when every frame is shown, which is all that sampling needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import NamedTuple, cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.stream import VideoStream

from sdcom.cheapest import DecodeCosts
from sdcom.errors import UndecodableVideoError, VideoLimitError
from sdcom.sampling import Int64Array
from sdcom.video.geometry import Orientation
from sdcom.video.limits import DecodeLimits
from sdcom.video.references import REFERRED, Reference, reference_reader
from sdcom.video.source import FileView
from sdcom.video.storage import Storage, StoredPacket, last_frame_ticks, longest_delay, plainly_ordered
from sdcom.video.tables import tabled_packets

_DEMUXERS = {"mp4": "mov", "matroska": "matroska", "avi": "avi", "mpegts": "mpegts"}
_COUNTED = frozenset(["avi"])
_BUFFER_BYTES = 1 << 16
_UNDECODED = {"skip_frame": "all"}
_HASTY = {"mp4": _UNDECODED | {"probesize": str(_BUFFER_BYTES)}, "matroska": _UNDECODED}
"""Options for FFmpeg while it finds the streams. These containers' headers say what the streams are, so that
no frame need be decoded to find out, nor read ahead but for Matroska's times of decoding."""


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """The timeline of a video and what is needed to read frames off it.

    Attributes:
        container: as `sniff_container` names it.
        codec: FFmpeg's name of the codec, such as "h264".
        width: pixels as stored, before orientation, by the header; frames may be of another size.
        height: the same.
        time_base: seconds of a tick.
        pts_N: ascending presentation times in ticks, one for each frame that is shown.
        duration: ticks from the first frame's start to the last one's end, at least 1.
        keyframe_pts_K: ascending presentation times where decoding can start besides the file's start.
        keyframe_seek_K: the time at which each of them is decoded.
        delay: the most ticks from when a frame is decoded to when it is shown.
        plainly_ordered: frames are all shown, have times of their own, start with a keyframe, and none is
            shown before the keyframe that it is stored behind.
        storage: in which order frames are stored and what they cost; None where packets cannot be told apart
            by their times.
    """

    container: str
    codec: str
    width: int
    height: int
    time_base: Fraction
    pts_N: Int64Array
    duration: int
    keyframe_pts_K: Int64Array
    keyframe_seek_K: Int64Array
    delay: int
    plainly_ordered: bool
    storage: Storage | None

    @property
    def frames_are_counted(self) -> bool:
        """True if the container stores no presentation times: the n-th frame has the n-th slot."""
        return self.container in _COUNTED

    def costs(self) -> DecodeCosts | None:
        """Return what reaching each frame costs, or None if the packets do not tell."""
        if self.storage is None:
            return None
        return self.storage.costs(self.keyframe_pts_K, self.width * self.height)

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame's start to the last one's end."""
        return float(self.duration * self.time_base)

    def times_s(self, frames_T: Int64Array) -> tuple[float, ...]:
        """Return when frames are shown, in seconds from the first frame."""
        ticks = self.pts_N[frames_T] - self.pts_N[0]
        return tuple(float(int(tick) * self.time_base) for tick in ticks)


class OpenedVideo(NamedTuple):
    """An open file and its first video stream."""

    container: InputContainer
    stream: VideoStream


@contextmanager
def open_video(source: FileView, container: str, limits: DecodeLimits) -> Iterator[OpenedVideo]:
    """Open a file and its first video stream, under limits.

    Raises:
        UndecodableVideoError: the container cannot be read, or has no video stream with a known decoder.
        VideoLimitError: the header claims more than the limits allow.
    """
    opened = _open(source, container, _HASTY.get(container, {}))
    if container == "mp4" and any(
        stream.codec_context is not None and stream.width == 0 for stream in opened.streams.video
    ):
        opened.close()
        opened = _open(source, container, _UNDECODED)  # H.263 may have its size in its frames alone
    with opened:
        if not opened.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in opened.streams})) or "none"
            raise UndecodableVideoError(f"there is no video stream in the file (streams: {kinds})")
        stream = opened.streams.video[0]
        if stream.codec_context is None:  # PyAV's types do not say that it can be
            raise UndecodableVideoError("the video stream's codec is unknown, or has no decoder here")
        _check_header(opened, stream, limits)
        # Dimensions can grow inside the stream; the decoder itself must refuse that.
        # Where a stream does not say how far its frames are reordered, "strict" keeps H.264 from guessing.
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels), "strict": "strict"}
        stream.codec_context.thread_count = 1
        yield OpenedVideo(opened, stream)


def _open(source: FileView, container: str, options: dict[str, str]) -> InputContainer:
    try:
        return av.open(
            source.rewound(),
            mode="r",
            format=_DEMUXERS[container],
            metadata_errors="ignore",
            options=options,
            buffer_size=_BUFFER_BYTES,
        )
    except (av.error.FFmpegError, ValueError) as exc:
        if isinstance(exc, MemoryError):
            raise
        raise UndecodableVideoError(f"the {container} container cannot be read: {_reason(exc)}") from exc


def probe(source: FileView, container: str, limits: DecodeLimits) -> VideoIndex:
    """Read a file's timeline.

    Raises:
        UndecodableVideoError: there are no frames.
        VideoLimitError: something is over a limit.
    """
    with open_video(source, container, limits) as opened:
        return read_index(source, opened, container, limits)


def read_index(source: FileView, opened: OpenedVideo, container: str, limits: DecodeLimits) -> VideoIndex:
    """Read the timeline of a file that has just been opened, as `probe` does.

    Afterwards it may have been read to its end.
    """
    stream = opened.stream
    codec = stream.codec_context.codec.canonical_name
    packets = _packets(source, opened, container, limits)
    # Where frames are counted and stored out of order, a keyframe's place in line is not its slot.
    seekable = not (container in _COUNTED and stream.codec_context.has_b_frames)
    time_base = stream.time_base or Fraction(1, av.time_base)
    shown = sorted({packet.time for packet in packets if packet.time is not None and not packet.discarded})
    if not packets:
        raise UndecodableVideoError("the file holds no video frames")
    if not shown:
        raise nothing_decodes(len(packets), codec)
    duration = shown[-1] - shown[0] + last_frame_ticks(shown, packets)
    if duration * time_base > limits.max_duration_s:
        raise _too_long(float(duration * time_base), limits)
    keyframes = {p.time: p.seek for p in packets if p.is_key and p.time is not None and p.seek is not None}
    keyframe_pts = sorted(keyframes) if seekable else []
    return VideoIndex(
        container=container,
        codec=codec,
        width=stream.width,
        height=stream.height,
        time_base=time_base,
        pts_N=np.array(shown, dtype=np.int64),
        duration=duration,
        keyframe_pts_K=np.array(keyframe_pts, dtype=np.int64),
        keyframe_seek_K=np.array([keyframes[pts] for pts in keyframe_pts], dtype=np.int64),
        delay=longest_delay(packets),
        plainly_ordered=plainly_ordered(packets),
        storage=None if container in _COUNTED else Storage.of(packets),
    )


def _packets(
    source: FileView, opened: OpenedVideo, container: str, limits: DecodeLimits
) -> list[StoredPacket]:
    """Return what the packets tell, without reading them all if the file's tables tell the same."""
    coming = demux(*opened)
    first = next(coming, None)
    if first is None:
        return []
    if container == "mp4" and len(opened.stream.index_entries) <= limits.max_frames:
        tabled = tabled_packets(source, opened.stream, first)
        if tabled is not None:
            return tabled
    codec = opened.stream.codec_context
    reference_of = reference_reader(codec.codec.canonical_name, bytes(codec.extradata or b""))
    packets: list[StoredPacket] = []
    reordering_known = container not in _COUNTED
    for packet in chain([first], coming):
        packets.append(_stored(packet, container, reference_of))
        if len(packets) > limits.max_frames:
            raise _too_many_frames(len(packets), limits)
        reordering_known = reordering_known or bool(decode(packet))
    return packets


def nothing_decodes(num_packets: int, codec: str) -> UndecodableVideoError:
    """Return the error for a video of which no frame can be decoded."""
    return UndecodableVideoError(
        f"none of the {num_packets} video packets in the file decodes to a {codec} frame; "
        "the file is damaged or cut off"
    )


def demux(opened: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    """Yield the stream's packets up to the end or the first place that cannot be read."""
    try:
        for packet in opened.demux(stream):
            if packet.size:
                yield packet
    except IndexError:  # PyAV stumbles at the end of a file in which streams appeared on the way
        return
    except av.error.FFmpegError as exc:
        if isinstance(exc, MemoryError):
            raise


def decode(packet: av.Packet[VideoStream] | None, stream: VideoStream | None = None) -> list[av.VideoFrame]:
    """Return the frames that a packet completes, none if it is damaged; with no packet, those held."""
    try:
        if packet is not None:
            return packet.decode()
        assert stream is not None
        return stream.codec_context.decode(None)
    except av.error.FFmpegError as exc:
        if isinstance(exc, MemoryError):
            raise
        return []


def packet_time(packet: av.Packet[VideoStream], container: str) -> int | None:
    """Return when a packet's frame is shown, in ticks; in AVI, which does not say, its place in line."""
    if container in _COUNTED or packet.pts is None:
        return packet.dts
    return packet.pts


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return how this frame is turned upright."""
    try:
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX.name)
    except ValueError:  # the frame has side data of a kind newer than PyAV, such as a photo's EXIF
        return Orientation.from_rotation(frame.rotation)
    if matrix is None:
        return Orientation()
    return Orientation.from_display_matrix(bytes(cast("SideData", matrix)))


def check_dimensions(width: int, height: int, limits: DecodeLimits) -> None:
    """Raise VideoLimitError if a frame of that size is too small or too large."""
    if min(width, height) < limits.min_dimension:
        raise VideoLimitError(
            f"the video is {width}x{height}; each side must have at least {limits.min_dimension} pixels"
        )
    if max(width, height) > limits.max_dimension or width * height > limits.max_pixels:
        raise VideoLimitError(
            f"the video is {width}x{height}; the limits are {limits.max_dimension} pixels a side "
            f"and {limits.max_pixels} pixels a frame"
        )


def _stored(
    packet: av.Packet[VideoStream],
    container: str,
    reference_of: Callable[[bytes | memoryview], Reference] | None,
) -> StoredPacket:
    return StoredPacket(
        time=packet_time(packet, container),
        seek=packet.pts if packet.dts is None else packet.dts,
        duration=packet.duration or 0,
        num_bytes=packet.size,
        is_key=packet.is_keyframe,
        discarded=packet.is_discard,
        has_own_time=packet.pts is not None,
        reference=REFERRED if reference_of is None else reference_of(memoryview(packet)),
    )


def _check_header(opened: InputContainer, stream: VideoStream, limits: DecodeLimits) -> None:
    check_dimensions(stream.width, stream.height, limits)
    claims = [float((opened.duration or 0) / av.time_base)]
    if stream.duration and stream.time_base:
        claims.append(float(stream.duration * stream.time_base))
    if max(claims) > limits.max_duration_s:
        raise _too_long(max(claims), limits)
    if stream.frames > limits.max_frames:
        raise _too_many_frames(stream.frames, limits)


def _too_long(duration_s: float, limits: DecodeLimits) -> VideoLimitError:
    return VideoLimitError(f"the video lasts {duration_s:.0f} s; the limit is {limits.max_duration_s:.0f} s")


def _too_many_frames(num_frames: int, limits: DecodeLimits) -> VideoLimitError:
    return VideoLimitError(f"the video has at least {num_frames} frames; the limit is {limits.max_frames}")


def _reason(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or str(exc)
