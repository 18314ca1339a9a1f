"""What reading all packets of an MP4 file would tell, told by its tables and the packets' first bytes.

FFmpeg shows its own index of a track: where each sample is, its size and when it is decoded. How long samples
last and how much later they are shown stands in two tables that it does not show (ISO/IEC 14496-12, 8.6.1).
Where it is not sure that this is all there is to tell, nothing is told, and the packets must be read.

Legend of shape suffixes: P packets as stored.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from av.index import IndexEntry
from av.video.stream import VideoStream

from sdcom.sampling import Int64Array
from sdcom.video.references import begins_group, counted_nals, nal_length_bytes, reference_of
from sdcom.video.source import FileView
from sdcom.video.storage import StoredPacket

_SAMPLE_TABLES = (b"mdia", b"minf", b"stbl")
_OF_FRAGMENTS = (b"moof", b"sidx")
_MAX_BOXES = 1000
_MAX_OFFSET = 1 << 28
"""Ticks; FFmpeg takes a table with longer delays for broken."""

_Box = tuple[bytes, int, int]  # kind, where its content starts and ends in the file


def tabled_packets(
    source: FileView, stream: VideoStream, first: av.Packet[VideoStream]
) -> list[StoredPacket] | None:
    """Return what each packet of an H.264 or HEVC stream in MP4 would tell; None where that is not sure.

    It is not where the file is fragmented, cut off or of several edits, hides frames, or where the packets
    themselves say otherwise of where decoding can start.

    Args:
        source: the file.
        stream: of MP4, just opened.
        first: its first packet, which tells how its times and those in the tables are related.
    """
    codec = stream.codec_context.codec.canonical_name
    if codec not in {"h264", "hevc"}:
        return None
    length_bytes = nal_length_bytes(codec, bytes(stream.codec_context.extradata or b""))
    entries = list(stream.index_entries)
    times = _times(source, stream, entries)
    if length_bytes == 0 or times is None:
        return None
    pts_P, dts_P, duration_P = times
    if first.pts is None or first.dts != dts_P[0]:
        return None
    shown_P = pts_P + (first.pts - pts_P[0])
    packets: list[StoredPacket] = []
    for entry, pts, dts, duration in zip(
        entries, shown_P.tolist(), dts_P.tolist(), duration_P.tolist(), strict=True
    ):
        start, size, is_key = entry.pos, entry.size, entry.is_keyframe
        if size <= 0 or start + size > source.num_bytes or entry.is_discard:
            return None
        nals = counted_nals(source.between, start, start + size, length_bytes)
        if codec == "h264" and begins_group(nals) != is_key:
            return None
        reference = reference_of(codec, nals)
        packets.append(
            StoredPacket(
                pts, dts, duration, size, is_key, discarded=False, has_own_time=True, reference=reference
            )
        )
    return packets


def _times(
    source: FileView, stream: VideoStream, entries: list[IndexEntry]
) -> tuple[Int64Array, Int64Array, Int64Array] | None:
    """Return when each sample is shown, but for a constant, and decoded, and for how long, in ticks."""
    track = None if _is_fragmented(source) else _track(source, stream.id)
    num_packets = len(entries)
    if track is None or num_packets == 0 or num_packets != stream.frames:
        return None
    edits = _content(source, track, (b"edts", b"elst"), 8)
    if edits is not None and int.from_bytes(edits[4:8]) > 1:
        return None
    duration_P = _runs(source, track, b"stts", num_packets)
    offset_P = _runs(source, track, b"ctts", num_packets)
    if offset_P is None and _content(source, track, (*_SAMPLE_TABLES, b"ctts"), 0) is None:
        offset_P = np.zeros(num_packets, dtype=np.int64)
    dts_P = np.array([entry.timestamp for entry in entries], dtype=np.int64)
    if duration_P is None or offset_P is None or np.abs(offset_P).max() > _MAX_OFFSET:
        return None
    if duration_P.min() <= 0 or not np.array_equal(np.diff(dts_P), duration_P[:-1]):
        return None
    return dts_P + offset_P, dts_P, duration_P


def _is_fragmented(source: FileView) -> bool:
    """Return whether frames may follow that no table lists: FFmpeg may not have come to them yet."""
    file = (b"", 0, source.num_bytes)
    movie = _child(source, file, b"moov")
    extends = movie is not None and _child(source, movie, b"mvex") is not None
    return extends or any(box[0] in _OF_FRAGMENTS for box in _children(source, file))


def _runs(source: FileView, track: _Box, kind: bytes, num_packets: int) -> Int64Array | None:
    """Return a value for each packet from a table of runs, or None if it has another number of them."""
    table = _content(source, track, (*_SAMPLE_TABLES, kind), 8 + 8 * num_packets)
    if table is None or len(table) < 8:
        return None
    num_runs = int.from_bytes(table[4:8])
    if len(table) < 8 + 8 * num_runs:
        return None
    counts, values = np.frombuffer(table, ">i4", 2 * num_runs, 8).reshape(-1, 2).T.astype(np.int64)
    if (counts <= 0).any() or counts.sum() != num_packets:
        return None
    return np.repeat(values, counts)


def _track(source: FileView, track_id: int) -> _Box | None:
    """Return the one track of that number."""
    movie = _child(source, (b"", 0, source.num_bytes), b"moov")
    tracks = [box for box in _children(source, movie) if box[0] == b"trak"] if movie else []
    numbered = [track for track in tracks if _track_id(source, track) == track_id]
    return numbered[0] if len(numbered) == 1 else None


def _track_id(source: FileView, track: _Box) -> int | None:
    header = _content(source, track, (b"tkhd",), 24)
    if header is None or len(header) < 24:
        return None
    place = 20 if header[0] == 1 else 12
    return int.from_bytes(header[place : place + 4])


def _content(source: FileView, box: _Box, path: tuple[bytes, ...], num_bytes: int) -> bytes | None:
    """Return the first bytes of the box that such a path of kinds leads to, if there is one."""
    for kind in path:
        child = _child(source, box, kind)
        if child is None:
            return None
        box = child
    return source.between(box[1], min(box[2], box[1] + num_bytes))


def _child(source: FileView, box: _Box, kind: bytes) -> _Box | None:
    return next((child for child in _children(source, box) if child[0] == kind), None)


def _children(source: FileView, box: _Box) -> Iterator[_Box]:
    """Yield the boxes in a box up to one that makes no sense (ISO/IEC 14496-12, 4.2)."""
    _, position, end = box
    for _ in range(_MAX_BOXES):
        if position + 8 > end:
            return
        head = source.between(position, position + 16)
        size, kind, header = int.from_bytes(head[:4]), head[4:8], 8
        if size == 1:
            size, header = int.from_bytes(head[8:]), 16
        stop = end if size == 0 else position + size
        if stop < position + header or stop > end:
            return
        yield kind, position + header, stop
        position = stop
