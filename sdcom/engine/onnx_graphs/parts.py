"""The parts of one model as ONNX models.

The static network and the gate's embedding are one, the gate's decision is another, the dynamic network is
one for each width, the fusion head's projection and its T classifiers are the last two.

Shapes: N frames of any videos, B videos, T frames of each, H W pixels, D features, E embedding, K widths,
F fused features.
"""

import numpy as np
from onnx import TensorProto

from sdcom.architecture import feature_channels
from sdcom.checkpoint import ModelInfo, Weights
from sdcom.config import ClipConfig, ModelConfig
from sdcom.engine.onnx_graphs.backbones import backbone
from sdcom.engine.onnx_graphs.graph import Float32Array, Graph, WeightReader
from sdcom.engine.resizing import resize_matrix


def static_part(info: ModelInfo, weights: Weights) -> bytes:
    """Return `frames` uint8 [N, H, W, 3] to `features` [N, D] and `embeddings` [N, E]."""
    config = info.config
    graph = _of_frames("static", config.clip)
    frames = _resized(graph, _channels_first(graph), config)
    view = backbone(
        graph,
        WeightReader(weights, "static."),
        config.static,
        _normalized(graph, frames, config.clip),
        width=1.0,
        same=config.same_padding,
    )
    return graph.serialized(
        {
            "features": (view.features, ("N", feature_channels(config.static))),
            "embeddings": (_embedded(graph, weights, view.map), ("N", config.gate_features)),
        }
    )


def dynamic_part(info: ModelInfo, weights: Weights, width: float) -> bytes:
    """Return `frames` uint8 [N, H, W, 3] to `features` [N, d], as many as the width leaves."""
    config = info.config
    graph = _of_frames(f"dynamic at {width:g}", config.clip)
    view = backbone(
        graph,
        WeightReader(weights, "dynamic."),
        config.dynamic,
        _normalized(graph, _channels_first(graph), config.clip),
        width=width,
        same=config.same_padding,
    )
    return graph.serialized({"features": (view.features, ("N", feature_channels(config.dynamic, width)))})


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
    """Return the frames as float32 [N, 3, H, W] in [0, 255]."""
    return graph.node("Transpose", graph.node("Cast", "frames", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])


def _resized(graph: Graph, frames: str, config: ModelConfig) -> str:
    """Resize to the static network's resolution: two products with constant matrices, exact everywhere."""
    size, resolution = config.clip.crop, config.static_resolution
    if size == resolution:
        return frames
    matrix = resize_matrix(size, resolution)
    rows = graph.node("MatMul", graph.constant(matrix), frames)
    return graph.node("MatMul", rows, graph.constant(matrix.T))


def _normalized(graph: Graph, frames: str, clip: ClipConfig) -> str:
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (clip.mean, clip.std))
    scaled = graph.node("Mul", frames, graph.constant(np.float32(1) / (255 * std)))
    return graph.node("Sub", scaled, graph.constant(mean / std))


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
