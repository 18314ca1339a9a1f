"""Slimmable MobileNetV2 with torchvision's parameter names (arXiv:1801.04381)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from sdcom.architecture import (
    INVERTED_RESIDUALS,
    MOBILENET_DIVISOR,
    MOBILENET_FEATURES,
    MOBILENET_STEM_CHANNELS,
    InvertedResidualSpec,
)
from sdcom.models.slimmable import (
    Backbone,
    SlimmableBatchNorm2d,
    SlimmableConv2d,
    SlimmableLinear,
    SlimmableSequential,
)
from sdcom.models.temporal_shift import Earlier


class SlimmableMobileNetV2(Backbone):
    """A MobileNetV2 whose layers use their first channels, kept to multiples of 8 at every width.

    With `widths=(1.0,)` it is a plain MobileNetV2.

    Args:
        widths: those that it will run at; 1 among them.
        num_classes: L, outputs of its classifier.
        same_padding: pad stride-2 convolutions as TensorFlow does, for weights trained there.
        dropout: before the classifier, in training.
    """

    classifier_name = "classifier.1"

    def __init__(
        self,
        widths: Sequence[float],
        num_classes: int,
        same_padding: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        last_channels = INVERTED_RESIDUALS[-1].out_channels
        layers: list[nn.Module] = [
            ConvNormReLU6(3, MOBILENET_STEM_CHANNELS, 3, widths, stride=2, same_padding=same_padding)
        ]
        layers += [InvertedResidual(spec, widths, same_padding) for spec in INVERTED_RESIDUALS]
        layers.append(ConvNormReLU6(last_channels, MOBILENET_FEATURES, 1, widths))
        self.features = SlimmableSequential(layers)
        self.num_features = MOBILENET_FEATURES
        self.classifier = nn.Sequential(nn.Dropout(dropout), SlimmableLinear(MOBILENET_FEATURES, num_classes))
        nn.init.normal_(self.linear.weight, 0, 0.01)
        nn.init.zeros_(self.linear.bias)

    @property
    def linear(self) -> SlimmableLinear:
        """The classifier without its dropout."""
        layer = self.classifier[1]
        assert isinstance(layer, SlimmableLinear)
        return layer

    def feature_map(  # noqa: D102 - inherited
        self,
        x_NCHW: Tensor,
        width: float,
        earlier: Earlier | None = None,  # noqa: ARG002 - it shifts nothing
    ) -> Tensor:
        map_NCHW: Tensor = self.features(x_NCHW, width)
        return map_NCHW

    def classify(self, features_ND: Tensor) -> Tensor:  # noqa: D102 - inherited
        logits_NL: Tensor = self.classifier(features_ND)
        return logits_NL


class ConvNormReLU6(SlimmableSequential):
    """A convolution ("0"), its batch norm ("1") and a ReLU6."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        widths: Sequence[float],
        *,
        stride: int = 1,
        depthwise: bool = False,
        same_padding: bool = False,
    ) -> None:
        convolution = SlimmableConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            depthwise=depthwise,
            divisor=MOBILENET_DIVISOR,
            same_padding=same_padding,
        )
        super().__init__([convolution, SlimmableBatchNorm2d(out_channels, widths, divisor=MOBILENET_DIVISOR)])

    def forward(self, x_NCHW: Tensor, width: float) -> Tensor:
        """Convolve, normalise and clip to [0, 6]."""
        return functional.relu6(super().forward(x_NCHW, width), inplace=True)


class InvertedResidual(nn.Module):
    """Widen by 1x1 (not in the first block), convolve depthwise, project by 1x1 without activation."""

    def __init__(self, spec: InvertedResidualSpec, widths: Sequence[float], same_padding: bool) -> None:
        super().__init__()
        hidden = spec.hidden_channels
        layers: list[nn.Module] = []
        if spec.has_expansion:
            layers.append(ConvNormReLU6(spec.in_channels, hidden, 1, widths))
        layers += [
            ConvNormReLU6(
                hidden, hidden, 3, widths, stride=spec.stride, depthwise=True, same_padding=same_padding
            ),
            SlimmableConv2d(hidden, spec.out_channels, 1, divisor=MOBILENET_DIVISOR),
            SlimmableBatchNorm2d(spec.out_channels, widths, divisor=MOBILENET_DIVISOR),
        ]
        self.conv = SlimmableSequential(layers)
        self.has_shortcut = spec.has_shortcut

    def forward(self, x_NCHW: Tensor, width: float) -> Tensor:
        """Run the block at a width: [N, c, H, W] to [N, c', ceil(H / stride), ceil(W / stride)]."""
        projected: Tensor = self.conv(x_NCHW, width)
        return x_NCHW + projected if self.has_shortcut else projected
