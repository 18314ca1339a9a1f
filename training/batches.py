"""From decoded clips to augmented, normalised training batches.

Small datasets fit in memory, decoded once by the serving decoder; every epoch then draws other frames,
crops and flips from them. Shapes: B videos, T frames, H W pixels.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sdcom.config import ClipConfig
from sdcom.preprocess import normalize
from sdcom.sampling import Int64Array, coarse_to_fine_order, random_in_segments, segment_centers
from sdcom.video import decode_every_frame
from training.data import Clip


class Batch(NamedTuple):
    """Normalised frames [B, T, 3, crop, crop] in feeding order, and class indices [B]."""

    frames_BTCHW: Tensor
    labels_B: Tensor


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may happen to a training clip, the same to all its frames.

    Attributes:
        scales: a crop's sides as shares of the frame's short side, one drawn for each side, at most a step
            apart (multi-scale crop; method, Frames 2).
        flip: mirror half of the clips; not for labels that tell left from right.
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


class ClipStore:
    """Every frame of every clip, resized, in memory as uint8.

    Args:
        clips: what to decode.
        short_side: pixels of the frames' short side.
        num_threads: decoding at once.
        device: where the frames stay; crops are cut there.
    """

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
        self.labels = [clip.label for clip in clips]
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.labels)


def training_batches(
    store: ClipStore, clip: ClipConfig, augmentation: Augmentation, batch_size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield one epoch of full batches in a new order: one random frame of each segment, one crop per clip."""
    shuffled = rng.permutation(len(store))
    for start in range(0, len(store) - batch_size + 1, batch_size):
        chosen = shuffled[start : start + batch_size]
        order_T = feeding_order(clip.num_frames, augmentation, rng)
        clips = [augmented_clip(store.frames_NHWC[i], clip, augmentation, order_T, rng) for i in chosen]
        frames_NCHW = normalize(torch.cat(clips), clip)
        labels_B = torch.tensor([store.labels[i] for i in chosen], device=store.device)
        yield Batch(frames_NCHW.unflatten(0, (batch_size, clip.num_frames)), labels_B)


def feeding_order(num_frames: int, augmentation: Augmentation, rng: np.random.Generator) -> Int64Array:
    """Return a batch's order: coarse to fine or, in the augmentation's share of batches, of time."""
    in_time = rng.random() < augmentation.time_order_share
    return np.arange(num_frames) if in_time else coarse_to_fine_order(num_frames)


def evaluation_clip(frames_NHWC: Tensor, clip: ClipConfig, order_T: Int64Array | None = None) -> Tensor:
    """Return a clip's segment centres as serving sees them.

    Args:
        frames_NHWC: the whole clip.
        clip: gives T and the crop.
        order_T: feeding order; None is coarse to fine.

    Returns:
        Centre-cropped uint8 RGB frames [T, crop, crop, 3], in feeding order.
    """
    if order_T is None:
        order_T = coarse_to_fine_order(clip.num_frames)
    indices_T = segment_centers(len(frames_NHWC), clip.num_frames)[order_T]
    height, width = frames_NHWC.shape[1:3]
    top, left = (height - clip.crop) // 2, (width - clip.crop) // 2
    return frames_NHWC[indices_T.tolist(), top : top + clip.crop, left : left + clip.crop]


def augmented_clip(
    frames_NHWC: Tensor,
    clip: ClipConfig,
    augmentation: Augmentation,
    order_T: Int64Array,
    rng: np.random.Generator,
) -> Tensor:
    """Return a new view of a clip: one random frame of each segment, one crop, flip and colour for all.

    Args:
        frames_NHWC: the whole clip.
        clip: gives T and the crop.
        augmentation: what may happen.
        order_T: feeding order.
        rng: draws it all.

    Returns:
        Float RGB frames [T, crop, crop, 3] in [0, 255], in feeding order.
    """
    indices_T = random_in_segments(len(frames_NHWC), clip.num_frames, rng)[order_T]
    top, left, crop_height, crop_width = _multi_scale_crop(
        frames_NHWC.shape[1], frames_NHWC.shape[2], augmentation.scales, rng
    )
    crops_THWC = frames_NHWC[indices_T.tolist(), top : top + crop_height, left : left + crop_width]
    crops_TCHW = functional.interpolate(
        crops_THWC.permute(0, 3, 1, 2).float(),
        size=(clip.crop, clip.crop),
        mode="bilinear",
        align_corners=False,
    )
    if augmentation.flip and rng.random() < 0.5:
        crops_TCHW = crops_TCHW.flip(-1)
    brightness = 1 + augmentation.brightness * rng.uniform(-1, 1)
    contrast = 1 + augmentation.contrast * rng.uniform(-1, 1)
    grey = crops_TCHW.mean()
    crops_TCHW = ((crops_TCHW - grey) * contrast + grey * brightness).clamp(0, 255)
    return crops_TCHW.permute(0, 2, 3, 1)


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
