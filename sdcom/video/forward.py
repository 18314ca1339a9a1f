"""Walking forward through a video's frames with PyAV, jumping to a later keyframe where that is shorter."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType

import av
import av.error
from av.video.stream import VideoStream

from sdcom.errors import UndecodableVideoError
from sdcom.video.limits import DecodeLimits
from sdcom.video.probe import VideoIndex, decode, demux, open_video, packet_time
from sdcom.video.source import FileView

_TimedFrame = tuple[int, av.VideoFrame]  # presentation time in ticks


class ForwardReader:
    """Shows the frame on screen at ascending times. Use as a context manager.

    Args:
        source: the file.
        index: its timeline.
        limits: for opening it.
    """

    def __init__(self, source: FileView, index: VideoIndex, limits: DecodeLimits) -> None:
        self._source = source
        self._index = index
        self._limits = limits
        self._stack = ExitStack()
        self._seekable = True
        self._shown: _TimedFrame | None = None
        self._coming: _TimedFrame | None = None
        self._reached = int(index.pts_N[0])
        self._frames: Iterator[_TimedFrame] = iter(())

    def __enter__(self) -> ForwardReader:
        self._restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def show(self, pts: int) -> tuple[av.VideoFrame, bool]:
        """Return the last frame that is not later than `pts`, and whether it is the one of that very time.

        Where no frame can be read so early, the first that can be read.

        Raises:
            UndecodableVideoError: no frame can be read.
        """
        self._jump_if_shorter(pts)
        while self._shown is None or self._shown[0] < pts:
            coming = self._coming or next(self._frames, None)
            if coming is None or coming[0] > pts:
                self._coming = coming
                break
            self._shown, self._coming = coming, None
        found = self._shown or self._coming
        if found is None:
            raise UndecodableVideoError(
                f"no {self._index.codec} frame can be decoded around {self._seconds(pts):.3f} s; "
                "the file is damaged or cut off"
            )
        return found[1], found[0] == pts

    def _seconds(self, pts: int) -> float:
        return float((pts - int(self._index.pts_N[0])) * self._index.time_base)

    def _restart(self) -> None:
        self._stack.close()
        self._opened, self._stream = self._stack.enter_context(
            open_video(self._source, self._index.container, self._limits)
        )
        self._begin(demux(self._opened, self._stream), slot=0)

    def _begin(self, packets: Iterator[av.Packet[VideoStream]], slot: int) -> None:
        self._shown = self._coming = None
        self._reached = int(self._index.pts_N[slot])
        self._frames = self._timed(packets, slot)

    def _timed(self, packets: Iterator[av.Packet[VideoStream]], slot: int) -> Iterator[_TimedFrame]:
        """Yield frames with their presentation times, the first one's place in the timeline being `slot`."""
        frames = (frame for packet in packets for frame in decode(packet))
        for frame in chain(frames, _held(self._stream)):
            if self._index.frames_are_counted:
                if slot >= len(self._index.pts_N):
                    return
                pts = int(self._index.pts_N[slot])
                slot += 1
            else:
                pts = self._reached + 1 if frame.pts is None else frame.pts
            self._reached = pts
            yield pts, frame

    def _jump_if_shorter(self, pts: int) -> None:
        keyframes = self._index.keyframe_pts_K
        position = bisect_right(keyframes, pts) - 1
        if not self._seekable or position < 0 or keyframes[position] <= self._reached:
            return
        packets = self._seek(int(self._index.keyframe_seek_K[position]))
        first = next((packet for packet in packets if packet.is_keyframe), None)
        landed = None if first is None else packet_time(first, self._index.container)
        if first is None or landed is None or landed > keyframes[position]:
            self._seekable = False  # this file's table of keyframes is wrong: read on from the start instead
            self._restart()
            return
        self._begin(chain([first], packets), slot=max(bisect_right(self._index.pts_N, landed) - 1, 0))

    def _seek(self, ticks: int) -> Iterator[av.Packet[VideoStream]]:
        try:
            self._opened.seek(ticks, stream=self._stream)
        except av.error.FFmpegError:
            return iter(())
        return demux(self._opened, self._stream)


def _held(stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield what the decoder still holds when the packets have ended."""
    yield from decode(None, stream)
