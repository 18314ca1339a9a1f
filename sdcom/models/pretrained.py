"""ImageNet weights into slimmable backbones: torchvision-named files and batch-norm-folded MobileNetV2."""

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from sdcom.errors import ModelDirectoryError
from sdcom.models.mobilenet_v2 import SlimmableMobileNetV2
from sdcom.models.slimmable import (
    Backbone,
    SlimmableBatchNorm2d,
    SlimmableConv2d,
    batch_norms,
    copy_full_width_statistics,
)

CALIBRATION_BATCH = 16
_FOLDED_NAMES = "arrays named NN.<block>.<layer>.weight and .bias"


def load_torchvision_weights(model: Backbone, path: Path) -> bool:
    """Load a file with torchvision's parameter names; every width's statistics become the first channels.

    Args:
        model: of the file's architecture.
        path: a state dict, `.safetensors`, or torch's own format, which is read with `weights_only=True`.

    Returns:
        Whether the classifier was loaded too: not if the file's has another number of classes.

    Raises:
        ModelDirectoryError: the file cannot be read, or is not of this architecture: the message names
            missing and unexpected names, or the shapes that differ.
    """
    state = _read_state(path)
    state = {name: value for name, value in state.items() if not name.endswith(".num_batches_tracked")}
    own = _plain_state(model)
    _check_names(path, found=state, expected=own)
    classifier = (f"{model.classifier_name}.weight", f"{model.classifier_name}.bias")
    same_classes = len(state[classifier[1]]) == len(own[classifier[1]])
    if not same_classes:
        for name in classifier:
            del state[name]
    _check_shapes(path, state, own)
    model.load_state_dict(state, strict=False)  # the widths' own statistics are not in such files
    copy_full_width_statistics(model)
    return same_classes


