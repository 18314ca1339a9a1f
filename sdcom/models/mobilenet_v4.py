"""MobileNetV4-conv-small, a static network (arXiv:2404.10518).

It has the parameter names of the weights that are published for PyTorch (`conv_stem.weight`,
`blocks.2.0.dw_start.conv.weight`, `blocks.2.0.pw_exp.bn.weight`, `conv_head.weight`, `norm_head.weight`,
`classifier.weight`), so `sdcom.models.pretrained.load_torchvision_weights` loads such a file as it is. It
costs 0.6 of MobileNetV2's MACs, and is made of layers that run fast on any hardware.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.architecture import (
    MOBILENET_V4_CONV_SMALL,
    MOBILENET_V4_FEATURES,
    MOBILENET_V4_MAP_CHANNELS,
    MOBILENET_V4_STEM_CHANNELS,
    ConvSpec,
    UniversalInvertedSpec,
)
from sdcom.models.slimmable import (
    Backbone,
    SlimmableBatchNorm2d,
    SlimmableConv2d,
    SlimmableSequential,
)
from sdcom.models.temporal_shift import Earlier

FULL = (1.0,)


class MobileNetV4ConvSmall(Backbone):
    """Convolutions and universal inverted bottlenecks; the head's last layer follows the pool.

    It is built of slimmable layers, as the other networks are, but runs at width 1 alone.

    Args:
        num_classes: L, outputs of its classifier.
        same_padding: pad stride-2 convolutions as TensorFlow does.
        dropout: before the classifier, in training.
    """

    classifier_name = "classifier"

    def __init__(self, num_classes: int, same_padding: bool = False, dropout: float = 0.2) -> None:
        super().__init__()
        stem = MOBILENET_V4_STEM_CHANNELS
        self.conv_stem = SlimmableConv2d(3, stem, 3, stride=2, same_padding=same_padding)
        self.bn1 = SlimmableBatchNorm2d(stem, FULL)
        self.blocks = SlimmableSequential(
            SlimmableSequential(_layer(spec, same_padding) for spec in stage)
            for stage in MOBILENET_V4_CONV_SMALL
        )
        self.conv_head = SlimmableConv2d(MOBILENET_V4_MAP_CHANNELS, MOBILENET_V4_FEATURES, 1)
        self.norm_head = SlimmableBatchNorm2d(MOBILENET_V4_FEATURES, FULL)
        self.num_features = MOBILENET_V4_FEATURES
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(MOBILENET_V4_FEATURES, num_classes)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    @property
    def num_map_channels(self) -> int:  # noqa: D102 - inherited
        return MOBILENET_V4_MAP_CHANNELS

    def feature_map(  # noqa: D102 - inherited
        self,
        x_NCHW: Tensor,
        width: float,
        earlier: Earlier | None = None,  # noqa: ARG002 - it shifts nothing
    ) -> Tensor:
        stem_NCHW = functional.relu(self.bn1(self.conv_stem(x_NCHW, width), width), inplace=True)
        map_NCHW: Tensor = self.blocks(stem_NCHW, width)
        return map_NCHW

    def pool(self, map_NCHW: Tensor) -> Tensor:
        """Average a feature map over space and run the head on it: [N, 960, h, w] to [N, 1280]."""
        pooled_NC11 = map_NCHW.mean((2, 3), keepdim=True)
        features_ND11 = self.norm_head(self.conv_head(pooled_NC11, 1.0), 1.0)
        return functional.relu(torch.flatten(features_ND11, 1))

    def classify(self, features_ND: Tensor) -> Tensor:  # noqa: D102 - inherited
        logits_NL: Tensor = self.classifier(self.dropout(features_ND))
        return logits_NL


def _layer(spec: ConvSpec | UniversalInvertedSpec, same_padding: bool) -> nn.Module:
    if isinstance(spec, ConvSpec):
        return _ConvNormReLU(spec, same_padding)
    return _UniversalInvertedBottleneck(spec, same_padding)


class _ConvNormReLU(nn.Module):
    def __init__(self, spec: ConvSpec, same_padding: bool) -> None:
        super().__init__()
        self.conv = SlimmableConv2d(
            spec.in_channels,
            spec.out_channels,
            spec.kernel_size,
            stride=spec.stride,
            same_padding=same_padding,
        )
        self.bn1 = SlimmableBatchNorm2d(spec.out_channels, FULL)

    def forward(self, x_NCHW: Tensor, width: float) -> Tensor:
        return functional.relu(self.bn1(self.conv(x_NCHW, width), width), inplace=True)


class _UniversalInvertedBottleneck(nn.Module):
    """Optional depthwise, 1x1 that widens, optional depthwise, 1x1 that projects; perhaps a shortcut."""

    def __init__(self, spec: UniversalInvertedSpec, same_padding: bool) -> None:
        super().__init__()
        hidden = spec.hidden_channels
        self.dw_start = (
            _ConvNorm.depthwise(spec.in_channels, spec.first_kernel) if spec.first_kernel else None
        )
        self.pw_exp = _ConvNorm(spec.in_channels, hidden, 1)
        self.dw_mid = (
            _ConvNorm.depthwise(hidden, spec.middle_kernel, stride=spec.stride, same_padding=same_padding)
            if spec.middle_kernel
            else None
        )
        self.pw_proj = _ConvNorm(hidden, spec.out_channels, 1)
        self.has_shortcut = spec.has_shortcut

    def forward(self, x_NCHW: Tensor, width: float) -> Tensor:
        y = x_NCHW if self.dw_start is None else self.dw_start(x_NCHW, width)
        y = functional.relu(self.pw_exp(y, width), inplace=True)
        if self.dw_mid is not None:
            y = functional.relu(self.dw_mid(y, width), inplace=True)
        projected: Tensor = self.pw_proj(y, width)
        return x_NCHW + projected if self.has_shortcut else projected


class _ConvNorm(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        same_padding: bool = False,
    ) -> None:
        super().__init__()
        self.conv = SlimmableConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            depthwise=depthwise,
            same_padding=same_padding,
        )
        self.bn = SlimmableBatchNorm2d(out_channels, FULL)

    @classmethod
    def depthwise(
        cls, channels: int, kernel_size: int, *, stride: int = 1, same_padding: bool = False
    ) -> "_ConvNorm":
        return cls(channels, channels, kernel_size, stride=stride, depthwise=True, same_padding=same_padding)

    def forward(self, x_NCHW: Tensor, width: float) -> Tensor:
        normalized: Tensor = self.bn(self.conv(x_NCHW, width), width)
        return normalized
