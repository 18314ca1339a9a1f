"""Clips as the service sees them: sampled, decoded and cropped by the serving decoders."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sdcom.errors import SdcomError
from sdcom.sampling import Int64Array
from sdcom.video import DecoderPool
from training.data import Clip, DataError


class ServedClips:
    """A source whose clips are of T frames each: those that serving would look at.

    Args:
        clips: video files.
        decoders: a running pool.
        num_frames: T, of the pool's clips.
        num_readers: files to decode at once.
        device: where the frames are wanted.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        decoders: DecoderPool,
        *,
        num_frames: int,
        num_readers: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.clips = tuple(clips)
        self.num_readers = num_readers
        self.device = torch.device(device)
        self._decoders = decoders
        self._num_frames = num_frames

    def num_frames(self, clip_index: int) -> int:  # noqa: ARG002 - of every clip
        """Return T."""
        return self._num_frames

    def read(self, clip_index: int, indices_T: Int64Array) -> Tensor:
        """Return frames of a clip, uint8 [T, crop, crop, 3].

        Raises:
            DataError: the file cannot be decoded; the message names it.
        """
        path = self.clips[clip_index].path
        try:
            decoded = self._decoders.decode(path)
        except (SdcomError, OSError) as exc:
            raise DataError(f"{path} cannot be evaluated: {exc}") from exc
        return torch.from_numpy(decoded.frames_THWC[indices_T])
