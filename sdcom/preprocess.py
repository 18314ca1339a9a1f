"""From resized uint8 frames to what the networks see; the same for training and serving (pure).

Resizing and cropping a decoded frame is the decoder's part (`sdcom/video`), so that full frames never
leave the worker.
"""

import torch
from torch import Tensor
from torch.nn import functional

from sdcom.config import ClipConfig


def normalize(frames_NHWC: Tensor, clip: ClipConfig) -> Tensor:
    """Return frames as float32 [N, 3, H, W], normalised by the clip's mean and standard deviation.

    The memory stays channels-last, which convolutions prefer.

    Args:
        frames_NHWC: RGB in [0, 255], any number type.
        clip: gives the mean and the standard deviation of RGB in [0, 1].
    """
    mean_C = torch.tensor(clip.mean, device=frames_NHWC.device)
    std_C = torch.tensor(clip.std, device=frames_NHWC.device)
    scaled_NHWC = (frames_NHWC.float() / 255 - mean_C) / std_C
    return scaled_NHWC.permute(0, 3, 1, 2)


def resize(frames_NCHW: Tensor, resolution: int) -> Tensor:
    """Return square frames at the static network's resolution, in pixels (bilinear, antialiased)."""
    if frames_NCHW.shape[-1] == resolution:
        return frames_NCHW
    return functional.interpolate(
        frames_NCHW, size=(resolution, resolution), mode="bilinear", antialias=True, align_corners=False
    )