def load_folded_mobilenet_v2(
    model: SlimmableMobileNetV2, path: Path, calibration_frames_NCHW: Tensor
) -> bool:
    """Load MobileNetV2 weights with folded batch norm, and recover a batch norm that can be trained.

    The full-width network computes what the folded one does: each layer's statistics become those of its
    convolution on the calibration frames, with gamma = sqrt(var + eps) and beta = mean + bias, which
    together add the bias alone. In training, batch norm then starts from the right place. The narrower
    widths' statistics become the first channels.

    Args:
        model: built with `same_padding=True`, as these weights were trained.
        path: `.npz` of `NN.<block>.<layer>.weight|bias`, numbered in network order, kernels OIHW.
        calibration_frames_NCHW: typical frames, RGB in [-1, 1].

    Returns:
        Whether the classifier was loaded too: not if the file's has another number of classes.

    Raises:
        ModelDirectoryError: the file cannot be read or is not a MobileNetV2 1.0.
        ValueError: the model does not pad as these weights need, or there are no calibration frames.
    """
    if not len(calibration_frames_NCHW):
        raise ValueError("batch norm cannot be recovered without calibration frames")
    layers = _conv_norm_pairs(model)
    if not layers[0][0].pads_same:
        raise ValueError("weights of TensorFlow need a model built with same_padding=True")
    convolutions = _read_folded(path)
    if len(convolutions) != len(layers) + 1:
        raise ModelDirectoryError(
            f"{path} has {len(convolutions)} layers, expected MobileNetV2's {len(layers) + 1} with the logits"
        )
    with torch.no_grad():
        for (weight, bias), (convolution, norm) in zip(convolutions, layers, strict=False):
            _assign(path, convolution.weight, weight)
            _set_to_bias(norm, bias)
        loaded_classifier = _assign_classifier(path, model, *convolutions[-1])
        _recover_batch_norms(model, calibration_frames_NCHW)
    copy_full_width_statistics(model)
    return loaded_classifier


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelDirectoryError(f"cannot read weights from {path}: {error}") from error
    except (
        Exception
    ) as error:  # on damaged bytes the readers raise almost any class, with advice to trust them
        kind = (
            "a .safetensors file" if path.suffix == ".safetensors" else "a state dict that torch.save wrote"
        )
        raise ModelDirectoryError(
            f"cannot read weights from {path}: {kind} was expected, and this is none, is damaged, or holds "
            "more than tensors"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelDirectoryError(f"{path} is not a state dict (a mapping of names to tensors)")
    return dict(state)


def _plain_state(model: Backbone) -> dict[str, Tensor]:
    """Return the entries that a plain network of this architecture has too: not the widths' statistics."""
    extra = {
        f"{name}.{buffer}"
        for name, module in model.named_modules()
        if isinstance(module, SlimmableBatchNorm2d)
        for buffer, _ in module.named_buffers()
        if buffer not in {"running_mean", "running_var"}
    }
    return {name: value for name, value in model.state_dict().items() if name not in extra}


def _check_names(path: Path, found: Collection[str], expected: Collection[str]) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    if missing or unexpected:
        raise ModelDirectoryError(
            f"{path} is not of this architecture: missing {_few(missing)}; unexpected {_few(unexpected)}"
        )


def _check_shapes(path: Path, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    differing = [
        f"{name} {tuple(value.shape)}, expected {tuple(own[name].shape)}"
        for name, value in state.items()
        if value.shape != own[name].shape
    ]
    if differing:
        raise ModelDirectoryError(f"{path} is not of this architecture: {_few(differing)}")


def _few(names: list[str], limit: int = 5) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _conv_norm_pairs(model: SlimmableMobileNetV2) -> list[tuple[SlimmableConv2d, SlimmableBatchNorm2d]]:
    """Return every convolution with the batch norm after it, in network order."""
    convolutions = [layer for layer in model.modules() if isinstance(layer, SlimmableConv2d)]
    return list(zip(convolutions, batch_norms(model), strict=True))


def _read_folded(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Return each layer's (weight, bias) in network order."""
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ModelDirectoryError(
            f"cannot read weights from {path}: it is no NumPy archive, which .npz stands for; that of a "
            f"MobileNetV2 with folded batch norms was expected ({_FOLDED_NAMES}). Weights of PyTorch end in "
            ".pth or .safetensors"
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    except Exception as error:  # on damaged bytes the readers raise almost any class
        raise ModelDirectoryError(f"cannot read weights from {path}: {error}") from error
    layers = sorted({name.rpartition(".")[0] for name in arrays})
    expected = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    _check_names(path, found=arrays, expected=expected)
    return [(arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]) for layer in layers]


def _assign(path: Path, parameter: Tensor, value: Tensor) -> None:
    if parameter.shape != value.shape:
        shapes = f"{tuple(value.shape)}, expected {tuple(parameter.shape)}"
        raise ModelDirectoryError(f"{path} is not a MobileNetV2 1.0: a layer has the shape {shapes}")
    parameter.copy_(value)


def _assign_classifier(path: Path, model: SlimmableMobileNetV2, weight: Tensor, bias: Tensor) -> bool:
    linear = model.linear
    if len(bias) != linear.out_features:
        return False
    _assign(path, linear.weight, weight.flatten(1))
    _assign(path, linear.bias, bias)
    return True


def _set_to_bias(norm: SlimmableBatchNorm2d, bias: Tensor) -> None:
    """Make a batch norm add `bias` and nothing else, without statistics yet."""
    mean, variance = norm.statistics(1)
    mean.zero_()
    variance.fill_(1)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(bias)


def _recover_batch_norms(model: SlimmableMobileNetV2, frames_NCHW: Tensor) -> None:
    """Give every batch norm the statistics of what it reads on these frames, its function unchanged.

    One pass is enough: as no layer's function changes, none changes what the layers after it read.
    """
    norms = batch_norms(model)
    moments = [_Moments(len(norm.bias)) for norm in norms]
    handles = [
        norm.register_forward_pre_hook(lambda _norm, inputs, moment=moment: moment.add(inputs[0]))
        for norm, moment in zip(norms, moments, strict=True)
    ]
    was_training = model.training
    model.eval()
    try:
        for batch_NCHW in torch.split(frames_NCHW, CALIBRATION_BATCH):
            model.feature_map(batch_NCHW, 1.0)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    for norm, moment in zip(norms, moments, strict=True):
        bias = norm.bias.clone()
        mean, variance = norm.statistics(1)
        mean.copy_(moment.mean)
        variance.copy_(moment.variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(bias + mean)


class _Moments:
    """Mean and variance of each channel over everything added, in float64."""

    def __init__(self, num_channels: int) -> None:
        self._count = 0
        self._sum = torch.zeros(num_channels, dtype=torch.float64)
        self._sum_of_squares = torch.zeros(num_channels, dtype=torch.float64)

    def add(self, x_NCHW: Tensor) -> None:
        x = x_NCHW.double()
        self._count += x.shape[0] * x.shape[2] * x.shape[3]
        self._sum += x.sum((0, 2, 3)).cpu()
        self._sum_of_squares += x.square().sum((0, 2, 3)).cpu()

    @property
    def mean(self) -> Tensor:
        return self._sum / self._count

    @property
    def variance(self) -> Tensor:
        return (self._sum_of_squares / self._count - self.mean.square()).clamp(min=0)
