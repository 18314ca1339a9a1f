"""Clips that are already frames: a folder of images, in the order of their names."""

import re
from pathlib import Path

import av
import cv2
import numpy as np

from sdcom.sampling import Int64Array
from sdcom.video.geometry import MAX_ASPECT, UInt8Array
from sdcom.video.scale import Scaler
from training.data.clips import DataError

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png"])


class FrameFolder:
    """A folder of images such as `img_00001.jpg`, sorted by the numbers in their names.

    Args:
        path: the folder.

    Raises:
        DataError: there are no images in it.
    """

    def __init__(self, path: Path) -> None:
        names = (entry.name for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)
        self._path = path
        self._names = sorted((name for name in names if not name.startswith(".")), key=_natural)
        if not self._names:
            raise DataError(
                f"{path} holds no frames; images ({', '.join(sorted(IMAGE_SUFFIXES))}) were expected"
            )
        self.num_frames = len(self._names)

    def read(self, indices_T: Int64Array, short_side: int) -> UInt8Array:
        """Return frames [T, H, W, 3], RGB, scaled to the short side.

        Raises:
            DataError: an image cannot be read.
        """
        images = {index: self._image(int(index), short_side) for index in np.unique(indices_T)}
        return stacked([images[index] for index in indices_T], self._path)

    def _image(self, index: int, short_side: int) -> UInt8Array:
        path = self._path / self._names[index]
        return scaled(decode_image(path.read_bytes(), str(path)), short_side)


def _natural(name: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", name)], name


def decode_image(data: bytes, name: str) -> UInt8Array:
    """Return an image [H, W, 3], RGB.

    Raises:
        DataError: it cannot be decoded; the message has its name.
    """
    image_HWC = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image_HWC is None:
        raise DataError(f"{name} ({len(data)} bytes) is not an image that can be decoded; make it anew")
    return np.asarray(cv2.cvtColor(image_HWC, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def scaled(frame_HWC: UInt8Array, short_side: int) -> UInt8Array:
    """Return a frame with its short side at `short_side`, by the scaler that serves."""
    sides = frame_HWC.shape[:2]
    if min(sides) == short_side and max(sides) <= MAX_ASPECT * short_side:
        return frame_HWC
    return Scaler(short_side).scale(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
    )


def stacked(frames: list[UInt8Array], path: Path) -> UInt8Array:
    """Return frames as one array [T, H, W, 3].

    Raises:
        DataError: they are of different sizes.
    """
    sizes = {frame_HWC.shape[:2] for frame_HWC in frames}
    if len(sizes) > 1:
        found = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise DataError(f"{path} holds frames of different shapes ({found}); all of one clip must be alike")
    return np.stack(frames)
