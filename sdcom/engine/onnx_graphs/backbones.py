"""The backbones as ONNX nodes, at one width: the layers of `sdcom.models`, their batch norms folded.

Each reads the same tables (`sdcom.architecture`) and the same weights as the torch module of its name, and
the tests hold the one against the other.
"""

from typing import NamedTuple

from sdcom.architecture import (
    INVERTED_RESIDUALS,
    MOBILENET_DIVISOR,
    MOBILENET_V4_CONV_SMALL,
    RESNETS,
    Architecture,
    ConvSpec,
    UniversalInvertedSpec,
    residual_stages,
)
from sdcom.engine.onnx_graphs.layers import Activation, Layers


class View(NamedTuple):
    """What a backbone gives: its last feature map [N, c, h, w] and the pooled features [N, D]."""

    map: str
    features: str


def backbone(layers: Layers, architecture: Architecture, frames: str) -> View:
    """Add a backbone.

    Args:
        layers: of its weights, at its width.
        architecture: which one.
        frames: normalised frames [N, 3, H, W].
    """
    match architecture:
        case "mobilenet_v2":
            return _mobilenet_v2(layers, frames)
        case "mobilenet_v4_conv_small":
            return _mobilenet_v4(layers, frames)
        case _:
            return _resnet(layers, architecture, frames)


def _mobilenet_v2(layers: Layers, x: str) -> View:
    def conv_norm_relu6(x: str, name: str, num_channels: int, stride: int = 1) -> tuple[str, int]:
        return layers.conv_norm(
            x,
            f"{name}.0",
            f"{name}.1",
            num_channels,
            stride=stride,
            divisor=MOBILENET_DIVISOR,
            activation="relu6",
        )

    x, num_channels = conv_norm_relu6(x, "features.0", 3, stride=2)
    for position, spec in enumerate(INVERTED_RESIDUALS, start=1):
        block, inner, hidden, layer = f"features.{position}.conv", x, num_channels, 0
        if spec.has_expansion:
            inner, hidden = conv_norm_relu6(inner, f"{block}.{layer}", hidden)
            layer += 1
        inner, hidden = conv_norm_relu6(inner, f"{block}.{layer}", hidden, spec.stride)
        inner, num_channels = layers.conv_norm(
            inner, f"{block}.{layer + 1}", f"{block}.{layer + 2}", hidden, divisor=MOBILENET_DIVISOR
        )
        x = layers.add(x, inner, f"features.{position}") if spec.has_shortcut else inner
    x, _ = conv_norm_relu6(x, f"features.{len(INVERTED_RESIDUALS) + 1}", num_channels)
    return View(x, layers.graph.pooled(x))


def _resnet(layers: Layers, architecture: Architecture, x: str) -> View:
    spec = RESNETS[architecture]
    num_convolutions = 3 if spec.block == "bottleneck" else 2
    strided = (
        num_convolutions - 1
    )  # the 3x3 that takes the block's stride: a bottleneck's second, else the first
    x, num_channels = layers.conv_norm(x, "conv1", "bn1", 3, stride=2, activation="relu")
    x = layers.max_pool(x)
    for stage, blocks in enumerate(residual_stages(spec), start=1):
        for index, block in enumerate(blocks):
            name, inner, num_inner = f"layer{stage}.{index}", x, num_channels
            for number in range(1, num_convolutions + 1):
                inner, num_inner = layers.conv_norm(
                    inner,
                    f"{name}.conv{number}",
                    f"{name}.bn{number}",
                    num_inner,
                    stride=block.stride if number == strided else 1,
                    activation="relu" if number < num_convolutions else None,
                )
            if block.has_downsample:
                x, _ = layers.conv_norm(
                    x, f"{name}.downsample.0", f"{name}.downsample.1", num_channels, stride=block.stride
                )
            x, num_channels = layers.add(inner, x, name, "relu"), num_inner
    return View(x, layers.graph.pooled(x))


def _mobilenet_v4(layers: Layers, x: str) -> View:
    x, num_channels = layers.conv_norm(x, "conv_stem", "bn1", 3, stride=2, activation="relu")
    for stage, specs in enumerate(MOBILENET_V4_CONV_SMALL):
        for index, spec in enumerate(specs):
            name = f"blocks.{stage}.{index}"
            if isinstance(spec, ConvSpec):
                x, num_channels = layers.conv_norm(
                    x, f"{name}.conv", f"{name}.bn1", num_channels, stride=spec.stride, activation="relu"
                )
            else:
                x, num_channels = _universal_inverted_bottleneck(layers, spec, name, x, num_channels)
    pooled = layers.graph.node("GlobalAveragePool", x)
    head, _ = layers.in_float32().conv_norm(pooled, "conv_head", "norm_head", num_channels, activation="relu")
    return View(x, layers.graph.node("Flatten", head, axis=1))


def _universal_inverted_bottleneck(
    layers: Layers, spec: UniversalInvertedSpec, name: str, x: str, num_channels: int
) -> tuple[str, int]:
    def conv_norm(
        x: str, layer: str, num_channels: int, stride: int = 1, activation: Activation | None = None
    ) -> tuple[str, int]:
        return layers.conv_norm(
            x,
            f"{name}.{layer}.conv",
            f"{name}.{layer}.bn",
            num_channels,
            stride=stride,
            activation=activation,
        )

    inner, hidden = x, num_channels
    if spec.first_kernel:
        inner, hidden = conv_norm(inner, "dw_start", hidden)
    inner, hidden = conv_norm(inner, "pw_exp", hidden, activation="relu")
    if spec.middle_kernel:
        inner, hidden = conv_norm(inner, "dw_mid", hidden, spec.stride, activation="relu")
    inner, num_channels = conv_norm(inner, "pw_proj", hidden)
    return (layers.add(x, inner, name) if spec.has_shortcut else inner), num_channels
