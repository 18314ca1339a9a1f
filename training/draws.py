"""What stage 2 draws for each clip and epoch: the noise that chooses widths, and the price that they have.

Both depend on the clip and the epoch alone, not on the batch that it is in. Shapes: B videos, T frames,
N = B * T frames, K widths.
"""

import numpy as np
import torch
from torch import Tensor

from training.batches import Batches

_OF_NOISE = 1
_OF_PRICE = 2
"""Added to a clip's key, so that the draws are not those of its crop."""


def gumbel_noise(batches: Batches, epoch: int, clip_indices_B: Tensor, num_widths: int) -> Tensor:
    """Return each frame's noise [N, K] for the choice of its width."""
    shape = (batches.clip.num_frames, num_widths)
    drawn = [_rng(batches, epoch, index, _OF_NOISE).gumbel(size=shape) for index in clip_indices_B.tolist()]
    return _on_device(np.concatenate(drawn), batches)


def drawn_prices(batches: Batches, epoch: int, clip_indices_B: Tensor, highest: float) -> Tensor:
    """Return the price [N] of a full-width frame, in nats, that each frame's video is worked on at.

    Args:
        batches: whose clips they are.
        epoch: from 0.
        clip_indices_B: the videos.
        highest: prices are uniform from 0 to this.
    """
    drawn_B = [
        _rng(batches, epoch, index, _OF_PRICE).uniform(0, highest) for index in clip_indices_B.tolist()
    ]
    return _on_device(np.repeat(drawn_B, batches.clip.num_frames), batches)


def _rng(batches: Batches, epoch: int, clip_index: int, kind: int) -> np.random.Generator:
    return np.random.default_rng([batches.seed, batches.stage, epoch, clip_index, kind])


def _on_device(drawn: np.typing.NDArray[np.float64], batches: Batches) -> Tensor:
    return torch.from_numpy(drawn.astype(np.float32)).to(batches.source.device, non_blocking=True)
