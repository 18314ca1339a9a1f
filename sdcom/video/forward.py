"""Walking to the wanted frames of a video with PyAV, from keyframes on, past what none of them needs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import TypeAlias

import av
import av.error
import numpy as np
from av.video.stream import VideoStream

from sdcom.sampling import Int64Array
from sdcom.video.limits import DecodeLimits
from sdcom.video.opening import OpenedVideo, open_video
from sdcom.video.probe import VideoIndex, decode, demux, nothing_decodes, packet_time
from sdcom.video.rounds import Leg
from sdcom.video.source import FileView

_TimedFrame = tuple[int, av.VideoFrame]  # presentation time in ticks
_Packets: TypeAlias = "Iterator[av.Packet[VideoStream]]"


class OutOfOrderError(Exception):
    """A frame cannot be had on its own; reading all in order finds what stands in for it."""


class ForwardReader:
    """Reads chosen frames in walks: from a keyframe up to the last frame wanted before the next walk.

    Frames that nothing refers to are left out on the way, unless they are wanted. Use as a context manager.

    Args:
        source: the file.
        index: its timeline.
        limits: for opening it.
        opened: the file, if it is open already; stays the caller's.
    """

    def __init__(
        self,
        source: FileView,
        index: VideoIndex,
        limits: DecodeLimits,
        opened: OpenedVideo | None = None,
    ) -> None:
        self._source = source
        self._index = index
        self._limits = limits
        self._stack = ExitStack()
        self._opened = opened
        self._passable = frozenset[int]() if index.storage is None else index.storage.passable_times()
        self._reads_on = False
        self._standing: int | None = None
        self._shown: _TimedFrame | None = None
        self._coming: _TimedFrame | None = None
        self._frames: Iterator[_TimedFrame] = iter(())

    def __enter__(self) -> ForwardReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, wanted_K: Int64Array) -> Iterator[tuple[av.VideoFrame, bool]]:
        """Yield what is on screen at each wanted frame's time, and whether it is that very frame.

        A frame that cannot be read is stood in for by the one before it, the first by the first that can.

        Args:
            wanted_K: ascending, distinct positions in the timeline.

        Raises:
            UndecodableVideoError: no frame can be read.
        """
        key_K = np.searchsorted(self._index.keyframe_pts_K, self._index.pts_N[wanted_K], side="right") - 1
        for key in np.unique(key_K).tolist():
            frames = wanted_K[key_K == key]
            if not self._reads_on:
                self._walk(key, frames)
            for pts in self._index.pts_N[frames].tolist():
                yield self._show(pts)

    def read_leg(self, leg: Leg) -> Iterator[av.VideoFrame]:
        """Yield the very frames of one leg; the walk stays where the last one is.

        Args:
            leg: of `plan_rounds`, after those before it. No other reading in between.

        Raises:
            OutOfOrderError: one of them cannot be read.
        """
        if leg.group != self._standing:
            self._standing, self._shown = leg.group, None
            self._walk(leg.group - 1, np.array(leg.coming, dtype=np.int64))
        for pts in self._index.pts_N[list(leg.frames)].tolist():
            if not self._reads_on:
                self._advance(pts)
            if self._reads_on or self._shown is None or self._shown[0] != pts:
                raise OutOfOrderError(f"no frame at {self._seconds(pts):.3f} s")
            yield self._shown[1]

    def _show(self, pts: int) -> tuple[av.VideoFrame, bool]:
        self._advance(pts)
        if self._shown is None and self._coming is None and not self._reads_on:
            self._read_on()  # this walk came to nothing, and there was none before: any frame will do
            self._advance(pts)
        found = self._shown or self._coming
        if found is None:
            raise nothing_decodes(len(self._index.pts_N), self._index.codec)
        return found[1], found[0] == pts

    def _advance(self, pts: int) -> None:
        """Decode up to the last frame that is not later than `pts`."""
        while self._shown is None or self._shown[0] < pts:
            coming = self._coming or next(self._frames, None)
            if coming is None or coming[0] > pts:
                self._coming = coming
                return
            self._shown, self._coming = coming, None

    def _seconds(self, pts: int) -> float:
        return float((pts - int(self._index.pts_N[0])) * self._index.time_base)

    def _walk(self, key: int, frames: Int64Array) -> None:
        """Go to a keyframe, or to the file's start if `key` is -1, and as far as these frames need."""
        landed = self._land(key)
        if landed is None:
            self._read_on()  # this file's table of keyframes is wrong
            return
        first, packets = landed
        slot = max(bisect_right(self._index.pts_N, first) - 1, 0)
        self._coming, self._frames = None, self._timed(self._needed(packets, frames), slot)

    def _land(self, key: int) -> tuple[int, _Packets] | None:
        """Return the time where decoding starts and the packets from there on; None if that fails."""
        if self._opened is not None and key >= 0:
            found = self._seek(key)
            if found is not None or key > 0:
                return found
        self._open()
        return self._seek(key) if key > 0 else (int(self._index.pts_N[0]), demux(*self._open_now()))

    def _seek(self, key: int) -> tuple[int, _Packets] | None:
        """Go to a keyframe, or to one before it that the demuxer takes for the nearest."""
        index = self._index
        pts, stored = int(index.keyframe_pts_K[key]), int(index.keyframe_seek_K[key])
        # Demuxers take a time for when a frame is shown, or decoded, or decoded with the longest delay.
        for ticks, latest_only in ((pts, True), (pts + index.delay, True), (pts, False), (stored, False)):
            packets = self._packets_near(ticks)
            first = next((packet for packet in packets if packet.is_keyframe), None)
            landed = None if first is None else packet_time(first, index.container)
            if first is None or landed is None:
                continue
            if landed == pts or (landed < pts and not latest_only):
                return landed, chain([first], packets)
        return None

    def _packets_near(self, ticks: int) -> _Packets:
        opened = self._open_now()
        try:
            opened.container.seek(ticks, stream=opened.stream)
        except av.error.FFmpegError:
            return iter(())
        return demux(*opened)

    def _needed(self, packets: _Packets, frames: Int64Array) -> _Packets:
        """Yield the packets up to the last that is needed for these frames, less those that none needs."""
        storage = self._index.storage
        if storage is None:
            yield from packets
            return
        wanted, last = set(self._index.pts_N[frames].tolist()), storage.last_stored(frames)
        for packet in packets:
            time = packet_time(packet, self._index.container)
            if time in self._passable and time not in wanted:
                continue
            yield packet
            if time == last:
                return

    def _read_on(self) -> None:
        """Read everything from the file's start, from now on."""
        self._reads_on = True
        self._open()
        self._coming, self._frames = None, self._timed(demux(*self._open_now()), slot=0)

    def _open(self) -> None:
        self._stack.close()
        self._opened = self._stack.enter_context(
            open_video(self._source, self._index.container, self._limits)
        )

    def _open_now(self) -> OpenedVideo:
        assert self._opened is not None
        return self._opened

    def _timed(self, packets: _Packets, slot: int) -> Iterator[_TimedFrame]:
        """Yield frames with their presentation times, the first one's place in the timeline being `slot`."""
        reached = int(self._index.pts_N[slot])
        frames = (frame for packet in packets for frame in decode(packet))
        for frame in chain(frames, _held(self._open_now().stream)):
            if self._index.frames_are_counted:
                if slot >= len(self._index.pts_N):
                    return
                reached = int(self._index.pts_N[slot])
                slot += 1
            else:
                reached = reached + 1 if frame.pts is None else frame.pts
            yield reached, frame


def _held(stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield what the decoder still holds when the packets have ended."""
    yield from decode(None, stream)
