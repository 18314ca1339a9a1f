"""Building a backbone from its name: the one place where a network is chosen by a string."""

from collections.abc import Sequence

from sdcom.architecture import RESNETS, Architecture, check_full_width
from sdcom.models.mobilenet_v2 import SlimmableMobileNetV2
from sdcom.models.mobilenet_v4 import MobileNetV4ConvSmall
from sdcom.models.resnet import SlimmableResNet
from sdcom.models.slimmable import Backbone

__all__ = ["Backbone", "build_backbone"]


def build_backbone(
    architecture: Architecture,
    widths: Sequence[float],
    num_classes: int,
    same_padding: bool = False,
    *,
    temporal_shift: bool = False,
) -> Backbone:
    """Build a network with fresh weights, drawn from torch's current random state.

    Args:
        architecture: which network.
        widths: those that it will run at, 1 among them; `(1.0,)` for a static network.
        num_classes: L, outputs of its classifier.
        same_padding: pad stride-2 layers as TensorFlow does.
        temporal_shift: hand channels from frame to frame.

    Raises:
        ValueError: a network that is not slimmable is to run at other widths than 1, or one that is no
            ResNet is to shift.
    """
    if temporal_shift and architecture not in RESNETS:
        raise ValueError(
            f"temporal shift is for residual networks ({', '.join(RESNETS)}), not {architecture}"
        )
    match architecture:
        case "mobilenet_v2":
            return SlimmableMobileNetV2(widths, num_classes, same_padding)
        case "mobilenet_v4_conv_small":
            for width in widths:
                check_full_width(architecture, width)
            return MobileNetV4ConvSmall(num_classes, same_padding)
        case "resnet18" | "resnet34" | "resnet50" | "resnet101":
            return SlimmableResNet(
                architecture, widths, num_classes, same_padding, temporal_shift=temporal_shift
            )
