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
    slim_channels,
    statistics_suffix,
)
from sdcom.engine.onnx_graphs.graph import Float32Array, Graph, WeightReader


class View(NamedTuple):
    """What a backbone gives: its last feature map [N, c, h, w] and the pooled features [N, D]."""

    map: str
    features: str


def backbone(
    graph: Graph, weights: WeightReader, architecture: Architecture, frames: str, *, width: float, same: bool
) -> View:
    """Add a backbone at a width.

    Args:
        graph: what to add it to.
        weights: the backbone's.
        architecture: which one.
        frames: normalised frames [N, 3, H, W].
        width: above 0.
        same: pad stride-2 layers as TensorFlow does.
    """
    layers = _Layers(graph, weights, width, same=same)
    match architecture:
        case "mobilenet_v2":
            return _mobilenet_v2(layers, frames)
        case "mobilenet_v4_conv_small":
            return _mobilenet_v4(layers, frames)
        case _:
            return _resnet(layers, architecture, frames)


class _Layers:
    """Adds layers that use the first channels of their weights."""

    def __init__(self, graph: Graph, weights: WeightReader, width: float, *, same: bool) -> None:
        self.graph = graph
        self.weights = weights
        self._width = width
        self._same = same
        self._suffix = statistics_suffix(width)

    def conv_norm(
        self, x: str, conv: str, norm: str, num_inputs: int, *, stride: int = 1, divisor: int = 1
    ) -> tuple[str, int]:
        """Add a convolution and its batch norm.

        Args:
            x: value with `num_inputs` channels.
            conv: name of the convolution.
            norm: name of the batch norm.
            num_inputs: channels.
            stride: of the convolution.
            divisor: of channel counts.

        Returns:
            The value and its channels.
        """
        full_OIHW = self.weights.read(f"{conv}.weight")
        depthwise = full_OIHW.shape[1] == 1 and num_inputs > 1
        num_outputs = num_inputs if depthwise else slim_channels(len(full_OIHW), self._width, divisor)
        weight_OIHW = full_OIHW[:num_outputs] if depthwise else full_OIHW[:num_outputs, :num_inputs]
        scale_O, shift_O = self.weights.norm(norm, self._suffix)
        folded_OIHW = weight_OIHW * scale_O[:, None, None, None]
        groups = num_inputs if depthwise else 1
        return self._convolution(x, folded_OIHW, shift_O, stride, groups), num_outputs

    def _convolution(
        self, x: str, weight_OIHW: Float32Array, bias_O: Float32Array, stride: int, groups: int
    ) -> str:
        kernel_size = weight_OIHW.shape[-1]
        padding: dict[str, object] = {"pads": [kernel_size // 2] * 4}
        if self._same and stride > 1:
            padding = {"auto_pad": "SAME_UPPER"}
        return self.graph.node(
            "Conv",
            x,
            self.graph.constant(weight_OIHW),
            self.graph.constant(bias_O),
            strides=[stride, stride],
            group=groups,
            **padding,
        )

    def max_pool(self, x: str) -> str:
        """Add a 3x3 max pool of stride 2 of values that are not negative."""
        padding: dict[str, object] = {"auto_pad": "SAME_UPPER"} if self._same else {"pads": [1] * 4}
        return self.graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], **padding)

    def relu(self, x: str) -> str:
        return self.graph.node("Relu", x)

    def add(self, x: str, y: str) -> str:
        return self.graph.node("Add", x, y)


def _mobilenet_v2(layers: _Layers, x: str) -> View:
    def conv_norm_relu6(x: str, name: str, num_channels: int, stride: int = 1) -> tuple[str, int]:
        x, num_channels = layers.conv_norm(
            x, f"{name}.0", f"{name}.1", num_channels, stride=stride, divisor=MOBILENET_DIVISOR
        )
        return layers.graph.relu6(x), num_channels

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
        x = layers.add(x, inner) if spec.has_shortcut else inner
    x, _ = conv_norm_relu6(x, f"features.{len(INVERTED_RESIDUALS) + 1}", num_channels)
    return View(x, layers.graph.pooled(x))


def _resnet(layers: _Layers, architecture: Architecture, x: str) -> View:
    spec = RESNETS[architecture]
    num_convolutions = 3 if spec.block == "bottleneck" else 2
    strided = (
        num_convolutions - 1
    )  # the 3x3 that takes the block's stride: a bottleneck's second, else the first
    x, num_channels = layers.conv_norm(x, "conv1", "bn1", 3, stride=2)
    x = layers.max_pool(layers.relu(x))
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
                )
                inner = layers.relu(inner) if number < num_convolutions else inner
            if block.has_downsample:
                x, _ = layers.conv_norm(
                    x, f"{name}.downsample.0", f"{name}.downsample.1", num_channels, stride=block.stride
                )
            x, num_channels = layers.relu(layers.add(inner, x)), num_inner
    return View(x, layers.graph.pooled(x))


def _mobilenet_v4(layers: _Layers, x: str) -> View:
    x, num_channels = layers.conv_norm(x, "conv_stem", "bn1", 3, stride=2)
    x = layers.relu(x)
    for stage, specs in enumerate(MOBILENET_V4_CONV_SMALL):
        for index, spec in enumerate(specs):
            name = f"blocks.{stage}.{index}"
            if isinstance(spec, ConvSpec):
                x, num_channels = layers.conv_norm(
                    x, f"{name}.conv", f"{name}.bn1", num_channels, stride=spec.stride
                )
                x = layers.relu(x)
            else:
                x, num_channels = _universal_inverted_bottleneck(layers, spec, name, x, num_channels)
    pooled = layers.graph.node("GlobalAveragePool", x)
    head, _ = layers.conv_norm(pooled, "conv_head", "norm_head", num_channels)
    return View(x, layers.graph.node("Flatten", layers.relu(head), axis=1))


def _universal_inverted_bottleneck(
    layers: _Layers, spec: UniversalInvertedSpec, name: str, x: str, num_channels: int
) -> tuple[str, int]:
    def conv_norm(x: str, layer: str, num_channels: int, stride: int = 1) -> tuple[str, int]:
        return layers.conv_norm(x, f"{name}.{layer}.conv", f"{name}.{layer}.bn", num_channels, stride=stride)

    inner, hidden = x, num_channels
    if spec.first_kernel:
        inner, hidden = conv_norm(inner, "dw_start", hidden)
    inner, hidden = conv_norm(inner, "pw_exp", hidden)
    inner = layers.relu(inner)
    if spec.middle_kernel:
        inner, hidden = conv_norm(inner, "dw_mid", hidden, spec.stride)
        inner = layers.relu(inner)
    inner, num_channels = conv_norm(inner, "pw_proj", hidden)
    return (layers.add(x, inner) if spec.has_shortcut else inner), num_channels
