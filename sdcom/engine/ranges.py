"""Whether what is computed in float16 stays within it, whatever it is shown: a bound from weights alone.

A network of absolute weights, shown the largest values that a frame can have, gives at every layer at least
what the network itself can give there on any frame (interval arithmetic): ReLU, pooling and sums of such
bounds are bounds again, and ReLU6 cuts them down to 6, so that they stay small in a MobileNetV2. In networks
with plain ReLUs they grow with every layer: nothing is known of those, not that they overflow.

Shapes: as in `sdcom.engine.dense`.
"""

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
    """Return whether no frame can take the dynamic network, at any width, or the fusion out of float16.

    The static network is in float32: of it, that is asked of its features alone, which are fused in float16.

    Args:
        networks: without temporal shift, on the processor, in inference mode; not changed.
    """
    config, dynamic = networks.config, networks.dynamic
    bounds_D = []
    for width in (width for width in config.widths if width > 0):
        bound_D, peak = feature_bounds(dense(dynamic, width), config.clip, config.clip.crop)
        if not peak <= LARGEST_BOUND:  # it may be no number, from infinity times 0
            return False
        bounds_D.append(functional.pad(bound_D, (0, dynamic.num_features - len(bound_D))))
    static_D, _ = feature_bounds(dense(networks.static, FULL_WIDTH), config.clip, config.static_resolution)
    fuse = _absolute(Fuse(networks, torch.float32))
    with torch.inference_mode():
        (z_1F,) = fuse(static_D[None], torch.stack(bounds_D).amax(0)[None])
    tensors = static_D, z_1F, *fuse.parameters()
    return all((tensor.abs() <= LARGEST_BOUND).all().item() for tensor in tensors)  # what is no number is not


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
