"""A model as torch networks: how a model directory becomes one, and one becomes a directory."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcom.checkpoint import INFO_FILE, WEIGHTS_FILE, ModelInfo, load_info, load_weights, write_model
from sdcom.errors import ModelDirectoryError
from sdcom.models.composition import SDCOM


class Model(NamedTuple):
    """A loaded model: its facts and its networks, in inference mode."""

    info: ModelInfo
    networks: SDCOM


def save_model(directory: Path, info: ModelInfo, networks: SDCOM, *, half: bool = False) -> ModelInfo:
    """Write a model directory, both files whole before either takes its place; return the record written.

    Args:
        directory: made if absent.
        info: its `files` are filled in here.
        networks: in any mode, on any device.
        half: store convolution and linear weights as float16 (half the size; batch-norm statistics stay
            float32, whose range they need).
    """
    weights = {name: _stored(tensor, half=half) for name, tensor in networks.state_dict().items()}
    return write_model(directory, info, weights)


def load_model(directory: Path, device: torch.device | str = "cpu") -> Model:
    """Load a model directory for inference.

    Raises:
        ModelDirectoryError: a file is missing, foreign, truncated, altered, or from a newer version.
    """
    info = load_info(directory)
    tensors = {name: torch.from_numpy(array) for name, array in load_weights(directory, info).items()}
    networks = SDCOM(info.config)
    expected = {name: tensor.shape for name, tensor in networks.state_dict().items()}
    problems = [
        *(f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())),
        *(f"{name} is unknown" for name in sorted(tensors.keys() - expected.keys())),
        *(
            f"{name} has shape {list(tensors[name].shape)} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        ),
    ]
    if problems:
        shown = "; ".join(problems[:3])
        raise ModelDirectoryError(
            f"{directory / WEIGHTS_FILE} does not fit {INFO_FILE}: {shown} ({len(problems)} in all)"
        )
    networks.load_state_dict(tensors)
    return Model(info, networks.to(device).eval().requires_grad_(requires_grad=False))


def _stored(tensor: Tensor, *, half: bool) -> npt.NDArray[np.generic]:
    tensor = tensor.detach().cpu().contiguous()
    stored = tensor.half() if half and tensor.is_floating_point() and tensor.ndim >= 2 else tensor
    array: npt.NDArray[np.generic] = stored.numpy()
    return array
