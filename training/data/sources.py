"""Where a training batch's pixels come from: chosen frames of chosen clips.

Legend of shape suffixes: T chosen frames, N frames of a clip, H W pixels of them, C is 3, RGB.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from sdcom.sampling import Int64Array
from sdcom.video import decode_every_frame
from training.data.clips import Clip


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
    """

    num_readers = 0

    def __init__(
        self,
        clips: Sequence[Clip],
        short_side: int,
        *,
        num_threads: int = 2,
        device: torch.device | str = "cpu",
    ) -> None:
        with ThreadPoolExecutor(num_threads) as threads:
            decoded = threads.map(lambda clip: decode_every_frame(clip.path, short_side)[0], clips)
            self.frames_NHWC = [torch.from_numpy(frames).to(device) for frames in decoded]
        self.clips = tuple(clips)
        self.device = torch.device(device)

    def num_frames(self, clip_index: int) -> int:
        """Return the number of frames of a clip."""
        return len(self.frames_NHWC[clip_index])

    def read(self, clip_index: int, indices_T: Int64Array) -> Tensor:
        """Return frames of a clip, uint8 [T, H, W, 3], on the device."""
        return self.frames_NHWC[clip_index][indices_T.tolist()]
