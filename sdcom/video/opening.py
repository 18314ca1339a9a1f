"""Opening a file as what its first bytes announce, under limits.

FFmpeg's demuxer is forced to that container, and finds the streams without decoding where it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from sdcom.errors import UndecodableVideoError, VideoLimitError
from sdcom.video.limits import DecodeLimits
from sdcom.video.source import FileView

_DEMUXERS = {"mp4": "mov", "matroska": "matroska", "avi": "avi", "mpegts": "mpegts"}
_BUFFER_BYTES = 1 << 16
_UNDECODED = {"skip_frame": "all"}
_HASTY = {"mp4": _UNDECODED | {"probesize": str(_BUFFER_BYTES)}, "matroska": _UNDECODED}
"""Options for FFmpeg while it finds the streams. These containers' headers say what the streams are, so that
no frame need be decoded to find out, nor read ahead but for Matroska's times of decoding."""


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
        hint = (
            "; where an MP4 is cut off, its index (moov) may be what is missing" if container == "mp4" else ""
        )
        raise UndecodableVideoError(
            f"the {container} container cannot be read: {_reason(exc)}{hint}"
        ) from exc


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


def _check_header(opened: InputContainer, stream: VideoStream, limits: DecodeLimits) -> None:
    check_dimensions(stream.width, stream.height, limits)
    claims = [float((opened.duration or 0) / av.time_base)]
    if stream.duration and stream.time_base:
        claims.append(float(stream.duration * stream.time_base))
    if max(claims) > limits.max_duration_s:
        raise too_long(max(claims), limits)
    if stream.frames > limits.max_frames:
        raise too_many_frames(stream.frames, limits)


def too_long(duration_s: float, limits: DecodeLimits) -> VideoLimitError:
    """Return the error for a video that lasts longer than it may."""
    return VideoLimitError(f"the video lasts {duration_s:.0f} s; the limit is {limits.max_duration_s:.0f} s")


def too_many_frames(num_frames: int, limits: DecodeLimits) -> VideoLimitError:
    """Return the error for a video of more frames than it may have."""
    return VideoLimitError(f"the video has at least {num_frames} frames; the limit is {limits.max_frames}")


def _reason(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or str(exc)
