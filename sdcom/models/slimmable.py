"""Layers that run at any of several widths by using the first channels of one shared weight.

Slimmable networks (arXiv:1812.08928): the width is an argument of every call, never state, so one module
serves all widths at once. Legend of shape suffixes in this package: B videos, T frames of each, N frames
of any videos, C H W, D features, F fused features, K widths, L labels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.architecture import NORM_EPS, slim_channels, statistics_suffix
from sdcom.models.temporal_shift import Earlier


def pad_same(x_NCHW: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Pad with zeros as TensorFlow's SAME does: the odd pixel goes to the bottom and right.

    For a 3x3 kernel at stride 2 that is (0, 1) on each axis of even size and (1, 1) on odd ones.
    """
    top, bottom = _same_padding(x_NCHW.shape[2], kernel_size, stride)
    left, right = _same_padding(x_NCHW.shape[3], kernel_size, stride)
    return functional.pad(x_NCHW, (left, right, top, bottom))


def _same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    out_size = -(-size // stride)
    total = max((out_size - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


class SlimmableConv2d(nn.Module):
    """A square convolution without bias that uses the first channels of its weight.

    The weight's shape and name are those of `nn.Conv2d`, initialised as torchvision does (Kaiming normal,
    fan out).

    Args:
        in_channels: input channels at width 1.
        out_channels: output channels at width 1; equal to `in_channels` if depthwise.
        kernel_size: odd.
        stride: 1 or 2.
        depthwise: every channel is convolved alone; the output has the input's channels.
        divisor: channel counts are kept to its multiples (`slim_channels`).
        same_padding: pad as TensorFlow does (`pad_same`) instead of by `kernel_size // 2` on every side;
            the two differ at stride 2 only.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        divisor: int = 1,
        same_padding: bool = False,
    ) -> None:
        super().__init__()
        if depthwise and in_channels != out_channels:
            raise ValueError(f"a depthwise layer keeps its channels, got {in_channels=} {out_channels=}")
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.depthwise = depthwise
        self.divisor = divisor
        self.pads_same = same_padding and stride > 1
        inputs_per_output = 1 if depthwise else in_channels
        self.weight = nn.Parameter(torch.empty(out_channels, inputs_per_output, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_NCHW: Tensor, width: float) -> Tensor:
        """Convolve; the input's channels say how many of the weight's are used.

        Args:
            x_NCHW: [N, c, H, W], c at most the full width's.
            width: of the output, in [0, 1].

        Returns:
            [N, slim_channels(out_channels, width), ceil(H / stride), ceil(W / stride)].
        """
        in_channels = x_NCHW.shape[1]
        padding = self.kernel_size // 2
        if self.pads_same:
            x_NCHW, padding = pad_same(x_NCHW, self.kernel_size, self.stride), 0
        if self.depthwise:
            weight = self.weight[:in_channels]
            return functional.conv2d(x_NCHW, weight, None, self.stride, padding, groups=in_channels)
        weight = self.weight[: slim_channels(self.out_channels, width, self.divisor), :in_channels]
        return functional.conv2d(x_NCHW, weight, None, self.stride, padding)


class SlimmableBatchNorm2d(nn.Module):
    """Batch norm with running statistics of each width; the affine weight and bias are shared.

    Width 1's statistics have the plain names `running_mean` and `running_var`; width 0.25's are
    `running_mean_w25` and `running_var_w25`, with as many channels as the width leaves. There is no
    `num_batches_tracked`: the average is exponential, and torch fills the name in when it loads a state
    without it.

    Args:
        channels: at width 1.
        widths: those that it will run at; 1 among them.
        divisor: as in the convolution before it.

    Attributes:
        momentum: weight of a new batch in the running statistics.

    Raises:
        ValueError: 1 is not among the widths, or two of them share the first two decimals.
    """

    def __init__(self, channels: int, widths: Sequence[float], *, divisor: int = 1) -> None:
        super().__init__()
        self._suffixes = {width: statistics_suffix(width) for width in widths}
        if 1 not in self._suffixes or len(set(self._suffixes.values())) < len(widths):
            raise ValueError(f"widths must hold 1 and differ in their first two decimals, got {widths}")
        self.eps = NORM_EPS
        self.momentum = 0.1
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        for width, suffix in self._suffixes.items():
            slim = slim_channels(channels, width, divisor)
            self.register_buffer(f"running_mean{suffix}", torch.zeros(slim))
            self.register_buffer(f"running_var{suffix}", torch.ones(slim))

    def forward(self, x_NCHW: Tensor, width: float) -> Tensor:
        """Normalise with the batch's statistics in training and the width's own in evaluation.

        Raises:
            ValueError: the layer keeps no statistics of this width.
        """
        mean, variance = self.statistics(width)
        num_channels = x_NCHW.shape[1]
        weight, bias = self.weight[:num_channels], self.bias[:num_channels]
        return functional.batch_norm(
            x_NCHW, mean, variance, weight, bias, self.training, self.momentum, self.eps
        )

    def statistics(self, width: float) -> tuple[Tensor, Tensor]:
        """Return the running mean and variance of a width, the buffers themselves.

        Raises:
            ValueError: the layer keeps no statistics of this width.
        """
        suffix = self._suffixes.get(width)
        if suffix is None:
            raise ValueError(f"no statistics of width {width}; this network has {sorted(self._suffixes)}")
        return getattr(self, f"running_mean{suffix}"), getattr(self, f"running_var{suffix}")

    @torch.no_grad()
    def copy_full_width_statistics(self) -> None:
        """Set every width's statistics to the first channels of width 1's."""
        full_mean, full_variance = self.statistics(1)
        for width in self._suffixes:
            mean, variance = self.statistics(width)
            mean.copy_(full_mean[: len(mean)])
            variance.copy_(full_variance[: len(variance)])


class SlimmableLinear(nn.Linear):
    """A linear layer that uses the first columns of its weight, as many as its input has features."""

    def forward(self, x_ND: Tensor) -> Tensor:  # noqa: D102 - described by the class
        return functional.linear(x_ND, self.weight[:, : x_ND.shape[-1]], self.bias)


class SlimmableSequential(nn.ModuleList):
    """Slimmable layers one after the other, named by position as in `nn.Sequential`."""

    def forward(self, x_NCHW: Tensor, width: float) -> Tensor:
        """Run every layer at one width."""
        for layer in self:
            x_NCHW = layer(x_NCHW, width)
        return x_NCHW


class Backbone(nn.Module):
    """A slimmable image network: what the composition asks of its static and its dynamic network.

    Attributes:
        num_features: D, size of the pooled features at width 1.
        classifier_name: where the classifier's weight and bias lie in the state dict.
    """

    num_features: int
    classifier_name: str

    @property
    def num_map_channels(self) -> int:
        """Channels of the feature map at width 1: those of its pool, where no layer follows the pool."""
        return self.num_features

    def feature_map(self, x_NCHW: Tensor, width: float, earlier: Earlier | None = None) -> Tensor:
        """Return the last feature map.

        Args:
            x_NCHW: normalised frames [N, 3, H, W].
            width: one of those the network was built with; 0 runs the pseudo network of training.
            earlier: gives the frame before each, to a network with temporal shift; others look at each
                frame alone, and at this not at all.

        Returns:
            [N, c, h, w]: c is `map_channels(architecture)` at width 1, h and w a 32nd, rounded up.

        Raises:
            ValueError: the network was not built with this width, or needs `earlier`.
        """
        raise NotImplementedError

    def pool(self, map_NCHW: Tensor) -> Tensor:
        """Average a feature map over space to features: [N, c, h, w] to [N, D], at narrow widths fewer."""
        return map_NCHW.mean((2, 3))

    def classify(self, features_ND: Tensor) -> Tensor:
        """Return class logits [N, L] of pooled features [N, c] of any width (the first c columns)."""
        raise NotImplementedError

    def forward(self, x_NCHW: Tensor, width: float, earlier: Earlier | None = None) -> Tensor:
        """Return class logits [N, L] of frames [N, 3, H, W] at a width."""
        return self.classify(self.pool(self.feature_map(x_NCHW, width, earlier)))


def copy_full_width_statistics(module: nn.Module) -> None:
    """Set every width's batch norm statistics to the first channels of width 1's, in all of a network."""
    for layer in batch_norms(module):
        layer.copy_full_width_statistics()


def batch_norms(module: nn.Module) -> list[SlimmableBatchNorm2d]:
    """Return a network's slimmable batch norms in network order."""
    return [layer for layer in module.modules() if isinstance(layer, SlimmableBatchNorm2d)]
