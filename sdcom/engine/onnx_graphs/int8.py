"""Layers that compute in int8, and layers that find out what those have to know.

Weights are symmetric int8 with a step for each output channel, values between layers uint8 with one step and
zero point each (arXiv:1712.05877). Pairs of QuantizeLinear and DequantizeLinear say so, and ONNX Runtime
puts integer kernels in the place of what stands between them.

Rounding a weight moves its channel's mean: after ReLU the inputs do not average to zero, and with the few
weights of a depthwise layer the errors do not average out. That shift is measured, and taken off the bias
(arXiv:1906.04721, 4.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdcom.config import ClipConfig
from sdcom.engine.onnx_graphs.graph import Float32Array, Graph, WeightReader
from sdcom.engine.onnx_graphs.layers import Convolution, Layers
from sdcom.errors import ModelDirectoryError

_WEIGHT_LEVELS = 127
_VALUE_LEVELS = 255
_LARGEST_BIAS = 2**30  # of a bias's 32 bits, the sums' share left free


class LayerRange(NamedTuple):
    """What int8 has to know of a layer.

    Attributes:
        lowest: value that it gives.
        highest: value.
        error_O: how far rounding its weights moves each output channel's mean; empty where it has none.
    """

    lowest: float
    highest: float
    error_O: Float32Array


LayerRanges = Mapping[str, LayerRange]
"""By the layer's name."""


@dataclass(frozen=True, slots=True)
class Int8Ranges:
    """What int8 has to know of a model.

    Attributes:
        static: of the static network's layers; None leaves it in float32.
        dynamic: of the dynamic network's, by width.
    """

    static: LayerRanges | None
    dynamic: Mapping[float, LayerRanges]


class Scale(NamedTuple):
    """How a value is stored: it is step * (stored - zero)."""

    step: float
    zero: int


def scale_of(lowest: float, highest: float) -> Scale:
    """Return the scale whose 256 levels span a range and 0, which is one of them: padding is 0."""
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    step = (highest - lowest) / _VALUE_LEVELS or 1.0
    return Scale(step, round(-lowest / step))


class Int8Layers(Layers):
    """Adds layers in int8.

    Args:
        graph: what to add them to.
        weights: the backbone's.
        width: above 0.
        same: pad stride-2 layers as TensorFlow does.
        ranges: of every layer, at this width.
    """

    def __init__(
        self, graph: Graph, weights: WeightReader, width: float, *, same: bool, ranges: LayerRanges
    ) -> None:
        super().__init__(graph, weights, width, same=same)
        self._ranges = ranges
        self._scales: dict[str, Scale] = {}
        self._pixels: dict[str, ClipConfig] = {}

    def frames(self, pixels: str, clip: ClipConfig, *, whole: bool) -> str:
        """Add nothing to uint8 pixels: the first convolution takes the normalisation in."""
        if not whole:
            pixels = self.graph.node("QuantizeLinear", pixels, *self._constants(Scale(1.0, 0)))
        x = self._dequantized(pixels, Scale(1.0, round(255 * sum(clip.mean) / len(clip.mean))))
        self._pixels[x] = clip
        return x

    def max_pool(self, x: str) -> str:
        """Add a 3x3 max pool of stride 2 of values that are not negative."""
        return self._quantized(super().max_pool(x), self._scales[x])

    def _convolution(self, x: str, conv: Convolution) -> str:
        scale = self._scales[x]
        conv = conv._replace(bias_O=conv.bias_O - self._range(conv.name).error_O)
        if x in self._pixels:
            conv = _of_pixels(conv, self._pixels[x], scale.zero)
        # Of channels that are as good as dead, steps may be too small for the bias to be a number of them.
        least_O = np.abs(conv.bias_O) / (scale.step * _LARGEST_BIAS)
        steps_O = np.maximum(_weight_steps(conv.weight_OIHW), least_O).astype(np.float32)
        stored_OIHW = np.rint(conv.weight_OIHW / steps_O[:, None, None, None]).astype(np.int8)
        bias_steps_O = steps_O * np.float32(scale.step)
        stored_O = np.rint(conv.bias_O / bias_steps_O).astype(np.int32)
        weight, bias = self._by_channel(stored_OIHW, steps_O), self._by_channel(stored_O, bias_steps_O)
        return self._conv_node(x, weight, bias, conv)

    def _kept(self, x: str, name: str) -> str:
        layer = self._range(name)
        return self._quantized(x, scale_of(layer.lowest, layer.highest))

    def _range(self, name: str) -> LayerRange:
        try:
            return self._ranges[name]
        except KeyError:
            raise ModelDirectoryError(f"the ranges for int8 lack the layer {name}") from None

    def _quantized(self, x: str, scale: Scale) -> str:
        return self._dequantized(self.graph.node("QuantizeLinear", x, *self._constants(scale)), scale)

    def _dequantized(self, stored: str, scale: Scale) -> str:
        x = self.graph.node("DequantizeLinear", stored, *self._constants(scale))
        self._scales[x] = scale
        return x

    def _constants(self, scale: Scale) -> tuple[str, str]:
        step, zero = np.array(scale.step, np.float32), np.array(scale.zero, np.uint8)
        return self.graph.constant(step), self.graph.constant(zero)

    def _by_channel(self, stored: npt.NDArray[np.signedinteger], steps_O: Float32Array) -> str:
        parts = (stored, steps_O, np.zeros(len(steps_O), stored.dtype))
        return self.graph.node("DequantizeLinear", *map(self.graph.constant, parts), axis=0)


