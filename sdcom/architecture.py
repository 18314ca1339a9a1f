"""The tables of the networks: channels, blocks and strides, shared by the torch modules and the MAC counts.

Pure: no torch, so that costs and plans can be computed where torch is not installed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sdcom.config import DynamicArchitecture, StaticArchitecture

Architecture = Literal[DynamicArchitecture, StaticArchitecture]

STEM_KERNEL = 7
STEM_CHANNELS = 64
STAGE_CHANNELS = (64, 128, 256, 512)

NORM_EPS = 1e-5
"""Added to the variance by every batch norm."""

MOBILENET_STEM_CHANNELS = 32
MOBILENET_FEATURES = 1280
MOBILENET_DIVISOR = 8

MOBILENET_V4_STEM_CHANNELS = 32
MOBILENET_V4_MAP_CHANNELS = 960
MOBILENET_V4_FEATURES = 1280


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """One ResNet (arXiv:1512.03385, table 1; the stride of a bottleneck on its 3x3, as in torchvision).

    Attributes:
        block: two 3x3 convolutions ("basic") or 1x1, 3x3, 1x1 ("bottleneck").
        blocks: blocks in each of the four stages.
    """

    block: Literal["basic", "bottleneck"]
    blocks: tuple[int, int, int, int]

    @property
    def expansion(self) -> int:
        """Output channels of a block as a multiple of its inner channels."""
        return 4 if self.block == "bottleneck" else 1


RESNETS: Mapping[Architecture, ResNetSpec] = {
    "resnet18": ResNetSpec("basic", (2, 2, 2, 2)),
    "resnet34": ResNetSpec("basic", (3, 4, 6, 3)),
    "resnet50": ResNetSpec("bottleneck", (3, 4, 6, 3)),
    "resnet101": ResNetSpec("bottleneck", (3, 4, 23, 3)),
}


@dataclass(frozen=True, slots=True)
class ResidualBlockSpec:
    """One block of a ResNet at full width.

    Attributes:
        in_channels: channels that it reads.
        channels: its inner channels.
        out_channels: channels that it gives.
        stride: 1 or 2.
    """

    in_channels: int
    channels: int
    out_channels: int
    stride: int

    @property
    def has_downsample(self) -> bool:
        """Whether the shortcut needs a 1x1 convolution to match the block's output."""
        return self.stride != 1 or self.in_channels != self.out_channels


def residual_stages(spec: ResNetSpec) -> tuple[tuple[ResidualBlockSpec, ...], ...]:
    """Return the blocks of each of the four stages, in network order."""
    stages = []
    in_channels = STEM_CHANNELS
    for index, (channels, num_blocks) in enumerate(zip(STAGE_CHANNELS, spec.blocks, strict=True)):
        out_channels = channels * spec.expansion
        stride = 1 if index == 0 else 2
        first = ResidualBlockSpec(in_channels, channels, out_channels, stride)
        rest = ResidualBlockSpec(out_channels, channels, out_channels, 1)
        stages.append((first, *([rest] * (num_blocks - 1))))
        in_channels = out_channels
    return tuple(stages)


