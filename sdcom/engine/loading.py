"""From a model directory to what runs it: which engine, on which device."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from sdcom.checkpoint import ModelInfo, Weights, load_info, load_weights
from sdcom.config import StaticArchitecture
from sdcom.engine.backend import Backend
from sdcom.errors import SettingsError

if TYPE_CHECKING:
    from sdcom.model import Model

EngineName = Literal["auto", "onnx", "torch"]
DeviceName = Literal["auto", "cpu", "cuda", "tensorrt"]
TorchPrecisionName = Literal["auto", "fp32", "mixed", "bf16", "fp16"]
PrecisionName = Literal[TorchPrecisionName, "int8"]

_HALVES: frozenset[PrecisionName] = frozenset(("mixed", "bf16", "fp16"))
"""Precisions with two bytes in them: of the torch engine, on a GPU."""


def beyond_float32(precision: PrecisionName, *, compiled: bool) -> str:
    """Return in words what is asked of torch on a GPU alone; nothing where float32 as it is will do."""
    if precision in _HALVES:
        return f"precision {precision}"
    return "compiled kernels" if compiled else ""


def load_backend(
    directory: Path,
    *,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
    num_threads: int = 1,
    precision: PrecisionName = "auto",
    compiled: bool = False,
) -> Backend:
    """Load a model directory into an engine. Only the engine chosen is imported.

    Args:
        directory: of the model.
        engine: "auto" is torch where it can use a GPU, else ONNX Runtime where that is installed and has what
            the model needs, else torch.
        device: "auto" is a GPU where the engine can use one. "tensorrt" is for ONNX Runtime.
        num_threads: of one network call, on a processor.
        precision: "auto" is "mixed" for torch on a GPU where the networks are known to stay within float16,
            else float32. "int8" is ONNX Runtime's, on a processor, with the directory's ranges.
        compiled: torch on a GPU has kernels compiled for the largest batches (`check_compiled`).

    Raises:
        ModelDirectoryError: the directory is not a whole, readable model.
        SettingsError: the engine is not installed, or cannot use the device, run the model, or do what was
            asked of it.
    """
    if precision == "int8":
        _check_int8(engine, device, compiled=compiled)
        return _load_int8(directory, num_threads)
    if engine == "auto":
        engine = _best_engine(load_info(directory), device)
    if engine == "onnx":
        _check_onnx(precision, compiled=compiled)
        return _load_onnx(directory, device, num_threads)
    found = _torch_device(device)
    from sdcom.engine.torch_loading import load_torch  # noqa: PLC0415 - optional, and heavy

    return load_torch(
        directory, device=found, num_threads=num_threads, precision=precision, compiled=compiled
    )


def load_untrained_paper(
    *,
    engine: EngineName = "auto",
    device: DeviceName = "auto",
    num_threads: int = 1,
    precision: PrecisionName = "auto",
    compiled: bool = False,
    static: StaticArchitecture = "mobilenet_v2",
    static_resolution: int = 224,
) -> Backend:
    """Return the paper's networks with random weights, for timing; torch makes them, whatever runs them.

    Args:
        engine: "auto" is ONNX Runtime on a processor, torch on a GPU, as for a model directory.
        device: as for a model directory, and so are the next three.
        num_threads: as there.
        precision: as there.
        compiled: as there.
        static: the static network.
        static_resolution: pixels of its input.

    Raises:
        SettingsError: torch, or the engine, is not installed or cannot do what was asked of it.
    """
    found = _torch_device("auto" if device == "tensorrt" else device)
    from sdcom.engine.torch_loading import torch_engine, untrained_paper_model  # noqa: PLC0415

    model = untrained_paper_model(static, static_resolution)
    if precision == "int8":
        _check_int8(engine, device, compiled=compiled)
        return _untrained_int8(model.info, _arrays(model), num_threads)
    if engine == "auto":
        engine = _best_engine(model.info, device)
    if engine == "torch":
        return torch_engine(
            model, device=found, num_threads=num_threads, precision=precision, compiled=compiled
        )
    _check_onnx(precision, compiled=compiled)
    from sdcom.engine.onnx_backend import OnnxBackend, best_device  # noqa: PLC0415 - optional, and heavy

    return OnnxBackend(
        model.info,
        _arrays(model),
        num_threads=num_threads,
        device=best_device() if device == "auto" else device,
    )


def _arrays(model: "Model") -> dict[str, npt.NDArray[np.generic]]:
    return {name: tensor.numpy() for name, tensor in model.networks.state_dict().items()}


def check_compiled(buckets: Sequence[int], num_at_once: int) -> None:
    """Refuse compiled kernels that would never run: only the backbones' largest batches are compiled.

    Args:
        buckets: of a backend that was loaded `compiled`.
        num_at_once: the most frames that it will be given at once.

    Raises:
        SettingsError: no call is padded to the largest size.
    """
    *_, next_smaller, largest = buckets
    if num_at_once <= next_smaller:
        raise SettingsError(
            f"kernels are compiled for batches of {largest} frames alone, and here at most {num_at_once} are "
            "together: compile nothing (SDCOM_COMPILE, --compile), or allow large batches "
            "(SDCOM_BATCHING, --batch, --videos)"
        )


def write_untrained_paper(directory: Path) -> None:
    """Write the paper's networks with random weights as a model directory, for timing.

    Raises:
        SettingsError: torch is not installed.
    """
    _torch_device("cpu")
    from sdcom.engine.torch_loading import save_untrained_paper  # noqa: PLC0415 - optional, and heavy

    save_untrained_paper(directory)


def _best_engine(info: ModelInfo, device: DeviceName) -> EngineName:
    if info.config.temporal_shift or not _has_onnx():
        return "torch"
    if device in {"cpu", "tensorrt"} or find_spec("torch") is None:
        return "onnx"
    if device == "auto" and not _may_have_gpu():
        return "onnx"
    import torch  # noqa: PLC0415 - optional, and heavy

    return "torch" if torch.cuda.is_available() else "onnx"


def _may_have_gpu() -> bool:
    """Tell whether an NVIDIA driver is there, without loading anything heavy to find out."""
    return Path("/proc/driver/nvidia").exists() or Path("/dev/nvidiactl").exists()


def _has_onnx() -> bool:
    return find_spec("onnxruntime") is not None and find_spec("onnx") is not None


def _check_onnx(precision: PrecisionName, *, compiled: bool) -> None:
    """Refuse what the onnx engine cannot do.

    Raises:
        SettingsError: it is not installed, or more than float32 was asked of it.
    """
    if not _has_onnx():
        raise SettingsError(
            "the onnx engine is not installed: in a checkout, pip install '.[cpu]', or '.[gpu]' in its place"
        )
    if asked := beyond_float32(precision, compiled=compiled):
        raise SettingsError(
            f"{asked} cannot be had: it takes the torch engine and an NVIDIA GPU; the onnx engine, which "
            "would run here, computes in float32 or int8 and compiles nothing"
        )


def _load_onnx(directory: Path, device: DeviceName, num_threads: int) -> Backend:
    from sdcom.engine.onnx_backend import OnnxBackend, best_device  # noqa: PLC0415 - optional, and heavy

    found = best_device() if device == "auto" else device
    info = load_info(directory)
    return OnnxBackend(info, load_weights(directory, info), num_threads=num_threads, device=found)


def _check_int8(engine: EngineName, device: DeviceName, *, compiled: bool) -> None:
    """Refuse int8 where it is not.

    Raises:
        SettingsError: another engine, a GPU or compiled kernels are asked for, or ONNX Runtime is missing.
    """
    if engine == "torch" or device in {"cuda", "tensorrt"} or compiled:
        raise SettingsError(
            "int8 is the onnx engine's, on a processor, with nothing compiled: set SDCOM_ENGINE=onnx and "
            "SDCOM_DEVICE=cpu, or leave them and SDCOM_COMPILE unset"
        )
    _check_onnx("int8", compiled=False)


def _load_int8(directory: Path, num_threads: int) -> Backend:
    from sdcom.engine.int8 import load_int8  # noqa: PLC0415 - optional, and heavy
    from sdcom.engine.onnx_backend import OnnxBackend, check_supported  # noqa: PLC0415

    info = load_info(directory)
    check_supported(info)
    ranges = load_int8(directory, info)
    return OnnxBackend(info, load_weights(directory, info), num_threads=num_threads, int8=ranges)


def _untrained_int8(info: ModelInfo, weights: Weights, num_threads: int) -> Backend:
    """Return networks in int8 with the ranges of noise: what they cost does not depend on ranges."""
    from sdcom.engine.int8 import measure_int8  # noqa: PLC0415 - optional, and heavy
    from sdcom.engine.onnx_backend import OnnxBackend  # noqa: PLC0415

    crop = info.config.clip.crop
    noise_NHWC = np.random.default_rng(0).integers(256, size=(1, crop, crop, 3), dtype=np.uint8)
    ranges = measure_int8(info, weights, [noise_NHWC], static=True)
    return OnnxBackend(info, weights, num_threads=num_threads, int8=ranges)


def _torch_device(device: DeviceName) -> Literal["auto", "cpu", "cuda"]:
    """Return a device of torch's.

    Raises:
        SettingsError: torch is not installed, or the device is not one of its.
    """
    if find_spec("torch") is None:
        raise SettingsError(
            "the torch engine is not installed: in a checkout, `make setup`, "
            "or pip install '.[gpu]' or '.[train]'"
        )
    if device == "tensorrt":
        raise SettingsError("the torch engine cannot compute on tensorrt: cpu is always there")
    return device