class ObservedLayers(Layers):
    """Adds layers in float32, and beside them what int8 has to know of each.

    Args:
        graph: what to add them to.
        weights: the backbone's.
        width: above 0.
        same: pad stride-2 layers as TensorFlow does.

    Attributes:
        values: what each layer gives, by its name, in the order of the layers.
        errors: what rounding its weights adds to each output channel on average [O], of each convolution.
        num_outputs: channels of each convolution.
    """

    def __init__(self, graph: Graph, weights: WeightReader, width: float, *, same: bool) -> None:
        super().__init__(graph, weights, width, same=same)
        self.values: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.num_outputs: dict[str, int] = {}
        self._pixels: dict[str, ClipConfig] = {}

    def frames(self, pixels: str, clip: ClipConfig, *, whole: bool) -> str:
        """Add the normalisation of RGB pixels, and remember that they are."""
        x = super().frames(pixels, clip, whole=whole)
        self._pixels[x] = clip
        return x

    def extremes(self) -> tuple[str, str]:
        """Add each frame's least and largest value of every layer: two of [N, layers]."""
        flat = [self.graph.node("Flatten", value, axis=1) for value in self.values.values()]
        lowest, highest = (
            self.graph.node(
                "Concat", *(self.graph.node(kind, each, axes=[1], keepdims=1) for each in flat), axis=1
            )
            for kind in ("ReduceMin", "ReduceMax")
        )
        return lowest, highest

    def _convolution(self, x: str, conv: Convolution) -> str:
        per_pixel_I11 = _deviations(self._pixels[x]) if x in self._pixels else np.float32(1)
        stored_OIHW = conv.weight_OIHW / per_pixel_I11
        rounding_OIHW = (_rounded(stored_OIHW) - stored_OIHW) * per_pixel_I11
        error = super()._convolution(
            x, conv._replace(weight_OIHW=rounding_OIHW, bias_O=np.zeros_like(conv.bias_O))
        )
        self.errors[conv.name] = self.graph.node("ReduceMean", error, axes=[0, 2, 3], keepdims=0)
        self.num_outputs[conv.name] = len(conv.bias_O)
        return super()._convolution(x, conv)

    def _kept(self, x: str, name: str) -> str:
        self.values[name] = x
        return x


def _weight_steps(weight_OIHW: Float32Array) -> Float32Array:
    """Return each output channel's step: its largest weight is 127 of them."""
    largest_O = np.abs(weight_OIHW).max(axis=(1, 2, 3))
    return np.where(largest_O > 0, largest_O / _WEIGHT_LEVELS, 1).astype(np.float32)


def _rounded(weight_OIHW: Float32Array) -> Float32Array:
    steps_O111 = _weight_steps(weight_OIHW)[:, None, None, None]
    rounded_OIHW: Float32Array = np.rint(weight_OIHW / steps_O111) * steps_O111
    return rounded_OIHW


def _deviations(clip: ClipConfig) -> Float32Array:
    """Return how many pixels' levels are 1 after the normalisation, of each colour [3, 1, 1]."""
    return 255 * np.array(clip.std, np.float32)[:, None, None]


def _of_pixels(conv: Convolution, clip: ClipConfig, zero: int) -> Convolution:
    """Return a convolution of pixels less `zero` from one of normalised frames.

    It is the same but at the borders: padding stands for pixels of `zero`, not of each colour's mean.
    """
    weight_OIHW = conv.weight_OIHW / _deviations(clip)
    zeros_I = zero - 255 * np.array(clip.mean, np.float32)
    shift_O = np.einsum("oihw,i->o", _rounded(weight_OIHW), zeros_I)
    return conv._replace(weight_OIHW=weight_OIHW, bias_O=conv.bias_O + shift_O)
