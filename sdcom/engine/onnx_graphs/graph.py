"""An ONNX graph in the making. Values are names; every method adds nodes and returns the new value's name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, checker, helper, numpy_helper

from sdcom.checkpoint import Weights
from sdcom.engine.folding import fold_norm
from sdcom.errors import ModelDirectoryError

Float32Array = npt.NDArray[np.float32]
Dimension = int | str

_OPSET = 17
_IR_VERSION = 8  # of the same age: runtimes of several years read it
_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


class WeightReader:
    """A model's weights by name, as float32.

    Args:
        weights: as they are stored.
        prefix: what every name here begins with.
    """

    def __init__(self, weights: Weights, prefix: str) -> None:
        self._weights = weights
        self._prefix = prefix

    def read(self, name: str) -> Float32Array:
        """Return an array.

        Raises:
            ModelDirectoryError: the model has none of this name.
        """
        try:
            return self._weights[self._prefix + name].astype(np.float32)
        except KeyError as exc:
            raise ModelDirectoryError(f"the model's weights lack {self._prefix}{name}") from exc

    def norm(self, name: str, suffix: str = "") -> tuple[Float32Array, Float32Array]:
        """Return a batch norm as the scale and the shift of each channel, at the width of that suffix.

        Narrow widths keep statistics of fewer channels, and share the first of the scales and biases.
        """
        mean, variance = self.read(f"{name}.running_mean{suffix}"), self.read(f"{name}.running_var{suffix}")
        return fold_norm(self.read(f"{name}.weight"), self.read(f"{name}.bias"), mean, variance)


class Graph:
    """A graph of float32 values, batch norms folded into the layers before them.

    Args:
        name: of the graph.
        inputs: type ("uint8" or "float32") and shape of each input; a dimension that may vary is a name.
    """

    def __init__(self, name: str, inputs: Mapping[str, tuple[str, Sequence[Dimension]]]) -> None:
        self._name = name
        self._inputs = [
            helper.make_tensor_value_info(name, _TYPES[kind], list(shape))
            for name, (kind, shape) in inputs.items()
        ]
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def constant(self, value: npt.NDArray[np.generic]) -> str:
        """Add an array."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.nodes(operator, inputs, 1, **attributes)[0]

    def nodes(self, operator: str, inputs: Sequence[str], num_outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        outputs = [f"{operator}_{len(self._nodes)}_{index}" for index in range(num_outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def linear(self, x: str, weight_OI: Float32Array, bias_O: Float32Array) -> str:
        """Multiply rows by a matrix: [N, I] to [N, O]."""
        return self.node("Gemm", x, self.constant(weight_OI), self.constant(bias_O), transB=1)

    def relu6(self, x: str) -> str:
        """Clip to [0, 6]."""
        return self.node(
            "Clip", x, self.constant(np.array(0, np.float32)), self.constant(np.array(6, np.float32))
        )

    def pooled(self, x: str) -> str:
        """Average over space: [N, C, H, W] to [N, C]."""
        return self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)

    def serialized(self, outputs: Mapping[str, tuple[str, Sequence[Dimension]]]) -> bytes:
        """Return the model in ONNX's own form.

        Args:
            outputs: the values to give and their shapes, by the names to give them.
        """
        named = [helper.make_node("Identity", [value], [name]) for name, (value, _) in outputs.items()]
        shaped = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
            for name, (_, shape) in outputs.items()
        ]
        graph = helper.make_graph([*self._nodes, *named], self._name, self._inputs, shaped, self._constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            producer_name="sdcom",
            ir_version=_IR_VERSION,
        )
        checker.check_model(model)
        serialized: bytes = model.SerializeToString()
        return serialized
