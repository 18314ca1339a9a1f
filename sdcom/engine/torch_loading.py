"""From a model to what runs it in torch: plainly, or sliced and captured on a GPU."""

from pathlib import Path
from typing import Literal

import torch

from sdcom.checkpoint import ModelInfo
from sdcom.config import ModelConfig, StaticArchitecture
from sdcom.engine.backend import Backend
from sdcom.engine.dense_backend import DenseBackend, Precision
from sdcom.engine.loading import TorchPrecisionName, beyond_float32
from sdcom.engine.ranges import stays_in_float16
from sdcom.engine.torch_backend import TorchBackend
from sdcom.errors import SettingsError
from sdcom.model import Model, load_model, save_model
from sdcom.models.composition import SDCOM

NUM_CLASSES = 200  # of ActivityNet
_FP16_CAPABILITY = (7, 0)  # of the first GPUs whose tensor cores multiply float16
_BF16_CAPABILITY = (8, 0)  # and bfloat16


def load_torch(
    directory: Path,
    *,
    device: Literal["auto", "cpu", "cuda"],
    num_threads: int,
    precision: TorchPrecisionName,
    compiled: bool,
) -> Backend:
    """Load a model directory; see `torch_engine`.

    Raises:
        ModelDirectoryError: the directory is not a whole, readable model.
        SettingsError: as for `torch_engine`.
    """
    return torch_engine(
        load_model(directory), device=device, num_threads=num_threads, precision=precision, compiled=compiled
    )


def torch_engine(
    model: Model,
    *,
    device: Literal["auto", "cpu", "cuda"],
    num_threads: int,
    precision: TorchPrecisionName,
    compiled: bool,
) -> Backend:
    """Return what runs a model: on a GPU dense modules in CUDA graphs, else the networks themselves.

    A model with temporal shift runs plainly on either: its frames read one another.

    Args:
        model: on the processor.
        device: "auto" is a GPU where torch can use one.
        num_threads: of a network call on a processor, of copies to a GPU.
        precision: "auto" is "mixed" where the GPU's tensor cores multiply float16 and the networks are known
            to stay within it (`sdcom.engine.ranges`), else float32.
        compiled: have kernels compiled for the largest batches, on a GPU.

    Raises:
        SettingsError: there is no such device, or it cannot do what was asked of it.
    """
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise SettingsError(
            f"the torch engine cannot compute on cuda here: {_why_no_gpu()}; cpu is always there"
        )
    on_gpu = has_gpu and device != "cpu"
    if not on_gpu or model.info.config.temporal_shift:
        if asked := beyond_float32(precision, compiled=compiled):
            raise SettingsError(f"{asked} cannot be had: {_why_plain(model.info, has_gpu=has_gpu)}")
        networks = model.networks.to("cuda" if on_gpu else "cpu")
        return TorchBackend(Model(model.info, networks), num_threads=num_threads)
    capability = torch.cuda.get_device_capability()
    if precision == "bf16" and capability < _BF16_CAPABILITY:
        raise SettingsError(
            f"{torch.cuda.get_device_name()} has no bfloat16: use SDCOM_PRECISION=mixed, fp16 or fp32"
        )
    chosen = best_precision(model.networks, capability) if precision == "auto" else precision
    return DenseBackend(model, device="cuda", precision=chosen, compiled=compiled, num_threads=num_threads)


def _why_no_gpu() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "torch finds no NVIDIA GPU, or no driver for it"


def _why_plain(info: ModelInfo, *, has_gpu: bool) -> str:
    """Return why a model runs as it is, in float32."""
    if not has_gpu:
        return f"it takes an NVIDIA GPU, and {_why_no_gpu()}"
    if info.config.temporal_shift:
        return f"{info.full_name} has temporal shift, and such models run plainly, in float32"
    return "it takes an NVIDIA GPU, and the device asked for is cpu"


def best_precision(networks: SDCOM, capability: tuple[int, int]) -> Precision:
    """Return the fastest precision that keeps float32's answers: mixed or float32, never all of two bytes.

    Args:
        networks: without temporal shift, on the processor.
        capability: of the GPU.
    """
    able = capability >= _FP16_CAPABILITY
    return "mixed" if able and stays_in_float16(networks) else "fp32"


def untrained_paper_model(static: StaticArchitecture = "mobilenet_v2", static_resolution: int = 224) -> Model:
    """Return the paper's networks with random weights: a slimmable ResNet-50, 16 frames at 224 px.

    For timing: what a network costs does not depend on what it knows.

    Args:
        static: the static network; the paper's is a MobileNetV2.
        static_resolution: pixels of its input.
    """
    config = ModelConfig(
        labels=tuple(f"class {index}" for index in range(NUM_CLASSES)),
        static=static,
        static_resolution=static_resolution,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = SDCOM(config)
    networks.eval().requires_grad_(requires_grad=False)
    return Model(ModelInfo(name="paper-untrained", version="0", config=config), networks)


def save_untrained_paper(directory: Path) -> None:
    """Write `untrained_paper_model` as a model directory."""
    save_model(directory, *untrained_paper_model())
