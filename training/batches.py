"""From clips to augmented, normalised training batches.

Nothing here depends on what was drawn before: every draw has a generator of its own, keyed by seed, stage,
epoch and clip. So a run can be resumed at any step, and a batch can be divided among processes.

Legend of shape suffixes: B videos, T frames in feeding order, C H W as ever, L labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sdcom.config import ClipConfig
from sdcom.preprocess import normalize
from sdcom.sampling import Int64Array, feeding_order, random_in_segments, segment_centers
from training.data.prefetch import map_ahead
from training.data.sources import ClipSource
from training.data.tracking import Tracked, untracked

_OF_BATCHES = 2**31
_OF_EPOCHS = 2**32 - 2
"""Last words of keys, beyond any clip index: of what a whole batch shares, and of an epoch's permutation."""

SeveralLabels = Literal["draw", "share"]
"""What a clip of several labels stands for: one of them, drawn anew each epoch, or all in equal shares."""


class Batch(NamedTuple):
    """Clips to learn from.

    Attributes:
        frames_BTCHW: normalised, in feeding order, float32.
        targets_BL: rows of probabilities, float32.
        clip_indices_B: of the source's clips, int64, on the CPU.
    """

    frames_BTCHW: Tensor
    targets_BL: Tensor
    clip_indices_B: Tensor

    def split(self, num_parts: int) -> list["Batch"]:
        """Return equal parts of the batch."""
        return [Batch(*part) for part in zip(*(tensor.chunk(num_parts) for tensor in self), strict=True)]


