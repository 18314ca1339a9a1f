"""Whether a model's networks stay within float16, whatever they are shown: a bound from their weights alone.

A network of absolute weights, shown the largest values that a frame can have, gives at every layer at least
what the network itself can give there on any frame (interval arithmetic): ReLU, pooling and sums of such
bounds are bounds again, and ReLU6 cuts them down to 6, so that they stay small in a MobileNetV2. In networks
with plain ReLUs they grow with every layer: nothing is known of those, not that they overflow.

Shapes: as in `sdcom.engine.dense`.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.config import ClipConfig
from sdcom.engine.dense import FULL_WIDTH, Fuse, dense
from sdcom.models.composition import SDCOM
from sdcom.models.slimmable import Backbone

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)

LARGEST_BOUND = 60_000.0
"""What a bound may be: float16's 65,504, less what rounding may add."""


def stays_in_float16(networks: SDCOM) -> bool:
    """Return whether no frame can take a value of the networks out of float16, at any width.

    Args:
        networks: without temporal shift, on the processor, in inference mode; not changed.
    """
    config, widths = networks.config, [width for width in networks.config.widths if width > 0]
    parts = [(networks.static, FULL_WIDTH, config.static_resolution)]
    parts += [(networks.dynamic, width, config.clip.crop) for width in widths]
    bounds_D = []
    for backbone, width, resolution in parts:
        bound_D, peak = feature_bounds(dense(backbone, width), config.clip, resolution)
        if not peak <= LARGEST_BOUND:  # it may be no number, from infinity times 0
            return False
        bounds_D.append(functional.pad(bound_D, (0, backbone.num_features - len(bound_D))))
    fuse = _absolute(Fuse(networks, torch.float32))
    supplements_D = torch.stack(bounds_D[1:]).amax(0)
    with torch.inference_mode():
        (z_1F,) = fuse(bounds_D[0][None], supplements_D[None])
    return max(_largest([z_1F]), _largest(fuse.parameters())) <= LARGEST_BOUND


@torch.inference_mode()
def feature_bounds(network: Backbone, clip: ClipConfig, resolution: int) -> tuple[Tensor, float]:
    """Return what a network's features can be at most, and any value on the way, on any frame.

    Args:
        network: of one width (`sdcom.engine.dense.dense`); not changed.
        clip: says how pixels are normalised.
        resolution: of its input, pixels.

    Returns:
        Bounds of the absolute values of the features [D], and of all layers' values and weights; the latter
        is infinite or no number where there is none.
    """
    absolute = _absolute(network)
    peaks = [parameter.max() for parameter in absolute.parameters()]
    for layer in absolute.modules():
        layer.register_forward_hook(lambda _layer, _inputs, output: peaks.append(output.amax()))
    mean_C, std_C = torch.tensor(clip.mean), torch.tensor(clip.std)
    pixel_C = torch.maximum(mean_C, 1 - mean_C) / std_C
    frame_NCHW = pixel_C[None, :, None, None].expand(1, -1, resolution, resolution)
    features_D = absolute.pool(absolute.feature_map(frame_NCHW, FULL_WIDTH))[0]
    return features_D, torch.stack(peaks).max().item()


def _absolute(network: AnyNetwork) -> AnyNetwork:
    absolute = deepcopy(network).eval()
    with torch.no_grad():
        for parameter in absolute.parameters():
            parameter.abs_()
    return absolute


def _largest(tensors: Iterable[Tensor]) -> float:
    return max(tensor.abs().max().item() for tensor in tensors)
