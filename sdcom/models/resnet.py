"""Slimmable ResNet-18, 34, 50 and 101 with torchvision's parameter names (arXiv:1512.03385)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from sdcom.architecture import (
    RESNETS,
    STAGE_CHANNELS,
    STEM_CHANNELS,
    STEM_KERNEL,
    Architecture,
    ResidualBlockSpec,
    residual_stages,
)
from sdcom.models.slimmable import (
    Backbone,
    SlimmableBatchNorm2d,
    SlimmableConv2d,
    SlimmableLinear,
    SlimmableSequential,
    pad_same,
)
from sdcom.models.temporal_shift import Earlier, shifted


class SlimmableResNet(Backbone):
    """A ResNet whose convolutions all use the first `max(1, int(c * width))` of their channels.

    The stem keeps its 3 inputs. With `widths=(1.0,)` it is a plain ResNet.

    Args:
        architecture: "resnet18", "resnet34", "resnet50" or "resnet101".
        widths: those that it will run at; 1 among them.
        num_classes: L, outputs of its classifier.
        same_padding: pad stride-2 layers as TensorFlow does.
        temporal_shift: every residual block reads some channels of the frame before.
    """

    classifier_name = "fc"

    def __init__(
        self,
        architecture: Architecture,
        widths: Sequence[float],
        num_classes: int,
        same_padding: bool = False,
        *,
        temporal_shift: bool = False,
    ) -> None:
        super().__init__()
        spec = RESNETS[architecture]
        block = _Bottleneck if spec.block == "bottleneck" else _BasicBlock
        self.same_padding = same_padding
        self.temporal_shift = temporal_shift
        self.conv1 = SlimmableConv2d(3, STEM_CHANNELS, STEM_KERNEL, stride=2, same_padding=same_padding)
        self.bn1 = SlimmableBatchNorm2d(STEM_CHANNELS, widths)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            SlimmableSequential(block(row, widths, same_padding) for row in stage)
            for stage in residual_stages(spec)
        )
        self.num_features = STAGE_CHANNELS[-1] * spec.expansion
        self.fc = SlimmableLinear(self.num_features, num_classes)

    def feature_map(  # noqa: D102 - inherited
        self, x_NCHW: Tensor, width: float, earlier: Earlier | None = None
    ) -> Tensor:
        if self.temporal_shift and earlier is None:
            raise ValueError("a network with temporal shift must know the frame before each: pass `earlier`")
        x: Tensor = self.bn1(self.conv1(x_NCHW, width), width)
        x = functional.relu(x, inplace=True)
        x = self._max_pool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, width, earlier if self.temporal_shift else None)
        return x

    def classify(self, features_ND: Tensor) -> Tensor:  # noqa: D102 - inherited
        logits_NL: Tensor = self.fc(features_ND)
        return logits_NL

    def _max_pool(self, x: Tensor) -> Tensor:
        if not self.same_padding:
            return functional.max_pool2d(x, 3, 2, 1)
        return functional.max_pool2d(pad_same(x, 3, 2), 3, 2)  # zeros are neutral: x is not negative


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, spec: ResidualBlockSpec, widths: Sequence[float], same_padding: bool) -> None:
        super().__init__()
        self.conv1 = SlimmableConv2d(
            spec.in_channels, spec.channels, 3, stride=spec.stride, same_padding=same_padding
        )
        self.bn1 = SlimmableBatchNorm2d(spec.channels, widths)
        self.conv2 = SlimmableConv2d(spec.channels, spec.out_channels, 3)
        self.bn2 = SlimmableBatchNorm2d(spec.out_channels, widths)
        self.downsample = _downsample(spec, widths) if spec.has_downsample else None

    def forward(self, x_NCHW: Tensor, width: float, earlier: Earlier | None) -> Tensor:
        shortcut = x_NCHW if self.downsample is None else self.downsample(x_NCHW, width)
        x = x_NCHW if earlier is None else shifted(x_NCHW, earlier)
        x = functional.relu(self.bn1(self.conv1(x, width), width), inplace=True)
        x = self.bn2(self.conv2(x, width), width)
        return functional.relu(x + shortcut, inplace=True)


class _Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride is the 3x3's."""

    def __init__(self, spec: ResidualBlockSpec, widths: Sequence[float], same_padding: bool) -> None:
        super().__init__()
        self.conv1 = SlimmableConv2d(spec.in_channels, spec.channels, 1)
        self.bn1 = SlimmableBatchNorm2d(spec.channels, widths)
        self.conv2 = SlimmableConv2d(
            spec.channels, spec.channels, 3, stride=spec.stride, same_padding=same_padding
        )
        self.bn2 = SlimmableBatchNorm2d(spec.channels, widths)
        self.conv3 = SlimmableConv2d(spec.channels, spec.out_channels, 1)
        self.bn3 = SlimmableBatchNorm2d(spec.out_channels, widths)
        self.downsample = _downsample(spec, widths) if spec.has_downsample else None

    def forward(self, x_NCHW: Tensor, width: float, earlier: Earlier | None) -> Tensor:
        shortcut = x_NCHW if self.downsample is None else self.downsample(x_NCHW, width)
        x = x_NCHW if earlier is None else shifted(x_NCHW, earlier)
        x = functional.relu(self.bn1(self.conv1(x, width), width), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x, width), width), inplace=True)
        x = self.bn3(self.conv3(x, width), width)
        return functional.relu(x + shortcut, inplace=True)


def _downsample(spec: ResidualBlockSpec, widths: Sequence[float]) -> SlimmableSequential:
    return SlimmableSequential(
        [
            SlimmableConv2d(spec.in_channels, spec.out_channels, 1, stride=spec.stride),
            SlimmableBatchNorm2d(spec.out_channels, widths),
        ]
    )
