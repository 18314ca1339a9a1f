"""The one scaler: swscale's bilinear filter, through libavfilter, straight to RGB.

decord scales with the same filter of an older FFmpeg, so its frames and PyAV's are equal (a test holds them
to it); raw frames of streams take the same way.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import av.filter
import numpy as np

from sdcom.errors import InvalidParameterError
from sdcom.video.geometry import UInt8Array, center_crop, scaled_size, tamed_size

if TYPE_CHECKING:
    from sdcom.config import ClipConfig

MAX_RAW_DIMENSION = 8192
"""Pixels of either side of a raw frame."""


class Scaler:
    """Scales decoded frames to one short side; rebuilds its filter where a video changes its frames' size.

    Args:
        short_side: pixels.
    """

    def __init__(self, short_side: int) -> None:
        self._short_side = short_side
        self._layout: tuple[int, int, str] | None = None
        self._graph: av.filter.Graph | None = None

    def scale(self, frame: av.VideoFrame) -> UInt8Array:
        """Return the frame as RGB, shape (H, W, 3), its short side at `short_side`."""
        layout = (frame.width, frame.height, frame.format.name)
        if self._graph is None or layout != self._layout:
            self._graph, self._layout = self._build(frame), layout
        self._graph.push(frame)
        scaled = self._graph.pull()
        assert isinstance(scaled, av.VideoFrame)
        return scaled.to_ndarray()  # type: ignore[return-value]  # rgb24 is uint8

    def _build(self, frame: av.VideoFrame) -> av.filter.Graph:
        kept = tamed_size(frame.width, frame.height)
        width, height = scaled_size(*kept, self._short_side)
        graph = av.filter.Graph()
        graph.threads = 1
        steps = [
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=Fraction(1),
            )
        ]
        if kept != (frame.width, frame.height):
            steps.append(graph.add("crop", f"{kept[0]}:{kept[1]}"))
        steps += [
            graph.add("scale", f"{width}:{height}:flags=bilinear"),
            graph.add("format", "pix_fmts=rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*steps).configure()
        return graph


def resize_and_crop(frame_HWC: UInt8Array, clip: ClipConfig) -> UInt8Array:
    """Return a raw RGB frame as the networks' preprocessing expects it.

    Args:
        frame_HWC: uint8, shape (H, W, 3), RGB.
        clip: which short side and crop.

    Returns:
        uint8, shape (crop, crop, 3).

    Raises:
        InvalidParameterError: not uint8, not three channels, or a side outside [1, `MAX_RAW_DIMENSION`].
    """
    if frame_HWC.dtype != np.uint8 or frame_HWC.ndim != 3 or frame_HWC.shape[2] != 3:
        raise InvalidParameterError(
            "a raw frame must be uint8 of shape (height, width, 3), "
            f"got {frame_HWC.dtype} of {frame_HWC.shape}"
        )
    if not all(1 <= side <= MAX_RAW_DIMENSION for side in frame_HWC.shape[:2]):
        raise InvalidParameterError(
            f"a raw frame's sides must be 1 to {MAX_RAW_DIMENSION} pixels, got {frame_HWC.shape[:2]}"
        )
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
    return center_crop(Scaler(clip.short_side).scale(frame), clip.crop)
