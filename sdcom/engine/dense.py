"""The parts of a model as modules of exactly one width: sliced once, batch norms folded, uint8 frames in.

Nothing is sliced, normalised by statistics or looked up when they run, so that they can be captured in a
CUDA graph and compiled. Backbones and the fusion head's projection compute in the types asked for; the gate
and the classifiers always in float32 (docs/adr/0009-cuda.md).

Shapes: N frames of any videos, H W pixels, C channels, B videos, T frames of each in feeding order, D
features, E embedding, K widths, F fused features, L labels.
"""

from copy import deepcopy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.architecture import slim_channels
from sdcom.config import ClipConfig
from sdcom.cost import RGB_CHANNELS
from sdcom.engine.folding import fold_norm
from sdcom.engine.resizing import resize_matrix
from sdcom.models.composition import SDCOM
from sdcom.models.fusion import FusionHead, running_maximum
from sdcom.models.gate import Gate
from sdcom.models.slimmable import Backbone, SlimmableBatchNorm2d, SlimmableConv2d, pad_same

FULL_WIDTH = 1.0
"""The only width of a network that was sliced: all that is left of it."""


def dense(backbone: Backbone, width: float) -> Backbone:
    """Return a copy of a network that is what the network is at one width, and runs at `FULL_WIDTH` alone.

    Args:
        backbone: without temporal shift; not changed.
        width: above 0, one of those that it was built with.
    """
    network = deepcopy(backbone)
    layers = [
        (name, layer)
        for name, layer in backbone.named_modules()
        if isinstance(layer, SlimmableConv2d | SlimmableBatchNorm2d)
    ]
    for (conv_name, conv), (norm_name, norm) in zip(layers[::2], layers[1::2], strict=True):
        assert isinstance(conv, SlimmableConv2d)
        assert isinstance(norm, SlimmableBatchNorm2d), f"{conv_name} is not followed by a batch norm"
        network.set_submodule(conv_name, _FoldedConv2d(conv, norm, width))
        network.set_submodule(norm_name, _Folded())
    return network


