"""What is in a file, found without decoding but for AVI: limits and timeline.

Only PyAV probes, with its demuxer forced to the container that the first bytes announce. What comes out says
when every frame is shown, which is all that sampling needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.stream import VideoStream

from sdcom.cheapest import DecodeCosts
from sdcom.errors import UndecodableVideoError
from sdcom.sampling import Int64Array
from sdcom.video.geometry import Orientation
from sdcom.video.limits import DecodeLimits
from sdcom.video.opening import OpenedVideo, open_video, too_long, too_many_frames
from sdcom.video.references import REFERRED, Reference, reference_reader
from sdcom.video.source import FileView
from sdcom.video.storage import Storage, StoredPacket, last_frame_ticks, longest_delay, plainly_ordered
from sdcom.video.tables import tabled_packets

_COUNTED = frozenset(["avi"])


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
        raise too_long(float(duration * time_base), limits)
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
            raise too_many_frames(len(packets), limits)
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
