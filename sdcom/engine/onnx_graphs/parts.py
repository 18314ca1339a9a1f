"""The parts of one model as ONNX models.

The static network and the gate's embedding are one, the gate's decision is another, the dynamic network is
one for each width, the fusion head's projection and its T classifiers are the last two.

Shapes: N frames of any videos, B videos, T frames of each, H W pixels, D features, E embedding, K widths,
F fused features.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from sdcom.architecture import feature_channels
from sdcom.checkpoint import ModelInfo, Weights
from sdcom.config import ClipConfig, ModelConfig
from sdcom.engine.onnx_graphs.backbones import View, backbone
from sdcom.engine.onnx_graphs.graph import Float32Array, Graph, WeightReader
from sdcom.engine.onnx_graphs.int8 import Int8Layers, LayerRanges, ObservedLayers
from sdcom.engine.onnx_graphs.layers import Layers
from sdcom.engine.resizing import resize_matrix


def static_part(info: ModelInfo, weights: Weights, ranges: LayerRanges | None = None) -> bytes:
    """Return `frames` uint8 [N, H, W, 3] to `features` [N, D] and `embeddings` [N, E].

    Args:
        info: the model.
        weights: its weights.
        ranges: of the static network's layers: it computes in int8; None is float32.
    """
    config = info.config
    graph = _of_frames("static", config.clip)
    view = _static(_layers(graph, config, weights, None, ranges), config)
    return graph.serialized(
        {
            "features": (view.features, ("N", feature_channels(config.static))),
            "embeddings": (_embedded(graph, weights, view.map), ("N", config.gate_features)),
        }
    )


def dynamic_part(info: ModelInfo, weights: Weights, width: float, ranges: LayerRanges | None = None) -> bytes:
    """Return `frames` uint8 [N, H, W, 3] to `features` [N, d], as many as the width leaves.

    Args:
        info: the model.
        weights: its weights.
        width: above 0.
        ranges: of the layers at this width: they compute in int8; None is float32.
    """
    config = info.config
    graph = _of_frames(f"dynamic at {width:g}", config.clip)
    view = _dynamic(_layers(graph, config, weights, width, ranges), config)
    return graph.serialized({"features": (view.features, ("N", feature_channels(config.dynamic, width)))})


class Observer(NamedTuple):
    """A backbone that tells what int8 has to know of its layers.

    Attributes:
        graph: `frames` uint8 [N, H, W, 3] to each frame's `lowest` and `highest` values [N, layers], and to
            `errors`, what rounding the weights adds to each output channel on average, of one convolution
            after the other.
        layers: the layers' names.
        num_outputs: channels of each layer that is a convolution.
    """

    graph: bytes
    layers: Sequence[str]
    num_outputs: Mapping[str, int]


def observer_part(info: ModelInfo, weights: Weights, width: float | None) -> Observer:
    """Return what finds the ranges of the dynamic network's layers at a width, or of the static network's."""
    config = info.config
    graph = _of_frames("observer", config.clip)
    reader = WeightReader(weights, _prefix(width))
    layers = ObservedLayers(graph, reader, width or 1.0, same=config.same_padding)
    _static(layers, config) if width is None else _dynamic(layers, config)
    lowest, highest = layers.extremes()
    by_frame = ("N", len(layers.values))
    outputs = {
        "lowest": (lowest, by_frame),
        "highest": (highest, by_frame),
        "errors": (
            graph.node("Concat", *layers.errors.values(), axis=0),
            (sum(layers.num_outputs.values()),),
        ),
    }
    return Observer(graph.serialized(outputs), tuple(layers.values), layers.num_outputs)


def _prefix(width: float | None) -> str:
    return "static." if width is None else "dynamic."


def _layers(
    graph: Graph, config: ModelConfig, weights: Weights, width: float | None, ranges: LayerRanges | None
) -> Layers:
    """Return what adds the layers of the dynamic network at a width, or of the static network."""
    reader = WeightReader(weights, _prefix(width))
    if ranges is None:
        return Layers(graph, reader, width or 1.0, same=config.same_padding)
    return Int8Layers(graph, reader, width or 1.0, same=config.same_padding, ranges=ranges)


def _static(layers: Layers, config: ModelConfig) -> View:
    size, resolution = config.clip.crop, config.static_resolution
    pixels = _channels_first(layers.graph)
    if size != resolution:
        pixels = _resized(layers.graph, pixels, size, resolution)
    frames = layers.frames(pixels, config.clip, whole=size == resolution)
    return backbone(layers, config.static, frames)


def _dynamic(layers: Layers, config: ModelConfig) -> View:
    frames = layers.frames(_channels_first(layers.graph), config.clip, whole=True)
    return backbone(layers, config.dynamic, frames)


def gate_part(info: ModelInfo, weights: Weights) -> bytes:
    """Return `embeddings` [B, T, E] and `state` [B, H] to `logits` [B, T, K] and `last_state` [B, H]."""
    config, gate = info.config, WeightReader(weights, "gate.")
    graph = Graph(
        "gate",
        {
            "embeddings": ("float32", ("B", "T", config.gate_features)),
            "state": ("float32", ("B", config.gate_hidden)),
        },
    )
    first = graph.constant(np.array([0], dtype=np.int64))
    second = graph.constant(np.array([1], dtype=np.int64))
    hidden_T1BH, last_1BH = graph.nodes(
        "GRU",
        [
            graph.node("Transpose", "embeddings", perm=[1, 0, 2]),
            graph.constant(_gru_order(gate.read("gru.weight_ih_l0"))[None]),
            graph.constant(_gru_order(gate.read("gru.weight_hh_l0"))[None]),
            graph.constant(
                np.concatenate([_gru_order(gate.read(f"gru.bias_{kind}_l0")) for kind in ("ih", "hh")])[None]
            ),
            "",
            graph.node("Unsqueeze", "state", first),
        ],
        2,
        hidden_size=config.gate_hidden,
        linear_before_reset=1,
    )
    hidden_BTH = graph.node("Transpose", graph.node("Squeeze", hidden_T1BH, second), perm=[1, 0, 2])
    logits = graph.node("MatMul", hidden_BTH, graph.constant(gate.read("choice.weight").T))
    logits = graph.node("Add", logits, graph.constant(gate.read("choice.bias")))
    return graph.serialized(
        {
            "logits": (logits, ("B", "T", config.num_widths)),
            "last_state": (graph.node("Squeeze", last_1BH, first), ("B", config.gate_hidden)),
        }
    )


def fusion_part(info: ModelInfo, weights: Weights) -> bytes:
    """Return `features` [N, Ds] and `supplements` [N, Dd] to `fused` [N, F]."""
    config, fusion = info.config, WeightReader(weights, "fusion.")
    graph = Graph(
        "fusion",
        {
            "features": ("float32", ("N", feature_channels(config.static))),
            "supplements": ("float32", ("N", feature_channels(config.dynamic))),
        },
    )
    both = graph.node("Concat", "features", "supplements", axis=1)
    scale_F, shift_F = fusion.norm("norm")
    fused = graph.linear(both, fusion.read("linear.weight") * scale_F[:, None], shift_F)
    return graph.serialized({"fused": (graph.node("Relu", fused), ("N", config.fusion_features))})


def classifier_part(info: ModelInfo, weights: Weights) -> bytes:
    """Return `maxima` [B, T, F], all T of them, to `logits` [B, T, L]."""
    config, fusion = info.config, WeightReader(weights, "fusion.")
    num_frames = config.clip.num_frames
    graph = Graph("classifiers", {"maxima": ("float32", ("B", num_frames, config.fusion_features))})
    maxima_TBF = graph.node("Transpose", "maxima", perm=[1, 0, 2])
    weight_TFL = graph.constant(fusion.read("classifier_weight").swapaxes(1, 2))
    bias_T1L = graph.constant(fusion.read("classifier_bias")[:, None])
    logits_TBL = graph.node("Add", graph.node("MatMul", maxima_TBF, weight_TFL), bias_T1L)
    logits_BTL = graph.node("Transpose", logits_TBL, perm=[1, 0, 2])
    return graph.serialized({"logits": (logits_BTL, ("B", num_frames, config.num_labels))})


def _of_frames(name: str, clip: ClipConfig) -> Graph:
    return Graph(name, {"frames": ("uint8", ("N", clip.crop, clip.crop, 3))})


def _channels_first(graph: Graph) -> str:
    """Return the frames as uint8 [N, 3, H, W]."""
    return graph.node("Transpose", "frames", perm=[0, 3, 1, 2])


def _resized(graph: Graph, frames: str, size: int, resolution: int) -> str:
    """Resize to float32: two products with constant matrices, exact everywhere.

    Columns first: that product's matrix is on the right, where ONNX Runtime arranges it once for all frames.
    """
    matrix = resize_matrix(size, resolution)
    pixels = graph.node("Cast", frames, to=TensorProto.FLOAT)
    columns = graph.node("MatMul", pixels, graph.constant(matrix.T))
    return graph.node("MatMul", graph.constant(matrix), columns)


def _embedded(graph: Graph, weights: Weights, map_NCHW: str) -> str:
    """Return the gate's embedding of each frame (`sdcom.models.gate.Gate.embed`)."""
    gate = WeightReader(weights, "gate.")
    scale_C, shift_C = gate.norm("squeeze_norm")
    squeezing = graph.constant(gate.read("squeeze.weight") * scale_C[:, None, None, None])
    squeezed = graph.node("Tanh", graph.node("Conv", map_NCHW, squeezing, graph.constant(shift_C)))
    scale_E, shift_E = gate.norm("norm")
    flat = graph.node("Flatten", squeezed, axis=1)
    return graph.node("Tanh", graph.linear(flat, gate.read("linear.weight") * scale_E[:, None], shift_E))


def _gru_order(gates: Float32Array) -> Float32Array:
    """Return a GRU's three blocks in the order of ONNX (update, reset, new) from that of torch."""
    reset, update, new = np.split(gates, 3)
    return np.concatenate((update, reset, new))
