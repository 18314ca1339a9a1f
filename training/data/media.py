"""One clip opened for reading chosen frames, whatever it is stored as."""

from pathlib import Path
from typing import Protocol

from sdcom.errors import VideoRejectedError
from sdcom.sampling import Int64Array
from sdcom.video.geometry import UInt8Array
from sdcom.video.trusted import TrustedVideo
from training.data.clips import DataError
from training.data.frames import FrameFolder
from training.data.shards import SHARD_SUFFIX, PackedClip


class Media(Protocol):
    """A clip whose timeline is known. Frames can be read from several threads at once."""

    @property
    def num_frames(self) -> int:
        """Frames in the clip, at least 1."""

    def read(self, indices_T: Int64Array, short_side: int) -> UInt8Array:
        """Return frames [T, H, W, 3], uint8 RGB, scaled to the short side.

        Args:
            indices_T: non-decreasing, each in [0, num_frames).
            short_side: pixels.

        Raises:
            DataError: a frame cannot be read.
        """


def open_media(path: Path) -> Media:
    """Open a video file, a folder of frames, or a clip in a tar shard.

    Raises:
        DataError: it is missing, or cannot be read; the message names it.
    """
    if path.parent.suffix == SHARD_SUFFIX:
        return PackedClip(path)
    if path.is_dir():
        return FrameFolder(path)
    if not path.is_file():
        raise DataError(f"{path} is missing: a video or a folder of frames was expected there")
    return VideoFile(path)


class VideoFile:
    """A video file, decoded as serving does.

    Args:
        path: the file.

    Raises:
        DataError: it cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._video = TrustedVideo(path)
        except VideoRejectedError as exc:
            raise DataError(f"{path}: {exc}") from exc
        self.num_frames = self._video.num_frames

    def read(self, indices_T: Int64Array, short_side: int) -> UInt8Array:
        """Return frames [T, H, W, 3], uint8 RGB, scaled to the short side."""
        try:
            return self._video.read(indices_T, short_side)
        except VideoRejectedError as exc:
            raise DataError(f"{self._path}: {exc}") from exc
