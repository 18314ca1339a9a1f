"""Sorting MobileNetV2's channels by importance, so that narrow widths start with those that matter.

A width uses the FIRST channels of every layer. In weights that were not trained slimmable the order of the
channels is arbitrary; any permutation applied to whatever writes a set of channels and to whatever reads
it leaves the function as it was (the sorting step of Once-for-All, arXiv:1908.09791, section 3.3).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sdcom.models.mobilenet_v2 import ConvNormReLU6, InvertedResidual, SlimmableMobileNetV2
from sdcom.models.slimmable import SlimmableBatchNorm2d, SlimmableConv2d, copy_full_width_statistics

NUM_QUANTILES = 256


@dataclass(slots=True)
class _ChannelGroup:
    """Channels that must be permuted together.

    Attributes:
        writers: convolutions whose outputs they are.
        norms: batch norms on them; the last in every path scales what is read.
        read_norms: those of `norms` whose output the readers see.
        readers: weights [out, in, ...] whose inputs they are.
        activated: whether a ReLU6 lies between `read_norms` and `readers`.
    """

    writers: list[SlimmableConv2d] = field(default_factory=list)
    norms: list[SlimmableBatchNorm2d] = field(default_factory=list)
    read_norms: list[SlimmableBatchNorm2d] = field(default_factory=list)
    readers: list[Tensor] = field(default_factory=list)
    activated: bool = True


@torch.no_grad()
def sort_channels_by_importance(model: SlimmableMobileNetV2) -> None:
    """Permute all internal channels, most important first; the full-width function stays the same.

    A channel's importance is its spread, as batch norm and ReLU6 leave it, times the L2 norm of the weights
    that read it: how much of what its readers give would go with it. (A constant part is not counted: the
    readers' batch norms absorb it.) The last features are weighed by the classifier, so sort while it is
    still the one that the weights were trained with. Every width's statistics become the first channels
    again. Measured in docs/adr/0003-slimmable-widths.md.
    """
    for group in _channel_groups(model):
        order = _importance(group).argsort(descending=True, stable=True)
        for convolution in group.writers:
            convolution.weight.copy_(convolution.weight[order])
        for norm in group.norms:
            for vector in (norm.weight, norm.bias, *norm.statistics(1)):
                vector.copy_(vector[order])
        for weight in group.readers:
            weight.copy_(weight[:, order])
    copy_full_width_statistics(model)


def _importance(group: _ChannelGroup) -> Tensor:
    reading = torch.stack([weight.transpose(0, 1).flatten(1).square().sum(1) for weight in group.readers])
    return _spread(group) * reading.sum(0).sqrt()


def _spread(group: _ChannelGroup) -> Tensor:
    """Return each channel's standard deviation where it is read, taking batch norm's output as normal."""
    if not group.activated:
        return torch.stack([norm.weight for norm in group.read_norms]).square().sum(0).sqrt()
    (norm,) = group.read_norms
    levels = (torch.arange(NUM_QUANTILES, device=norm.weight.device) + 0.5) / NUM_QUANTILES
    quantiles: Tensor = torch.special.ndtri(levels)
    activated: Tensor = (norm.bias[:, None] + norm.weight[:, None] * quantiles).clamp(0, 6)
    return activated.std(1)


def _channel_groups(model: SlimmableMobileNetV2) -> list[_ChannelGroup]:
    """Return the stem and last features, every residual stream, and every block's hidden channels."""
    stem, *blocks, last = model.features
    stream = _ChannelGroup()
    _add_writer(stream, *_conv_norm(stem))
    groups = [stream]
    for block in blocks:
        assert isinstance(block, InvertedResidual)
        stream = _add_block(groups, stream, block)
    convolution, norm = _conv_norm(last)
    stream.readers.append(convolution.weight)
    features = _ChannelGroup(readers=[model.linear.weight])
    _add_writer(features, convolution, norm)
    return [*groups, features]


def _add_block(groups: list[_ChannelGroup], stream: _ChannelGroup, block: InvertedResidual) -> _ChannelGroup:
    """Add a block's channels to the groups; return the group of the channels that it gives."""
    *expansion, depthwise, project, project_norm = block.conv
    assert isinstance(project, SlimmableConv2d)
    assert isinstance(project_norm, SlimmableBatchNorm2d)
    hidden = stream  # the first block convolves the stem's channels themselves
    for layer in expansion:
        convolution, norm = _conv_norm(layer)
        stream.readers.append(convolution.weight)
        hidden = _ChannelGroup(writers=[convolution], norms=[norm])
        groups.append(hidden)
    convolution, norm = _conv_norm(depthwise)
    hidden.writers.append(convolution)
    hidden.norms.append(norm)
    hidden.read_norms = [norm]
    hidden.readers.append(project.weight)
    if not block.has_shortcut:
        stream = _ChannelGroup(activated=False)
        groups.append(stream)
    _add_writer(stream, project, project_norm)
    return stream


def _add_writer(group: _ChannelGroup, convolution: SlimmableConv2d, norm: SlimmableBatchNorm2d) -> None:
    group.writers.append(convolution)
    group.norms.append(norm)
    group.read_norms.append(norm)


def _conv_norm(layer: torch.nn.Module) -> tuple[SlimmableConv2d, SlimmableBatchNorm2d]:
    assert isinstance(layer, ConvNormReLU6)
    convolution, norm = layer
    assert isinstance(convolution, SlimmableConv2d)
    assert isinstance(norm, SlimmableBatchNorm2d)
    return convolution, norm
