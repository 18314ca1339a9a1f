"""Where a training batch's pixels come from: chosen frames of chosen clips.

Legend of shape suffixes: T chosen frames, N frames of a clip, H W pixels of them, C is 3, RGB.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sdcom.sampling import Int64Array
from training.data.clips import Clip
from training.data.media import Media, open_media
from training.data.tracking import Track, not_shown


class ClipSource(Protocol):
    """Clips of which chosen frames can be read, from several threads at once.

    Attributes:
        clips: what can be read.
        device: where its frames are wanted.
        num_readers: how many reads at once are worth while; 0 where reading takes no time.
    """

    @property
    def clips(self) -> Sequence[Clip]:
        """What can be read."""

    @property
    def device(self) -> torch.device:
        """Where the frames are wanted."""

    @property
    def num_readers(self) -> int:
        """How many reads at once are worth while; 0 where reading takes no time."""

    def num_frames(self, clip_index: int) -> int:
        """Return the number of frames of a clip, at least 1."""

    def read(self, clip_index: int, indices_T: Int64Array) -> Tensor:
        """Return frames of a clip, uint8 [T, H, W, 3], scaled to the short side.

        Args:
            clip_index: which clip.
            indices_T: non-decreasing, each in [0, num_frames).

        Returns:
            The frames: on the device, or in memory from which copying to it is quick.

        Raises:
            DataError: the clip cannot be read; the message names its file.
        """


class ClipStore:
    """Every frame of every clip, decoded once, in memory as uint8: for small datasets.

    Args:
        clips: what to decode.
        short_side: pixels of the frames' short side.
        num_threads: decoding at once.
        device: where the frames stay; crops are cut there.
        track: shows how many are decoded.

    Raises:
        DataError: a clip cannot be read.
    """

    num_readers = 0

    def __init__(
        self,
        clips: Sequence[Clip],
        short_side: int,
        *,
        num_threads: int = 2,
        device: torch.device | str = "cpu",
        track: Track = not_shown,
    ) -> None:
        with ThreadPoolExecutor(num_threads) as threads:
            decoded = threads.map(lambda clip: _every_frame(clip, short_side), clips)
            self.frames_NHWC = [frames_NHWC.to(device) for frames_NHWC in track(decoded, len(clips))]
        self.clips = tuple(clips)
        self.device = torch.device(device)

    def num_frames(self, clip_index: int) -> int:
        """Return the number of frames of a clip."""
        return len(self.frames_NHWC[clip_index])

    def read(self, clip_index: int, indices_T: Int64Array) -> Tensor:
        """Return frames of a clip, uint8 [T, H, W, 3], on the device."""
        return self.frames_NHWC[clip_index][indices_T.tolist()]


class StreamedClips:
    """Clips of which the wanted frames alone are read, each time anew: for large datasets.

    What a clip's timeline is found to be is kept, which is 8 bytes for each frame of a video.

    Args:
        clips: what to read.
        short_side: pixels of the frames' short side.
        num_readers: threads that read ahead.
        device: where the frames are wanted; crops are cut there.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        short_side: int,
        *,
        num_readers: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.clips = tuple(clips)
        self.device = torch.device(device)
        self.num_readers = num_readers
        self._short_side = short_side
        self._opened: dict[int, Media] = {}

    def num_frames(self, clip_index: int) -> int:
        """Return the number of frames of a clip.

        Raises:
            DataError: the clip cannot be read.
        """
        return self._media(clip_index).num_frames

    def read(self, clip_index: int, indices_T: Int64Array) -> Tensor:
        """Return frames of a clip, uint8 [T, H, W, 3], in pinned memory if the device is CUDA.

        Raises:
            DataError: the clip cannot be read.
        """
        frames_THWC = torch.from_numpy(self._media(clip_index).read(indices_T, self._short_side))
        return frames_THWC.pin_memory() if self.device.type == "cuda" else frames_THWC

    def _media(self, clip_index: int) -> Media:
        media = self._opened.get(clip_index)
        if media is None:  # two threads may both open it: no harm done
            media = self._opened[clip_index] = open_media(self.clips[clip_index].path)
        return media


def _every_frame(clip: Clip, short_side: int) -> Tensor:
    media = open_media(clip.path)
    return torch.from_numpy(media.read(np.arange(media.num_frames), short_side))