class _FoldedConv2d(nn.Module):
    """A slimmable convolution at one width, with the batch norm after it."""

    def __init__(self, conv: SlimmableConv2d, norm: SlimmableBatchNorm2d, width: float) -> None:
        super().__init__()
        scale_O, shift_O = _scale_and_shift(norm.weight, norm.bias, *norm.statistics(width))
        num_inputs = conv.weight.shape[1]
        if not conv.depthwise and num_inputs != RGB_CHANNELS:
            num_inputs = slim_channels(num_inputs, width, conv.divisor)
        weight_OIHW = conv.weight[: len(scale_O), :num_inputs] * scale_O[:, None, None, None]
        self.weight = nn.Parameter(weight_OIHW.detach().contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(shift_O)
        self._kernel_size, self._stride, self._pads_same = conv.kernel_size, conv.stride, conv.pads_same
        self._padding = 0 if conv.pads_same else conv.kernel_size // 2
        self._groups = len(scale_O) if conv.depthwise else 1

    def forward(self, x_NCHW: Tensor, _width: float) -> Tensor:
        if self._pads_same:
            x_NCHW = pad_same(x_NCHW, self._kernel_size, self._stride)
        return functional.conv2d(
            x_NCHW, self.weight, self.bias, self._stride, self._padding, groups=self._groups
        )


class _Folded(nn.Module):
    """Stands where a batch norm was that the convolution before it has taken in."""

    def forward(self, x_NCHW: Tensor, _width: float) -> Tensor:
        return x_NCHW


def _folded_gate(gate: Gate) -> Gate:
    folded = deepcopy(gate)
    folded.set_submodule("squeeze", _with_norm(gate.squeeze, gate.squeeze_norm))
    folded.set_submodule("squeeze_norm", nn.Identity())
    folded.set_submodule("linear", _with_norm(gate.linear, gate.norm))
    folded.set_submodule("norm", nn.Identity())
    return folded


def _folded_fusion(fusion: FusionHead) -> FusionHead:
    folded = deepcopy(fusion)
    folded.set_submodule("linear", _with_norm(fusion.linear, fusion.norm))
    folded.set_submodule("norm", nn.Identity())
    return folded


def _with_norm(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """Return a copy of a layer without bias that has taken in the batch norm after it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale_O, shift_O = _scale_and_shift(norm.weight, norm.bias, norm.running_mean, norm.running_var)
    folded = deepcopy(layer)
    folded.weight = nn.Parameter(layer.weight.detach() * scale_O.view(-1, *[1] * (layer.weight.ndim - 1)))
    folded.bias = nn.Parameter(shift_O)
    return folded


def _scale_and_shift(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    scale, shift = fold_norm(*(_array(each) for each in (weight, bias, mean, variance)))
    return torch.from_numpy(scale), torch.from_numpy(shift)


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().cpu().float().numpy()
    return array


class _Pixels(nn.Module):
    """uint8 [N, H, W, 3] to normalised frames [N, 3, H, W] of a type, channels last in memory."""

    scale_C: Tensor
    shift_C: Tensor

    def __init__(self, clip: ClipConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        mean_C, std_C = torch.tensor(clip.mean), torch.tensor(clip.std)
        self.register_buffer("scale_C", 1 / (255 * std_C))
        self.register_buffer("shift_C", -mean_C / std_C)

    def forward(self, frames_NHWC: Tensor) -> Tensor:
        normalized_NHWC: Tensor = frames_NHWC.float() * self.scale_C + self.shift_C
        return normalized_NHWC.permute(0, 3, 1, 2).to(self._dtype, memory_format=torch.channels_last)


class _Resize(nn.Module):
    """uint8 [N, H, W, 3] to float [N, R, R, 3], bilinear and antialiased, by two matrix products.

    torch's own kernel gives a thread each pixel of all frames, which keeps a GPU idle. Where the network has
    two bytes, these have float16: it holds every uint8 exactly, and the products' sums are float32.

    Args:
        size: H and W.
        resolution: R.
        dtype: of the network.
    """

    matrix_RH: Tensor

    def __init__(self, size: int, resolution: int, dtype: torch.dtype) -> None:
        super().__init__()
        exact = torch.float32 if dtype == torch.float32 else torch.float16
        self.register_buffer("matrix_RH", torch.from_numpy(resize_matrix(size, resolution)).to(exact))

    def forward(self, frames_NHWC: Tensor) -> Tensor:
        frames_NCHW = frames_NHWC.permute(0, 3, 1, 2).to(
            self.matrix_RH.dtype, memory_format=torch.contiguous_format
        )
        resized_NCRR: Tensor = self.matrix_RH @ (frames_NCHW @ self.matrix_RH.T)
        return resized_NCRR.permute(0, 2, 3, 1)


class Backboned(nn.Module):
    """A part with a backbone in it: worth kernels of its own (`sdcom.engine.cuda_graphs`)."""


class Look(Backboned):
    """The static network and the gate's embedding: uint8 [N, H, W, 3] to [N, D] and [N, E].

    Args:
        networks: of the model.
        dtype: of the static network.
    """

    def __init__(self, networks: SDCOM, dtype: torch.dtype) -> None:
        super().__init__()
        clip, resolution = networks.config.clip, networks.config.static_resolution
        is_resized = resolution != clip.crop
        self._resize = _Resize(clip.crop, resolution, dtype) if is_resized else nn.Identity()
        self._pixels = _Pixels(clip, dtype)
        self._static = dense(networks.static, FULL_WIDTH).to(dtype)
        self._gate = _folded_gate(networks.gate)

    def forward(self, frames_NHWC: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102 - described by the class
        small_NCHW = self._pixels(self._resize(frames_NHWC))
        map_NCHW = self._static.feature_map(small_NCHW, FULL_WIDTH)
        return self._static.pool(map_NCHW).float(), self._gate.embed(map_NCHW.float())


class Fill(Backboned):
    """The dynamic network at one width: uint8 [N, H, W, 3] to [N, D], zero-padded.

    Args:
        networks: of the model.
        width: above 0.
        dtype: of the network.
    """

    def __init__(self, networks: SDCOM, width: float, dtype: torch.dtype) -> None:
        super().__init__()
        self._num_features = networks.dynamic.num_features
        self._pixels = _Pixels(networks.config.clip, dtype)
        self._dynamic = dense(networks.dynamic, width).to(dtype)

    def forward(self, frames_NHWC: Tensor) -> tuple[Tensor]:  # noqa: D102 - described by the class
        map_NCHW = self._dynamic.feature_map(self._pixels(frames_NHWC), FULL_WIDTH)
        features_ND = self._dynamic.pool(map_NCHW)
        missing = self._num_features - features_ND.shape[1]
        return (functional.pad(features_ND.float(), (0, missing)),)


class Decide(nn.Module):
    """The gate's decision: embeddings [B, T, E] and state [B, H] to logits [B, T, K] and the last state."""

    def __init__(self, networks: SDCOM) -> None:
        super().__init__()
        self._gate = deepcopy(networks.gate)

    def forward(  # noqa: D102 - described by the class
        self, embeddings_BTE: Tensor, state_BH: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits_BTK, last_1BH = self._gate.decide(embeddings_BTE, state_BH[None])
        return logits_BTK, last_1BH[0]


class Fuse(nn.Module):
    """The fusion head's projection: static [N, Ds] and dynamic features [N, Dd] to z [N, F].

    Args:
        networks: of the model.
        dtype: of the projection.
    """

    def __init__(self, networks: SDCOM, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._fusion = _folded_fusion(networks.fusion).to(dtype)

    def forward(  # noqa: D102 - described by the class
        self, features_ND: Tensor, supplements_ND: Tensor
    ) -> tuple[Tensor]:
        return (self._fusion.project(features_ND.to(self._dtype), supplements_ND.to(self._dtype)).float(),)


class Classify(nn.Module):
    """Some of the T classifiers: running maxima [B, t, F] to logits [B, t, L].

    Args:
        fusion: the head.
        steps: their positions in feeding order, t of them.
    """

    weight_tLF: Tensor
    bias_tL: Tensor

    def __init__(self, fusion: FusionHead, steps: slice) -> None:
        super().__init__()
        self.register_buffer("weight_tLF", fusion.classifier_weight.detach()[steps])
        self.register_buffer("bias_tL", fusion.classifier_bias.detach()[steps])

    def forward(self, maxima_BtF: Tensor) -> tuple[Tensor]:  # noqa: D102 - described by the class
        return (torch.einsum("btf,tlf->btl", maxima_BtF, self.weight_tLF) + self.bias_tL,)


class Conclude(nn.Module):
    """The fusion head on whole videos: static [B, T, Ds] and dynamic features [B, T, Dd] to [B, T, L].

    Args:
        fuse: the projection.
        classify: the first T classifiers.
    """

    def __init__(self, fuse: Fuse, classify: Classify) -> None:
        super().__init__()
        self._fuse, self._classify = fuse, classify

    def forward(  # noqa: D102 - described by the class
        self, features_BTD: Tensor, supplements_BTD: Tensor
    ) -> tuple[Tensor]:
        (z_NF,) = self._fuse(features_BTD.flatten(0, 1), supplements_BTD.flatten(0, 1))
        (logits_BTL,) = self._classify(running_maximum(z_NF.view(*features_BTD.shape[:2], -1)))
        return (logits_BTL,)
