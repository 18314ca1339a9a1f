"""The networks in ONNX Runtime: one session a part and width, built from the model directory's weights.

Needs no torch. The graphs are made when the model is loaded (`sdcom.engine.onnx_graphs`), so a model
directory serves as it is, and no export can be out of date.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

import numpy as np
import onnxruntime
from onnx import checker
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from sdcom.architecture import feature_channels
from sdcom.checkpoint import ModelInfo, Weights
from sdcom.engine.backend import (
    Float32Array,
    FrameByFrame,
    Int64Array,
    Looked,
    Room,
    StreamFiller,
    UInt8Array,
)
from sdcom.engine.on_host import HostRoom, OnHost
from sdcom.engine.onnx_graphs.graph import Graph
from sdcom.engine.onnx_graphs.int8 import Int8Ranges
from sdcom.engine.onnx_graphs.parts import classifier_part, dynamic_part, fusion_part, gate_part, static_part
from sdcom.errors import ModelDirectoryError, SettingsError
from sdcom.processors import gpu_name, sums_bytes_in_16_bits
from sdcom.recognition import Provider

Device = Literal["cpu", "cuda", "tensorrt"]

_PROVIDERS: Mapping[Device, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

_PROVIDER_OPTIONS: Mapping[Device, Mapping[str, str]] = {
    "cpu": {},
    "cuda": {"use_tf32": "0"},  # float32 would have ten bits of mantissa
    "tensorrt": {},  # has no such option, but an environment variable (docs/operations.md)
}

_MOST_FRAMES_OF_A_CALL = 4
"""On a processor: what one call writes between layers stays near it, and several calls at once stay small."""

_REFUSED_GRAPHS = (
    checker.ValidationError,
    runtime_errors.Fail,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidArgument,
)


def is_built_for(device: Device) -> bool:
    """Tell whether this installation of ONNX Runtime has what the device needs, whatever the machine has."""
    return _PROVIDERS[device] in onnxruntime.get_available_providers()


def best_device() -> Device:
    """Return "cuda" where a session is found to run on it, else "cpu"."""
    if not is_built_for("cuda"):
        return "cpu"
    graph = Graph("probe", {"x": ("float32", (1,))})
    try:
        _SessionFactory("cuda").open(graph.serialized({"y": (graph.node("Relu", "x"), (1,))}))
    except SettingsError:
        return "cpu"
    return "cuda"


class OnnxBackend(OnHost):
    """Sessions of one model's parts.

    Args:
        info: the model.
        weights: its weights.
        num_threads: of one call of a backbone, on a processor; the small parts take one.
        device: where to compute.
        int8: ranges with which the backbones compute in int8, on a processor; None is float32.

    Raises:
        SettingsError: this installation of ONNX Runtime cannot compute on the device asked for, or the model
            needs temporal shift, which these graphs do not have.
        ModelDirectoryError: weights are missing, or their shapes are not those of the model; or ranges are.
    """

    def __init__(
        self,
        info: ModelInfo,
        weights: Weights,
        *,
        num_threads: int = 1,
        device: Device = "cpu",
        int8: Int8Ranges | None = None,
    ) -> None:
        check_supported(info)
        assert int8 is None or device == "cpu", "integer kernels are the processor's"
        self._info = info
        self._num_features = feature_channels(info.config.dynamic)
        self._most_frames = _MOST_FRAMES_OF_A_CALL if device == "cpu" else None
        sessions = _SessionFactory(device)
        try:
            self._open(sessions, weights, num_threads, int8)
        except (ValueError, IndexError, *_REFUSED_GRAPHS) as exc:
            raise ModelDirectoryError(
                f"the weights of {info.full_name} do not have the shapes that its record says: {exc}"
            ) from exc
        gpu = "" if device == "cpu" else gpu_name()
        name = f"onnxruntime-{device}" + ("-int8" if int8 else "")
        self._provider = Provider(name, onnxruntime.__version__, gpu)

    def _open(
        self, sessions: "_SessionFactory", weights: Weights, num_threads: int, int8: Int8Ranges | None
    ) -> None:
        info = self._info
        static, dynamic = (int8.static, int8.dynamic) if int8 else (None, {})
        self._static = sessions.open(static_part(info, weights, static), num_threads)
        self._gate = sessions.open(gate_part(info, weights))
        self._fusion = sessions.open(fusion_part(info, weights))
        self._classifiers = sessions.open(classifier_part(info, weights))
        self._dynamic = {
            width: sessions.open(dynamic_part(info, weights, width, dynamic.get(width)), num_threads)
            for width in info.config.widths
            if width > 0
        }
        self._classifier_TLF = weights["fusion.classifier_weight"].astype(np.float32)
        self._bias_TL = weights["fusion.classifier_bias"].astype(np.float32)

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._info

    @property
    def provider(self) -> Provider:
        """ONNX Runtime, and the device that every session was found to run on."""
        return self._provider

    @property
    def buckets(self) -> tuple[int, ...]:
        """None: any size."""
        return ()

    def prepare_thread(self) -> None:
        """Nothing: sessions bring their threads along."""

    def look(self, frames_NHWC: UInt8Array) -> Looked:
        """Run the static network and the gate's embedding on RGB crops."""
        outputs = ["features", "embeddings"]
        calls = [self._static.run(outputs, {"frames": part}) for part in self._calls(frames_NHWC)]
        features_ND, embeddings_NE = (np.concatenate(rows) for rows in zip(*calls, strict=True))
        return Looked(features_ND, embeddings_NE)

    def decide(
        self, embeddings_BTE: Float32Array, state_BH: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Run the gate over frames in feeding order; return width logits [B, T, K] and the state."""
        if state_BH is None:
            state_BH = np.zeros((len(embeddings_BTE), self._info.config.gate_hidden), dtype=np.float32)
        logits_BTK, last_BH = self._gate.run(
            ["logits", "last_state"], {"embeddings": embeddings_BTE, "state": state_BH}
        )
        return logits_BTK, last_BH

    def fill(self, frames_NHWC: UInt8Array, width: float, before_N: Int64Array | None = None) -> Float32Array:
        """Run the dynamic network; return features [N, Dd], zero-padded."""
        assert before_N is None, "no graph shifts"
        session = self._dynamic[width]
        calls = [session.run(["features"], {"frames": part})[0] for part in self._calls(frames_NHWC)]
        features_Nd: Float32Array = np.concatenate(calls)
        missing = self._num_features - features_Nd.shape[1]
        return np.pad(features_Nd, ((0, 0), (0, missing))) if missing else features_Nd

    def _calls(self, frames_NHWC: UInt8Array) -> list[UInt8Array]:
        """Return the frames of each call of a backbone."""
        num_frames = len(frames_NHWC)
        most = self._most_frames or num_frames
        return [frames_NHWC[start : start + most] for start in range(0, num_frames, most)]

    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        """Return each frame's fused features [N, F]."""
        inputs = {"features": features_ND, "supplements": supplements_ND}
        fused_NF: Float32Array = self._fusion.run(["fused"], inputs)[0]
        return fused_NF

    def classify(self, maxima_BTF: Float32Array, first: int = 0) -> Float32Array:
        """Return the logits [B, T, L] after each frame, the first of them at position `first`."""
        num_steps = maxima_BTF.shape[1]
        if num_steps == len(self._bias_TL):
            logits_BTL: Float32Array = self._classifiers.run(["logits"], {"maxima": maxima_BTF})[0]
            return logits_BTL
        # Not by BLAS: its threads would wait for each other wherever the processors are busy.
        steps = slice(first, first + num_steps)
        products_BTL: Float32Array = np.einsum("btf,tlf->btl", maxima_BTF, self._classifier_TLF[steps])
        return products_BTL + self._bias_TL[steps]

    def open_stream(self) -> StreamFiller:
        """Return what fills a new stream's frames."""
        return FrameByFrame(self, self._num_features)

    def open_room(self, _num_videos: int, /) -> Room:
        """Return room for any number of videos, in the processor's memory."""
        return HostRoom(self, self._info.config)


def check_supported(info: ModelInfo) -> None:
    """Refuse a model that these graphs cannot be.

    Raises:
        SettingsError: it needs temporal shift.
    """
    if info.config.temporal_shift:
        raise SettingsError(
            f"{info.full_name} has a temporal shift, which the onnx engine lacks: use the torch engine"
        )


def open_on_processor(graph: bytes) -> onnxruntime.InferenceSession:
    """Open a session of one thread."""
    return _SessionFactory("cpu").open(graph)


@cache
def _share_one_arena() -> None:
    """Let all sessions of this process take their scratch memory from one arena: few run at a time."""
    arena = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(arena, None)


class _SessionFactory:
    """Opens sessions that compute where they were told to, or not at all.

    Args:
        device: where.

    Raises:
        SettingsError: this installation of ONNX Runtime cannot compute there.
    """

    def __init__(self, device: Device) -> None:
        self._wanted, self._provider_options = _PROVIDERS[device], dict(_PROVIDER_OPTIONS[device])
        available: Sequence[str] = onnxruntime.get_available_providers()
        if self._wanted not in available:
            raise SettingsError(
                f"this ONNX Runtime cannot compute on {device}: it has {', '.join(available)}; "
                "onnxruntime-gpu has the others: pip uninstall onnxruntime, "
                "then in a checkout pip install '.[gpu]'"
            )
        if device != "cpu":
            onnxruntime.preload_dlls()  # CUDA's libraries lie in packages of their own
        _share_one_arena()

    def open(self, graph: bytes, num_threads: int = 1) -> onnxruntime.InferenceSession:
        """Open a session.

        Args:
            graph: the serialized model.
            num_threads: of one call. Small parts take one: more would wait for each other.

        Raises:
            SettingsError: it fell back to another provider than the one asked for, as it does silently.
        """
        provider = self._wanted, self._provider_options
        session = onnxruntime.InferenceSession(graph, _options(num_threads), providers=[provider])
        found = session.get_providers()[0]
        if found != self._wanted:
            raise SettingsError(
                f"ONNX Runtime fell back to {found} where {self._wanted} was asked for: "
                "the driver or its libraries cannot be loaded"
            )
        return session


def _options(num_threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.use_env_allocators", "1")
    if sums_bytes_in_16_bits():  # for int8: slower kernels, that do not overflow
        options.add_session_config_entry("session.x64quantprecision", "1")
    # Threads that wait do not spin: decoders and other sessions need the processors meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
