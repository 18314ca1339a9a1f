"""What every part costs: multiply-accumulates (MACs), analytic and exact.

The unit of the literature, printed there as "FLOPs": MACs of convolutions, linear layers and GRUs.
Biases, normalisation, activations, pooling and additions are not counted. Pure integers, no torch; the
tests hold every count against torch's own counter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sdcom.architecture import (
    INVERTED_RESIDUALS,
    MOBILENET_DIVISOR,
    MOBILENET_FEATURES,
    MOBILENET_STEM_CHANNELS,
    RESNETS,
    STEM_CHANNELS,
    STEM_KERNEL,
    Architecture,
    InvertedResidualSpec,
    ResidualBlockSpec,
    ResNetSpec,
    feature_channels,
    feature_map_size,
    halved,
    residual_stages,
    slim_channels,
)
from sdcom.config import ModelConfig

RGB_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class ModelMacs:
    """MACs of the parts of one model, per frame unless said otherwise.

    Attributes:
        num_frames: T, frames per video.
        static: the static network's features; its auxiliary classifier serves training only.
        gate: one frame's embedding, one step of the GRU and the choice.
        dynamic: the dynamic network's features at each width; 0 at width 0, which is never run.
        fusion: projection and one of the T classifiers.
        baseline: per VIDEO, the dynamic network at full width with its own classifier on all T frames
            (TSN): what the saving is measured against.
    """

    num_frames: int
    static: int
    gate: int
    dynamic: dict[float, int]
    fusion: int
    baseline: int

    @property
    def fixed(self) -> int:
        """Per frame, what is spent whatever the width: static network, gate and fusion."""
        return self.static + self.gate + self.fusion

    @property
    def floor(self) -> int:
        """Per video, the least that can be spent: every frame at width 0."""
        return self.num_frames * self.fixed

    def total(self, widths: Sequence[float]) -> int:
        """Return what frames at these widths cost together, one entry a frame.

        Raises:
            KeyError: a width that this model does not have.
        """
        return len(widths) * self.fixed + sum(self.dynamic[width] for width in widths)


def macs(config: ModelConfig) -> ModelMacs:
    """Count every part of the model that `config` describes."""
    crop = config.clip.crop
    dynamic = {
        width: backbone_macs(config.dynamic, width, crop) if width > 0 else 0 for width in config.widths
    }
    dynamic_features = feature_channels(config.dynamic)
    classifier = linear_macs(dynamic_features, config.num_labels)
    return ModelMacs(
        num_frames=config.clip.num_frames,
        static=backbone_macs(config.static, 1.0, config.static_resolution),
        gate=gate_macs(config),
        dynamic=dynamic,
        fusion=fusion_macs(config),
        baseline=config.clip.num_frames * (dynamic[1.0] + classifier),
    )


def gate_macs(config: ModelConfig) -> int:
    """Return the gate's MACs per frame."""
    map_size = feature_map_size(config.static_resolution)
    squeezed = conv_macs(feature_channels(config.static), config.gate_channels, 1, map_size)
    embedded = linear_macs(config.gate_channels * map_size**2, config.gate_features)
    step = gru_step_macs(config.gate_features, config.gate_hidden)
    return squeezed + embedded + step + linear_macs(config.gate_hidden, config.num_widths)


def fusion_macs(config: ModelConfig) -> int:
    """Return the fusion head's MACs per frame: the projection and one classifier."""
    features = feature_channels(config.static) + feature_channels(config.dynamic)
    classifier = linear_macs(config.fusion_features, config.num_labels)
    return linear_macs(features, config.fusion_features) + classifier


def backbone_macs(architecture: Architecture, width: float, resolution: int) -> int:
    """Return the MACs of one frame's feature map (no classifier).

    Args:
        architecture: the network.
        width: in [0, 1]; at 0 that of the one-channel pseudo network, which only training runs.
        resolution: pixels of the square input.
    """
    if architecture == "mobilenet_v2":
        return _mobilenet_v2_macs(width, resolution)
    return _resnet_macs(RESNETS[architecture], width, resolution)


def conv_macs(in_channels: int, out_channels: int, kernel_size: int, out_size: int) -> int:
    """Return the MACs of a square convolution giving an `out_size` x `out_size` map.

    For a depthwise one `in_channels` is 1: each output channel reads one.
    """
    return in_channels * out_channels * kernel_size**2 * out_size**2


def linear_macs(in_features: int, out_features: int) -> int:
    """Return the MACs of a linear layer on one vector."""
    return in_features * out_features


def gru_step_macs(in_features: int, hidden: int) -> int:
    """Return the MACs of one step of a GRU: three gates, each reading the input and the state."""
    return 3 * hidden * (in_features + hidden)


def _resnet_macs(spec: ResNetSpec, width: float, resolution: int) -> int:
    size = halved(resolution)
    total = conv_macs(RGB_CHANNELS, slim_channels(STEM_CHANNELS, width), STEM_KERNEL, size)
    size = halved(size)  # max pooling
    for block in (block for stage in residual_stages(spec) for block in stage):
        out_size = halved(size) if block.stride == 2 else size
        total += _residual_block_macs(spec, block, width, size, out_size)
        size = out_size
    return total


def _residual_block_macs(
    spec: ResNetSpec, block: ResidualBlockSpec, width: float, in_size: int, out_size: int
) -> int:
    inputs = slim_channels(block.in_channels, width)
    inner = slim_channels(block.channels, width)
    outputs = slim_channels(block.out_channels, width)
    downsample = conv_macs(inputs, outputs, 1, out_size) if block.has_downsample else 0
    if spec.block == "basic":
        return downsample + conv_macs(inputs, inner, 3, out_size) + conv_macs(inner, outputs, 3, out_size)
    reduce = conv_macs(inputs, inner, 1, in_size)
    spatial = conv_macs(inner, inner, 3, out_size)
    return downsample + reduce + spatial + conv_macs(inner, outputs, 1, out_size)


def _mobilenet_v2_macs(width: float, resolution: int) -> int:
    size = halved(resolution)
    stem = slim_channels(MOBILENET_STEM_CHANNELS, width, MOBILENET_DIVISOR)
    total = conv_macs(RGB_CHANNELS, stem, 3, size)
    for block in INVERTED_RESIDUALS:
        out_size = halved(size) if block.stride == 2 else size
        total += _inverted_residual_macs(block, width, size, out_size)
        size = out_size
    last = slim_channels(INVERTED_RESIDUALS[-1].out_channels, width, MOBILENET_DIVISOR)
    return total + conv_macs(last, slim_channels(MOBILENET_FEATURES, width, MOBILENET_DIVISOR), 1, size)


def _inverted_residual_macs(block: InvertedResidualSpec, width: float, in_size: int, out_size: int) -> int:
    inputs = slim_channels(block.in_channels, width, MOBILENET_DIVISOR)
    hidden = slim_channels(block.hidden_channels, width, MOBILENET_DIVISOR)
    outputs = slim_channels(block.out_channels, width, MOBILENET_DIVISOR)
    expand = conv_macs(inputs, hidden, 1, in_size) if block.has_expansion else 0
    return expand + conv_macs(1, hidden, 3, out_size) + conv_macs(hidden, outputs, 1, out_size)
