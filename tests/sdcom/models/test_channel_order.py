"""Sorting channels changes the order of a network's channels and not its function."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sdcom.models.channel_order import sort_channels_by_importance
from sdcom.models.mobilenet_v2 import ConvNormReLU6, InvertedResidual, SlimmableMobileNetV2
from sdcom.models.slimmable import SlimmableBatchNorm2d, SlimmableConv2d, batch_norms

Randomize = Callable[[nn.Module], None]


@pytest.fixture
def model(randomize: Randomize) -> SlimmableMobileNetV2:
    model = SlimmableMobileNetV2((0.25, 1.0), 9).eval()
    randomize(model)
    return model


def test_the_full_width_function_is_unchanged_and_narrow_ones_are_not(model: SlimmableMobileNetV2) -> None:
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before, narrow_before = model(x, 1.0), model(x, 0.25)
    stem_before = model.state_dict()["features.0.0.weight"].clone()
    sort_channels_by_importance(model)
    with torch.inference_mode():
        after, narrow_after = model(x, 1.0), model(x, 0.25)
    scale = before.abs().max().item()
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4 * scale)
    assert (narrow_after - narrow_before).abs().max() > 1e-3 * scale
    stem_after = model.state_dict()["features.0.0.weight"]
    assert not torch.equal(stem_after, stem_before)
    assert torch.equal(stem_after.flatten(1).sum(1).sort()[0], stem_before.flatten(1).sum(1).sort()[0])


def test_channels_that_nothing_reads_or_that_never_vary_come_last(model: SlimmableMobileNetV2) -> None:
    block = model.features[5]
    assert isinstance(block, InvertedResidual)
    _, depthwise, project, _ = block.conv
    assert isinstance(depthwise, ConvNormReLU6)
    assert isinstance(project, SlimmableConv2d)
    norm = depthwise[1]
    assert isinstance(norm, SlimmableBatchNorm2d)
    with torch.no_grad():
        project.weight[:, :2] = 0
        norm.bias[2] = -100  # never above ReLU6's floor
        norm.bias[3] = 0.123
        norm.weight[3] = 0
    sort_channels_by_importance(model)
    assert (project.weight[:, -4:].abs().sum((0, 2, 3)) == 0).sum() == 2
    assert norm.bias[-4:].min() == -100
    assert torch.isin(torch.tensor(0.123), norm.bias[-4:])
    assert project.weight[:, :-4].abs().sum((0, 2, 3)).min() > 0


def test_sorting_twice_changes_nothing_more(model: SlimmableMobileNetV2) -> None:
    sort_channels_by_importance(model)
    once = {name: value.clone() for name, value in model.state_dict().items()}
    sort_channels_by_importance(model)
    assert all(torch.equal(value, once[name]) for name, value in model.state_dict().items())


def test_statistics_of_narrow_widths_follow_the_new_order(model: SlimmableMobileNetV2) -> None:
    sort_channels_by_importance(model)
    for norm in batch_norms(model):
        narrow, full = norm.statistics(0.25)[0], norm.statistics(1.0)[0]
        assert torch.equal(narrow, full[: len(narrow)])
