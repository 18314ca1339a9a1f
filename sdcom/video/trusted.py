"""Files of our own, decoded in the process itself: what training learns from.

Legend of shape suffixes: T sampled frames, N frames of the video, H W as ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sdcom.errors import UndecodableVideoError
from sdcom.sampling import Float64Array, Int64Array
from sdcom.video.decoders import PyAVDecoder
from sdcom.video.geometry import UInt8Array
from sdcom.video.limits import DecodeLimits
from sdcom.video.probe import probe
from sdcom.video.sniff import HEAD_BYTES, sniff_container
from sdcom.video.source import FileView


class TrustedVideo:
    """A trusted file whose timeline is known, decoded in this process: for training.

    Frames are those that serving sees, by the decoder that never brings a process down. They can be read
    from several threads at once.

    Args:
        path: the video.

    Raises:
        VideoRejectedError: as for an upload.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._limits = DecodeLimits()
        with self._opened() as source:
            head = source.rewound().read(HEAD_BYTES)
            self._index = probe(source, sniff_container(head), self._limits)

    @property
    def num_frames(self) -> int:
        """Frames that are shown, at least 1."""
        return len(self._index.pts_N)

    @property
    def times_s(self) -> Float64Array:
        """When each frame is shown, in seconds from the first, shape (N,)."""
        return np.array(self._index.times_s(np.arange(self.num_frames)), dtype=np.float64)

    def read(self, frames_T: Int64Array, short_side: int) -> UInt8Array:
        """Return chosen frames, upright, RGB, scaled to the short side with the aspect kept.

        Args:
            frames_T: non-decreasing, each in [0, num_frames).
            short_side: pixels.

        Returns:
            uint8, shape (T, H, W, 3).

        Raises:
            VideoRejectedError: as for an upload.
        """
        wanted_K = np.unique(frames_T)
        decoder = PyAVDecoder(self._limits)
        with self._opened() as source:
            pictures = decoder.read(source, self._index, wanted_K, short_side)
            frames = [picture.frame_HWC for picture in pictures]
        if len({frame.shape for frame in frames}) > 1:
            raise UndecodableVideoError("the frames change their shape within the video")
        return np.stack(frames)[np.searchsorted(wanted_K, frames_T)]

    @contextmanager
    def _opened(self) -> Iterator[FileView]:
        with self._path.open("rb") as file:
            yield FileView(file.fileno(), os.fstat(file.fileno()).st_size)
