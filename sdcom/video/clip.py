"""A whole file to the frames that are wanted of it: probe, sample, decode, turn, scale, crop.

Legend of shape suffixes: T sampled frames, K distinct ones, N frames of the video, H W C as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

import av
import av.error
import numpy as np
import numpy.typing as npt

from sdcom.affordable import affordable_frames
from sdcom.cheapest import cheapest_frames
from sdcom.errors import UndecodableVideoError
from sdcom.sampling import (
    FeedingOrder,
    Int64Array,
    Sampling,
    feeding_order,
    frames_of_segments,
)
from sdcom.video.decoders import Decoder, DecordDecoder, Picture, PyAVDecoder, use_first_able
from sdcom.video.forward import OutOfOrderError
from sdcom.video.geometry import UInt8Array, center_crop
from sdcom.video.limits import DecodeLimits
from sdcom.video.messages import ClipFacts, DecoderName, Progress
from sdcom.video.opening import OpenedVideo, check_dimensions, open_video
from sdcom.video.probe import VideoIndex, orientation_of, read_index
from sdcom.video.rounds import plan_rounds
from sdcom.video.scale import Scaler
from sdcom.video.source import FileView

_MIN_SHARE_READ = 0.5
_Size: TypeAlias = tuple[int, int]  # width and height in pixels, upright


def decode_clip(
    source: FileView,
    container: str,
    short_side: int,
    limits: DecodeLimits,
    out_THWC: UInt8Array,
    *,
    sampling: Sampling = "centers",
    decoder: DecoderName = "pyav",
) -> ClipFacts:
    """Fill `out_THWC` with a frame of each of T equal stretches of the video.

    Args:
        source: the file.
        container: as `sniff_container` names it.
        short_side: pixels of the short side before the crop.
        limits: what the video may ask for.
        out_THWC: uint8, shape (T, crop, crop, 3).
        sampling: which frame of each stretch.
        decoder: which decoder is preferred; PyAV reads what decord does not.

    Raises:
        VideoRejectedError: the file is over a limit, or fewer than half of the frames asked for can be read.
    """
    with open_video(source, container, limits) as opened:
        index = read_index(source, opened, container, limits)
        frames_T = sampled_frames(index, len(out_THWC), sampling)
        wanted_K = np.unique(frames_T)
        decoders: list[Decoder] = [PyAVDecoder(limits, opened)]
        if decoder == "decord":
            decoders.insert(0, DecordDecoder(limits))
        read_by, (exact_K, size) = use_first_able(
            decoders,
            source,
            index,
            lambda decoder: _fill(decoder.read(source, index, wanted_K, short_side), out_THWC),
        )
        num_unreadable = _spread(frames_T, exact_K, out_THWC)
        num_missing = _num_missing(source, opened, index)
    return _facts(
        index,
        frames_T,
        size,
        read_by=read_by,
        num_unreadable=num_unreadable,
        num_missing=num_missing,
    )


def decode_in_rounds(
    source: FileView,
    container: str,
    short_side: int,
    limits: DecodeLimits,
    out_THWC: UInt8Array,
    *,
    order: FeedingOrder,
    sampling: Sampling = "centers",
) -> Iterator[Progress]:
    """Fill `out_THWC` with the frames of `decode_clip`, round by round in feeding order.

    The file stays open between rounds. It is one round where more would cost more, or a frame cannot be read
    apart from others. A video of which less than half can be read is refused once that has been tried.

    Args:
        source: the file.
        container: as `sniff_container` names it.
        short_side: pixels of the short side before the crop.
        limits: what the video may ask for.
        out_THWC: uint8, shape (T, crop, crop, 3).
        order: in which frames are fed.
        sampling: which frame of each stretch.

    Yields:
        What each round brought.

    Raises:
        VideoRejectedError: as for `decode_clip`.
    """
    with open_video(source, container, limits) as opened:
        index = read_index(source, opened, container, limits)
        frames_T, costs = sampled_frames(index, len(out_THWC), sampling), index.costs()
        decoder = PyAVDecoder(limits, opened)
        fed_T = frames_T[feeding_order(len(out_THWC), order)]
        rounds = plan_rounds(costs, fed_T) if costs is not None else []
        num_left, num_missing = len(rounds), _num_missing(source, opened, index)
        facts: ClipFacts | None = None
        try:
            for pictures in decoder.read_rounds(source, index, rounds, short_side):
                num_left -= 1
                ready, size = _place(pictures, frames_T, out_THWC)
                facts = facts or _facts(index, frames_T, size, num_missing=num_missing)
                yield Progress(facts, ready, more=num_left > 0)
        except OutOfOrderError:
            rounds = []
        if not rounds:
            in_time = decoder.read(source, index, np.unique(frames_T), short_side)
            exact_K, size = _fill(in_time, out_THWC)
            num_unreadable = _spread(frames_T, exact_K, out_THWC)
            facts = facts or _facts(index, frames_T, size, num_missing=num_missing)
            facts = replace(facts, num_unreadable_frames=num_unreadable)
            yield Progress(facts, tuple(range(len(out_THWC))))


def _place(
    pictures: list[tuple[int, Picture]], frames_T: Int64Array, out_THWC: UInt8Array
) -> tuple[tuple[int, ...], _Size]:
    """Crop frames into all of their places; return those, and the first one's size."""
    ready: list[int] = []
    for position, picture in pictures:
        places = np.flatnonzero(frames_T == position)
        out_THWC[places] = center_crop(picture.frame_HWC, out_THWC.shape[1])
        ready += places.tolist()
    return tuple(ready), pictures[0][1].size


