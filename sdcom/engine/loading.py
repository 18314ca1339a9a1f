"""From a model directory to what runs it: which engine, on which device."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sdcom.checkpoint import ModelInfo, load_info, write_model
from sdcom.engine.backend import Backend
from sdcom.errors import SettingsError

EngineName = Literal["auto", "onnx", "torch"]
DeviceName = Literal["auto", "cpu", "cuda", "tensorrt"]


def load_backend(
    directory: Path, *, engine: EngineName = "auto", device: DeviceName = "auto", num_threads: int = 1
) -> Backend:
    """Load a model directory into an engine. Only the engine chosen is imported.

    Args:
        directory: of the model.
        engine: "auto" is ONNX Runtime where it is installed and has what the model needs, else torch; but
            torch before ONNX Runtime where only torch can use the GPU.
        device: "auto" is a GPU where the engine can use one. "tensorrt" is for ONNX Runtime.
        num_threads: of one network call, on a processor.

    Raises:
        ModelDirectoryError: the directory is not a whole, readable model.
        SettingsError: the engine is not installed, or cannot use the device or run the model.
    """
    if engine == "auto":
        engine = _best_engine(load_info(directory), device)
    if engine == "onnx":
        return _load_onnx(directory, device, num_threads)
    return _load_torch(directory, device, num_threads)


def _best_engine(info: ModelInfo, device: DeviceName) -> EngineName:
    if info.config.temporal_shift or not _has_onnx():
        return "torch"
    if device in {"cpu", "tensorrt"} or find_spec("torch") is None:
        return "onnx"
    from sdcom.engine.onnx_backend import best_device, is_built_for  # noqa: PLC0415 - optional, and heavy

    if is_built_for("cuda") and best_device() == "cuda":
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


def _load_onnx(directory: Path, device: DeviceName, num_threads: int) -> Backend:
    if not _has_onnx():
        raise SettingsError(
            "the onnx engine is not installed: pip install 'sdcom[cpu]', or 'sdcom[gpu]' in its place"
        )
    from sdcom.engine.onnx_backend import OnnxBackend, best_device  # noqa: PLC0415 - optional, and heavy

    found = best_device() if device == "auto" else device
    return OnnxBackend.load(directory, num_threads=num_threads, device=found)


def _load_torch(directory: Path, device: DeviceName, num_threads: int) -> Backend:
    if find_spec("torch") is None:
        raise SettingsError(
            "the torch engine is not installed: `make setup` in a checkout, or pip install 'sdcom[train]'"
        )
    import torch  # noqa: PLC0415 - optional, and heavy

    from sdcom.engine.torch_backend import TorchBackend  # noqa: PLC0415
    from sdcom.model import load_model  # noqa: PLC0415

    if device == "tensorrt" or (device == "cuda" and not torch.cuda.is_available()):
        raise SettingsError(f"the torch engine cannot compute on {device} here: cpu is always there")
    found = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return TorchBackend(load_model(directory, found), num_threads=num_threads)


def load_untrained_paper(*, num_threads: int) -> Backend:
    """Return the paper's networks with random weights in ONNX Runtime, for timing.

    Raises:
        SettingsError: torch or ONNX Runtime is not installed.
    """
    _require_untrained()
    from sdcom.engine.untrained import untrained_paper_backend  # noqa: PLC0415

    return untrained_paper_backend(num_threads=num_threads)


def write_untrained_paper(directory: Path) -> None:
    """Write the paper's networks with random weights as a model directory, for timing.

    Raises:
        SettingsError: torch or ONNX Runtime is not installed.
    """
    _require_untrained()
    from sdcom.engine.untrained import untrained_paper  # noqa: PLC0415

    write_model(directory, *untrained_paper())


def _require_untrained() -> None:
    if find_spec("torch") is None or not _has_onnx():
        raise SettingsError("random networks need torch and ONNX Runtime: pip install 'sdcom[cpu,train]'")
