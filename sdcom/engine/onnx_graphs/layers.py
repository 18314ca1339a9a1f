"""The layers that backbones are made of, as ONNX nodes at one width, their batch norms folded."""

from typing import Literal, NamedTuple

import numpy as np
from onnx import TensorProto

from sdcom.architecture import slim_channels, statistics_suffix
from sdcom.config import ClipConfig
from sdcom.engine.onnx_graphs.graph import Float32Array, Graph, WeightReader

Activation = Literal["relu", "relu6"]


class Convolution(NamedTuple):
    """A convolution with the batch norm after it folded in; depthwise where it has groups.

    Attributes:
        name: of the layer.
        weight_OIHW: one input channel where it is depthwise.
        bias_O: of each output channel.
        stride: along both axes.
        groups: 1, or as many as there are channels.
    """

    name: str
    weight_OIHW: Float32Array
    bias_O: Float32Array
    stride: int
    groups: int


class Layers:
    """Adds layers that use the first channels of their weights, in float32.

    Args:
        graph: what to add them to.
        weights: the backbone's.
        width: above 0.
        same: pad stride-2 layers as TensorFlow does.
    """

    def __init__(self, graph: Graph, weights: WeightReader, width: float, *, same: bool) -> None:
        self.graph = graph
        self.weights = weights
        self._width = width
        self._same = same
        self._suffix = statistics_suffix(width)

    def in_float32(self) -> "Layers":
        """Return what adds layers of the same backbone in float32, whatever this one computes in."""
        return Layers(self.graph, self.weights, self._width, same=self._same)

    def frames(self, pixels: str, clip: ClipConfig, *, whole: bool) -> str:  # noqa: ARG002 - for int8
        """Add the normalisation of RGB pixels.

        Args:
            pixels: [N, 3, H, W] in [0, 255].
            clip: what is subtracted and divided by.
            whole: they are uint8, else float32.
        """
        mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (clip.mean, clip.std))
        pixels = self.graph.node("Cast", pixels, to=TensorProto.FLOAT)
        scaled = self.graph.node("Mul", pixels, self.graph.constant(np.float32(1) / (255 * std)))
        return self.graph.node("Sub", scaled, self.graph.constant(mean / std))

    def conv_norm(
        self,
        x: str,
        conv: str,
        norm: str,
        num_inputs: int,
        *,
        stride: int = 1,
        divisor: int = 1,
        activation: Activation | None = None,
    ) -> tuple[str, int]:
        """Add a convolution, its batch norm and its activation.

        Args:
            x: value with `num_inputs` channels.
            conv: name of the convolution.
            norm: name of the batch norm.
            num_inputs: channels.
            stride: of the convolution.
            divisor: of channel counts.
            activation: after the batch norm.

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
        y = self._convolution(x, Convolution(conv, folded_OIHW, shift_O, stride, groups))
        return self._kept(self._activated(y, activation), conv), num_outputs

    def add(self, x: str, y: str, name: str, activation: Activation | None = None) -> str:
        """Add two values and an activation; `name` is the block's that ends so."""
        return self._kept(self._activated(self.graph.node("Add", x, y), activation), name)

    def max_pool(self, x: str) -> str:
        """Add a 3x3 max pool of stride 2 of values that are not negative."""
        padding: dict[str, object] = {"auto_pad": "SAME_UPPER"} if self._same else {"pads": [1] * 4}
        return self.graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], **padding)

    def _convolution(self, x: str, conv: Convolution) -> str:
        return self._conv_node(
            x, self.graph.constant(conv.weight_OIHW), self.graph.constant(conv.bias_O), conv
        )

    def _conv_node(self, x: str, weight: str, bias: str, conv: Convolution) -> str:
        """Add a convolution's node, of weights and a bias that are in the graph."""
        padding: dict[str, object] = {"pads": [conv.weight_OIHW.shape[-1] // 2] * 4}
        if self._same and conv.stride > 1:
            padding = {"auto_pad": "SAME_UPPER"}
        strides = [conv.stride, conv.stride]
        return self.graph.node("Conv", x, weight, bias, strides=strides, group=conv.groups, **padding)

    def _activated(self, x: str, activation: Activation | None) -> str:
        match activation:
            case "relu":
                return self.graph.node("Relu", x)
            case "relu6":
                return self.graph.relu6(x)
            case None:
                return x

    def _kept(self, x: str, name: str) -> str:  # noqa: ARG002 - for those who override
        """Return a value that other layers read, as they are to read it; `name` is the layer's."""
        return x