class View(NamedTuple):
    """A clip as an epoch shows it: float RGB [T, crop, crop, 3] in [0, 255]; its target [L], on the CPU."""

    frames_THWC: Tensor
    target_L: Tensor


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may happen to a training clip, the same to all its frames.

    Attributes:
        scales: a crop's sides as shares of the frame's short side, one drawn for each side, at most a step
            apart (multi-scale crop; method, Frames 2).
        flip: mirror half of the clips.
        brightness: factor drawn from 1 - b to 1 + b.
        contrast: likewise.
        time_order_share: share of the batches fed in time order instead of coarse to fine, so that one
            model serves uploads and live streams.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    flip: bool = True
    brightness: float = 0.0
    contrast: float = 0.0
    time_order_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """The training batches of a stage, each of them drawable without those before it.

    Attributes:
        source: of the frames.
        num_labels: L.
        clip: gives T, the crop and the normalisation.
        augmentation: what may happen to a clip.
        batch_size: videos of a step, over all processes.
        seed: of everything random.
        stage: number of the stage, so that no two draw alike.
        rank: which of the processes this is; it gets its slice of every batch.
        world_size: processes; divides the batch size.
        several_labels: what clips of several labels are targets of.
        mirrored: for each class, the class that a clip of it shows when mirrored; empty changes none.
        tracked: shows how far whoever goes through all clips is.

    Raises:
        ValueError: the batch cannot be divided evenly, or the rank is outside the world.
    """

    source: ClipSource
    num_labels: int
    clip: ClipConfig
    augmentation: Augmentation
    batch_size: int
    seed: int
    stage: int
    rank: int = 0
    world_size: int = 1
    several_labels: SeveralLabels = "draw"
    mirrored: tuple[int, ...] = ()
    tracked: Tracked = untracked

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise ValueError(
                f"a batch of {self.batch_size} cannot be divided evenly among {self.world_size} processes"
            )
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is not one of {self.world_size} processes")

    @property
    def num_clips(self) -> int:
        """Clips to draw from."""
        return len(self.source.clips)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; the clips that are left over are others every time."""
        return self.num_clips // self.batch_size

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield this process's slices of an epoch's batches, reading ahead where the source takes time.

        Args:
            epoch: from 0.
            start_step: steps of the epoch to leave out.

        Raises:
            DataError: a clip cannot be read.
        """
        yield from self.drawn(epoch, start_step, self.chosen(epoch, start_step))

    def chosen(self, epoch: int, start_step: int = 0) -> list[list[int]]:
        """Return the clips of this process's slice of each of an epoch's batches, from a step on."""
        permutation = self._permutation(epoch)
        share = self.batch_size // self.world_size
        starts = range(
            start_step * self.batch_size + self.rank * share,
            self.steps_per_epoch * self.batch_size,
            self.batch_size,
        )
        return [permutation[start : start + share].tolist() for start in starts]

    def drawn(self, epoch: int, start_step: int, chosen_SB: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Yield a batch of given clips for each step from `start_step` on, reading ahead as `epoch` does.

        Raises:
            DataError: a clip cannot be read.
        """
        draws = map_ahead(
            lambda clip_index: self._draw(epoch, clip_index), chosen_SB, num_threads=self.source.num_readers
        )
        for step, (chosen_B, of_batch) in enumerate(zip(chosen_SB, draws, strict=True), start_step):
            order_T = self.feeding_order(epoch, step)
            yield self._collate(chosen_B, [self._view(draw, order_T) for draw in of_batch])

    def feeding_order(self, epoch: int, step: int) -> Int64Array:
        """Return a batch's order [T]: the clip's or, in the augmentation's share of batches, of time."""
        rng = keyed_rng(self.seed, self.stage, epoch, _OF_BATCHES + step)
        in_time = rng.random() < self.augmentation.time_order_share
        return feeding_order(self.clip.num_frames, "time" if in_time else self.clip.order)

    def view(self, epoch: int, clip_index: int, order_T: Int64Array) -> View:
        """Return a clip as an epoch shows it, on the source's device: the very view that `epoch` yields.

        Raises:
            DataError: the clip cannot be read.
        """
        return self._view(self._draw(epoch, clip_index), order_T)

    def _permutation(self, epoch: int) -> Int64Array:
        return keyed_rng(self.seed, self.stage, epoch, _OF_EPOCHS).permutation(self.num_clips)

    def _draw(self, epoch: int, clip_index: int) -> "_Draw":
        rng = keyed_rng(self.seed, self.stage, epoch, clip_index)
        indices_T = random_in_segments(self.source.num_frames(clip_index), self.clip.num_frames, rng)
        labels = self.source.clips[clip_index].labels
        if self.several_labels == "draw":
            labels = (labels[int(rng.integers(len(labels)))],)
        return _Draw(self.source.read(clip_index, indices_T), labels, rng)

    def _view(self, draw: "_Draw", order_T: Int64Array) -> View:
        frames_THWC = draw.frames_THWC.to(self.source.device, non_blocking=True)
        frames_THWC, mirrored = augmented(frames_THWC, self.clip.crop, self.augmentation, draw.rng)
        labels = draw.labels
        if mirrored and self.mirrored:
            labels = tuple(self.mirrored[label] for label in labels)
        target_L = torch.zeros(self.num_labels)
        target_L[list(labels)] = 1 / len(labels)
        return View(frames_THWC[order_T.tolist()], target_L)

    def _collate(self, chosen_B: Sequence[int], views: Sequence[View]) -> Batch:
        frames_NCHW = normalize(torch.cat([view.frames_THWC for view in views]), self.clip)
        targets_BL = torch.stack([view.target_L for view in views])
        return Batch(
            frames_NCHW.unflatten(0, (len(views), self.clip.num_frames)),
            targets_BL.to(self.source.device, non_blocking=True),
            torch.tensor(chosen_B, dtype=torch.int64),
        )


class _Draw(NamedTuple):
    """A clip's frames [T, H, W, 3] in time order, its labels, and a generator for what is yet to be drawn."""

    frames_THWC: Tensor
    labels: tuple[int, ...]
    rng: np.random.Generator


def keyed_rng(seed: int, stage: int, epoch: int, item: int) -> np.random.Generator:
    """Return the generator of one clip's draws in one epoch, whatever was drawn before."""
    return np.random.default_rng([seed, stage, epoch, item])


def evaluation_clip(
    source: ClipSource, clip_index: int, clip: ClipConfig, order_T: Int64Array | None = None
) -> Tensor:
    """Return a clip's segment centres as serving sees them.

    Args:
        source: of the frames.
        clip_index: which clip.
        clip: gives T and the crop.
        order_T: feeding order; None is the clip's.

    Returns:
        Centre-cropped uint8 RGB frames [T, crop, crop, 3], in feeding order, on the source's device.

    Raises:
        DataError: the clip cannot be read.
    """
    if order_T is None:
        order_T = feeding_order(clip.num_frames, clip.order)
    indices_T = segment_centers(source.num_frames(clip_index), clip.num_frames)
    frames_THWC = source.read(clip_index, indices_T)
    height, width = frames_THWC.shape[1:3]
    top, left = (height - clip.crop) // 2, (width - clip.crop) // 2
    cropped_THWC = frames_THWC[order_T.tolist(), top : top + clip.crop, left : left + clip.crop]
    return cropped_THWC.to(source.device, non_blocking=True)


def augmented(
    frames_THWC: Tensor, crop: int, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[Tensor, bool]:
    """Return frames with one crop, flip and colour for all, and whether they were mirrored.

    Args:
        frames_THWC: uint8 RGB.
        crop: side of the result, pixels.
        augmentation: what may happen.
        rng: draws it all.

    Returns:
        Float RGB frames [T, crop, crop, 3] in [0, 255], and the flip.
    """
    top, left, crop_height, crop_width = _multi_scale_crop(
        frames_THWC.shape[1], frames_THWC.shape[2], augmentation.scales, rng
    )
    crops_TCHW = functional.interpolate(
        frames_THWC[:, top : top + crop_height, left : left + crop_width].permute(0, 3, 1, 2).float(),
        size=(crop, crop),
        mode="bilinear",
        align_corners=False,
    )
    mirrored = augmentation.flip and bool(rng.random() < 0.5)
    if mirrored:
        crops_TCHW = crops_TCHW.flip(-1)
    brightness = 1 + augmentation.brightness * rng.uniform(-1, 1)
    contrast = 1 + augmentation.contrast * rng.uniform(-1, 1)
    grey = crops_TCHW.mean()
    crops_TCHW = ((crops_TCHW - grey) * contrast + grey * brightness).clamp(0, 255)
    return crops_TCHW.permute(0, 2, 3, 1), mirrored


def _multi_scale_crop(
    height: int, width: int, scales: Sequence[float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random crop; the two sides' scales are at most a step apart."""
    short = min(height, width)
    row = int(rng.integers(len(scales)))
    column = int(np.clip(row + rng.integers(-1, 2), 0, len(scales) - 1))
    crop_height, crop_width = int(short * scales[row]), int(short * scales[column])
    top = int(rng.integers(height - crop_height + 1))
    left = int(rng.integers(width - crop_width + 1))
    return top, left, crop_height, crop_width