@dataclass(frozen=True, slots=True)
class InvertedResidualSpec:
    """One inverted residual of MobileNetV2 at full width (arXiv:1801.04381, table 2).

    Attributes:
        in_channels: channels that it reads.
        hidden_channels: channels of its depthwise convolution.
        out_channels: channels that it gives.
        stride: 1 or 2, of the depthwise convolution.
    """

    in_channels: int
    hidden_channels: int
    out_channels: int
    stride: int

    @property
    def has_expansion(self) -> bool:
        """Whether a 1x1 convolution widens the input first (not in the first block)."""
        return self.hidden_channels != self.in_channels

    @property
    def has_shortcut(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.out_channels


def _inverted_residuals() -> tuple[InvertedResidualSpec, ...]:
    # (expansion, output channels, blocks, stride of the first), the rows of the paper's table 2
    table = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    blocks = []
    in_channels = MOBILENET_STEM_CHANNELS
    for expansion, out_channels, num_blocks, first_stride in table:
        for index in range(num_blocks):
            stride = first_stride if index == 0 else 1
            blocks.append(InvertedResidualSpec(in_channels, in_channels * expansion, out_channels, stride))
            in_channels = out_channels
    return tuple(blocks)


INVERTED_RESIDUALS: tuple[InvertedResidualSpec, ...] = _inverted_residuals()


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """One convolution with batch norm and ReLU."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int


@dataclass(frozen=True, slots=True)
class UniversalInvertedSpec:
    """One universal inverted bottleneck of MobileNetV4 (arXiv:2404.10518, section 3).

    Attributes:
        in_channels: channels that it reads.
        hidden_channels: after the 1x1 convolution that widens.
        out_channels: channels that it gives.
        first_kernel: of the depthwise convolution before the widening; 0 if there is none.
        middle_kernel: of the depthwise convolution after it; 0 if there is none.
        stride: 1 or 2, of the depthwise convolution in the middle.
    """

    in_channels: int
    hidden_channels: int
    out_channels: int
    first_kernel: int
    middle_kernel: int
    stride: int

    @property
    def has_shortcut(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.out_channels


def _universal_stage(
    in_channels: int, out_channels: int, table: tuple[tuple[int, int, int], ...]
) -> tuple[UniversalInvertedSpec, ...]:
    """Return a stage's blocks; the first has stride 2.

    Args:
        in_channels: of the first block.
        out_channels: of every block.
        table: kernel of the first depthwise convolution, of the middle one, and expansion, of each block.
    """
    blocks = []
    for index, (first, middle, expansion) in enumerate(table):
        stride = 2 if index == 0 else 1
        hidden = in_channels * expansion
        blocks.append(UniversalInvertedSpec(in_channels, hidden, out_channels, first, middle, stride))
        in_channels = out_channels
    return tuple(blocks)


MOBILENET_V4_CONV_SMALL: tuple[tuple[ConvSpec | UniversalInvertedSpec, ...], ...] = (
    (ConvSpec(MOBILENET_V4_STEM_CHANNELS, 32, 3, 2), ConvSpec(32, 32, 1, 1)),
    (ConvSpec(32, 96, 3, 2), ConvSpec(96, 64, 1, 1)),
    _universal_stage(64, 96, ((5, 5, 3), (0, 3, 2), (0, 3, 2), (0, 3, 2), (0, 3, 2), (3, 0, 4))),
    _universal_stage(96, 128, ((3, 3, 6), (5, 5, 4), (0, 5, 4), (0, 5, 3), (0, 3, 4), (0, 3, 4))),
    (ConvSpec(128, MOBILENET_V4_MAP_CHANNELS, 1, 1),),
)
"""The stages between stem and head (arXiv:2404.10518, MNv4-Conv-S)."""


def slim_channels(channels: int, width: float, divisor: int = 1) -> int:
    """Return how many of a layer's first channels are used at a width.

    Args:
        channels: the layer's channels at width 1.
        width: in [0, 1]. 0 leaves the fewest that a network can have: the pseudo network of stage 1.
        divisor: 1 for ResNets: `max(1, int(channels * width))`. MobileNetV2 keeps counts to multiples
            of 8: the nearest one, at least 8, and not under 90 % of the exact count (arXiv:1801.04381,
            `_make_divisible` of its code).

    Returns:
        A count in [1, channels], and [divisor, channels] where `divisor` divides `channels`.

    Raises:
        ValueError: the width is outside [0, 1].
    """
    if not 0 <= width <= 1:
        raise ValueError(f"a width must be in [0, 1], got {width}")
    exact = channels * width
    if divisor == 1:
        return max(1, int(exact))
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * exact else rounded


def statistics_suffix(width: float) -> str:
    """Return what a width adds to the names of its running statistics: "" at 1, "_w25" at 0.25."""
    return "" if width == 1 else f"_w{round(width * 100):02d}"


def channel_divisor(architecture: Architecture) -> int:
    """Return the number that the architecture's channel counts are kept multiples of at every width."""
    return MOBILENET_DIVISOR if architecture == "mobilenet_v2" else 1


def map_channels(architecture: Architecture) -> int:
    """Return the channels of the last feature map at full width, which the gate reads."""
    if architecture == "mobilenet_v4_conv_small":
        return MOBILENET_V4_MAP_CHANNELS
    return feature_channels(architecture)


def feature_channels(architecture: Architecture, width: float = 1.0) -> int:
    """Return the size of the pooled features at a width (at 0: of the pseudo network).

    Raises:
        ValueError: the width is outside [0, 1], or not 1 for a network that is not slimmable.
    """
    if architecture == "mobilenet_v4_conv_small":
        check_full_width(architecture, width)
        return MOBILENET_V4_FEATURES
    if architecture == "mobilenet_v2":
        return slim_channels(MOBILENET_FEATURES, width, MOBILENET_DIVISOR)
    return slim_channels(STAGE_CHANNELS[-1] * RESNETS[architecture].expansion, width)


def check_full_width(architecture: Architecture, width: float) -> None:
    """Refuse other widths than 1 for a network that is not slimmable.

    Raises:
        ValueError: the width is not 1.
    """
    if width != 1:
        raise ValueError(f"{architecture} is a static network: it runs at width 1 alone, got {width}")


def halved(size: int) -> int:
    """Return the side of a map after a layer of stride 2: every one here gives half, rounded up."""
    return (size + 1) // 2


def feature_map_size(resolution: int) -> int:
    """Return the side of the last feature map for square inputs of `resolution` pixels.

    All architectures here halve five times.
    """
    size = resolution
    for _ in range(5):
        size = halved(size)
    return size