def _spread(frames_T: Int64Array, exact_K: npt.NDArray[np.bool_], out_THWC: UInt8Array) -> int:
    """Bring distinct frames from the first places to all of theirs, if enough are the ones wanted.

    Returns:
        In how many places is another frame than the one wanted.

    Raises:
        UndecodableVideoError: less than half are the ones wanted.
    """
    wanted_K, num_read = np.unique(frames_T), int(exact_K.sum())
    if num_read < _MIN_SHARE_READ * len(wanted_K):
        raise UndecodableVideoError(
            f"only {num_read} of {len(wanted_K)} sampled frames can be decoded; "
            "the file is damaged or cut off"
        )
    slots_T = np.searchsorted(wanted_K, frames_T)
    for place, slot in reversed(list(enumerate(slots_T.tolist()))):
        if slot < place:  # what is at `slot` has not been overwritten, as it comes before
            out_THWC[place] = out_THWC[slot]
    return int((~exact_K[slots_T]).sum())


def _facts(
    index: VideoIndex,
    frames_T: Int64Array,
    size: _Size,
    *,
    read_by: DecoderName = "pyav",
    num_unreadable: int = 0,
    num_missing: int = 0,
) -> ClipFacts:
    width, height = size
    return ClipFacts(
        times_s=index.times_s(frames_T),
        duration_s=index.duration_s,
        num_frames=len(index.pts_N),
        width=width,
        height=height,
        container=index.container,
        codec=index.codec,
        decoder=read_by,
        num_unreadable_frames=num_unreadable,
        num_missing_frames=num_missing,
    )


def _num_missing(source: FileView, opened: OpenedVideo, index: VideoIndex) -> int:
    """Return how many of the frames that a header lists lie behind the file's end; only MP4's says where.

    It may list others that are never shown: outside an edit, some of which are marked, or without a byte.
    """
    listed, stored = opened.stream, index.storage
    if index.container != "mp4" or stored is None or listed.frames <= len(stored.time_P):
        return 0
    return sum(entry.pos >= source.num_bytes and not entry.is_discard for entry in listed.index_entries)


def sampled_frames(index: VideoIndex, num_frames: int, sampling: Sampling) -> Int64Array:
    """Return a frame of each of `num_frames` equal stretches of the video, non-decreasing.

    Where the packets do not tell what a frame costs, the centres are taken in any mode.
    """
    first_T, center_T, last_T = frames_of_segments(index.pts_N, index.duration, num_frames)
    costs = None if sampling == "centers" else index.costs()
    if costs is None:
        return center_T
    if sampling == "affordable":
        return affordable_frames(costs, center_T)
    return cheapest_frames(costs, first_T, center_T, last_T)


def _fill(pictures: Iterator[Picture], out_THWC: UInt8Array) -> tuple[npt.NDArray[np.bool_], _Size]:
    """Crop K frames into the first places of `out_THWC`.

    Returns:
        Which are the very frames wanted, shape (K,), and the first one's size.
    """
    exact_K, sizes = list[bool](), list[_Size]()
    for slot, picture in enumerate(pictures):
        out_THWC[slot] = center_crop(picture.frame_HWC, out_THWC.shape[1])
        exact_K.append(picture.exact)
        sizes.append(picture.size)
    return np.array(exact_K, dtype=np.bool_), sizes[0]


def decode_jpeg(data: bytes, short_side: int, limits: DecodeLimits, out_HWC: UInt8Array) -> None:
    """Fill `out_HWC` with a JPEG image, turned upright, scaled and cropped.

    Args:
        data: the JPEG file.
        short_side: pixels of the short side before the crop.
        limits: what the image may ask for.
        out_HWC: uint8, shape (crop, crop, 3).

    Raises:
        UndecodableVideoError: these bytes are no JPEG image that can be decoded.
        VideoLimitError: the image's dimensions are over a limit.
    """
    codec = av.VideoCodecContext.create("mjpeg", "r")
    codec.options = {"max_pixels": str(limits.max_pixels)}
    codec.thread_count = 1
    try:
        frames = [*codec.decode(av.Packet(data)), *codec.decode(None)]
    except av.error.InvalidDataError:
        frames = []
    if not frames:
        raise UndecodableVideoError(f"the {len(data)} bytes are not a JPEG image that can be decoded")
    check_dimensions(frames[0].width, frames[0].height, limits)
    upright = orientation_of(frames[0]).apply(Scaler(short_side).scale(frames[0]))
    out_HWC[:] = center_crop(upright, out_HWC.shape[0])
