"""What every part costs: multiply-accumulates (MACs), analytic and exact.

The unit of the literature, printed there as "FLOPs": MACs of convolutions, linear layers and GRUs.
Biases, normalisation, activations, pooling and additions are not counted. Pure integers, no torch; the
tests hold every count against torch's own counter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sdcom.architecture import (
    INVERTED_RESIDUALS,
    MOBILENET_DIVISOR,
    MOBILENET_FEATURES,
    MOBILENET_STEM_CHANNELS,
    MOBILENET_V4_CONV_SMALL,
    MOBILENET_V4_FEATURES,
    MOBILENET_V4_MAP_CHANNELS,
    MOBILENET_V4_STEM_CHANNELS,
    RESNETS,
    STEM_CHANNELS,
    STEM_KERNEL,
    Architecture,
    ConvSpec,
    InvertedResidualSpec,
    ResidualBlockSpec,
    ResNetSpec,
    UniversalInvertedSpec,
    check_full_width,
    feature_channels,
    feature_map_size,
    halved,
    map_channels,
    residual_stages,
    slim_channels,
)
from sdcom.config import ModelConfig

RGB_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class ModelMacs:
    """MACs of the parts of one model, per frame.

    Attributes:
        static: the static network's features; its auxiliary classifier serves training only.
        gate: one frame's embedding and its decision.
        gate_step: of `gate`, the decision alone: one step of the GRU and the choice.
        dynamic: the dynamic network's features at each width, ascending; 0 at width 0, which is never run.
        fusion: projection and one of the T classifiers.
        baseline_frame: the dynamic network at full width with its own classifier, as a TSN runs it on
            every frame: what the saving is measured against.
    """

    static: int
    gate: int
    gate_step: int
    dynamic: Mapping[float, int]
    fusion: int
    baseline_frame: int

    @property
    def dynamic_by_choice(self) -> tuple[int, ...]:
        """The dynamic network's MACs at each of the K widths, in the order of the gate's choices."""
        return tuple(self.dynamic.values())

    def baseline(self, num_frames: int) -> int:
        """Return what the full-width dynamic network spends on this many frames."""
        return num_frames * self.baseline_frame

    def floor(self, num_frames: int) -> int:
        """Return the least that this many frames can cost: static network, gate and fusion on each."""
        return num_frames * (self.static + self.gate + self.fusion)

    @property
    def gate_embedding(self) -> int:
        """Of `gate`, one frame's embedding alone."""
        return self.gate - self.gate_step

    def stream_floor(self, num_frames: int) -> int:
        """Return the least that this many frames cost in a stream whose window of as many slides.

        On every frame the gate runs over the whole window again.
        """
        return self.floor(num_frames) + num_frames * (num_frames - 1) * self.gate_step

    def total(self, widths: Sequence[float]) -> int:
        """Return what frames at these widths, one entry a frame, cost with all parts.

        Raises:
            KeyError: a width that this model does not have.
        """
        return self.floor(len(widths)) + sum(self.dynamic[width] for width in widths)

    def to_dict(self) -> dict[str, int | dict[str, int]]:
        """Return the per-frame counts for JSON, widths as strings."""
        return {
            "static": self.static,
            "gate": self.gate,
            "dynamic": {f"{width:g}": count for width, count in self.dynamic.items()},
            "fusion": self.fusion,
            "baseline_frame": self.baseline_frame,
        }


@lru_cache(maxsize=16)  # every request asks several times, and a process has few models
def model_macs(config: ModelConfig) -> ModelMacs:
    """Count every part of the model that `config` describes; all who ask share the counts."""
    crop = config.clip.crop
    dynamic = {
        width: backbone_macs(config.dynamic, width, crop) if width > 0 else 0 for width in config.widths
    }
    step = gate_step_macs(config)
    return ModelMacs(
        static=backbone_macs(config.static, 1.0, config.static_resolution),
        gate=gate_embedding_macs(config) + step,
        gate_step=step,
        dynamic=dynamic,
        fusion=fusion_macs(config),
        baseline_frame=dynamic[1.0] + linear_macs(feature_channels(config.dynamic), config.num_labels),
    )


def gate_embedding_macs(config: ModelConfig) -> int:
    """Return what the gate's embedding of one frame costs."""
    map_size = feature_map_size(config.static_resolution)
    squeezed = conv_macs(map_channels(config.static), config.gate_channels, 1, map_size)
    return squeezed + linear_macs(config.gate_channels * map_size**2, config.gate_features)


def gate_step_macs(config: ModelConfig) -> int:
    """Return what one decision costs: a step of the GRU and the linear layer to K choices."""
    step = gru_step_macs(config.gate_features, config.gate_hidden)
    return step + linear_macs(config.gate_hidden, config.num_widths)


def fusion_macs(config: ModelConfig) -> int:
    """Return the fusion head's MACs per frame: the projection and one classifier."""
    features = feature_channels(config.static) + feature_channels(config.dynamic)
    classifier = linear_macs(config.fusion_features, config.num_labels)
    return linear_macs(features, config.fusion_features) + classifier


def backbone_macs(architecture: Architecture, width: float, resolution: int) -> int:
    """Return the MACs of one frame's features (no classifier).

    Args:
        architecture: the network.
        width: in [0, 1]; at 0 that of the one-channel pseudo network, which only training runs.
        resolution: pixels of the square input.

    Raises:
        ValueError: the width is outside [0, 1], or not 1 for a network that is not slimmable.
    """
    if architecture == "mobilenet_v4_conv_small":
        check_full_width(architecture, width)
        return _mobilenet_v4_macs(resolution)
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


def _mobilenet_v4_macs(resolution: int) -> int:
    size = halved(resolution)
    total = conv_macs(RGB_CHANNELS, MOBILENET_V4_STEM_CHANNELS, 3, size)
    for layer in (layer for stage in MOBILENET_V4_CONV_SMALL for layer in stage):
        out_size = halved(size) if layer.stride == 2 else size
        if isinstance(layer, ConvSpec):
            total += conv_macs(layer.in_channels, layer.out_channels, layer.kernel_size, out_size)
        else:
            total += _universal_inverted_macs(layer, size, out_size)
        size = out_size
    return total + linear_macs(MOBILENET_V4_MAP_CHANNELS, MOBILENET_V4_FEATURES)  # the head, on the pool


def _universal_inverted_macs(block: UniversalInvertedSpec, in_size: int, out_size: int) -> int:
    first = conv_macs(1, block.in_channels, block.first_kernel, in_size)
    widen = conv_macs(block.in_channels, block.hidden_channels, 1, in_size)
    middle = conv_macs(1, block.hidden_channels, block.middle_kernel, out_size)
    return first + widen + middle + conv_macs(block.hidden_channels, block.out_channels, 1, out_size)
