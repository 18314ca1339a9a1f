"""Layers that use the first channels of their weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from sdcom.architecture import statistics_suffix
from sdcom.models.backbone import build_backbone
from sdcom.models.slimmable import (
    SlimmableBatchNorm2d,
    SlimmableConv2d,
    SlimmableLinear,
    pad_same,
)

WIDTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_convolution_equals_a_plain_one_with_the_first_channels(width: float) -> None:
    layer = SlimmableConv2d(12, 20, 3, stride=2)
    inputs, outputs = max(1, int(12 * width)), max(1, int(20 * width))
    x = torch.randn(2, inputs, 9, 9)
    expected = functional.conv2d(x, layer.weight[:outputs, :inputs].clone(), stride=2, padding=1)
    torch.testing.assert_close(layer(x, width), expected, rtol=0, atol=1e-6)


def test_a_depthwise_convolution_keeps_its_inputs_channels() -> None:
    layer = SlimmableConv2d(32, 32, 3, depthwise=True, divisor=8)
    x = torch.randn(2, 16, 7, 7)
    expected = functional.conv2d(x, layer.weight[:16], padding=1, groups=16)
    torch.testing.assert_close(layer(x, 0.5), expected)


def test_a_depthwise_convolution_cannot_change_its_channels() -> None:
    with pytest.raises(ValueError, match="keeps its channels"):
        SlimmableConv2d(8, 16, 3, depthwise=True)


def test_gradients_reach_only_the_channels_that_a_width_uses() -> None:
    layer = SlimmableConv2d(8, 8, 3)
    norm = SlimmableBatchNorm2d(8, (0.5, 1.0))
    norm(layer(torch.randn(2, 4, 5, 5), 0.5), 0.5).square().sum().backward()
    assert layer.weight.grad is not None
    assert norm.bias.grad is not None
    assert layer.weight.grad[:4, :4].abs().min() > 0
    assert layer.weight.grad[4:].abs().max() == 0
    assert layer.weight.grad[:, 4:].abs().max() == 0
    assert norm.bias.grad[4:].abs().max() == 0


def test_a_linear_layer_uses_as_many_columns_as_its_input_has() -> None:
    layer = SlimmableLinear(16, 3)
    x = torch.randn(5, 4)
    padded = functional.pad(x, (0, 12))
    torch.testing.assert_close(layer(x), layer(padded))
    torch.testing.assert_close(layer(padded), nn.Linear.forward(layer, padded))


@pytest.mark.parametrize(("size", "before", "after"), [(224, 0, 1), (96, 0, 1), (33, 1, 1), (7, 1, 1)])
def test_same_padding_puts_the_odd_pixel_at_the_bottom_and_right(size: int, before: int, after: int) -> None:
    x = torch.randn(1, 2, size, size)
    expected = functional.pad(x, (before, after, before, after))
    torch.testing.assert_close(pad_same(x, 3, 2), expected)
    layer = SlimmableConv2d(2, 4, 3, stride=2, same_padding=True)
    torch.testing.assert_close(layer(x, 1.0), functional.conv2d(expected, layer.weight, stride=2))


def test_same_padding_changes_nothing_at_stride_one() -> None:
    layer = SlimmableConv2d(2, 4, 3, same_padding=True)
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(layer(x, 1.0), functional.conv2d(x, layer.weight, padding=1))


def test_training_one_width_leaves_the_statistics_of_the_others_untouched() -> None:
    norm = SlimmableBatchNorm2d(16, WIDTHS)
    before = copy.deepcopy(dict(norm.named_buffers()))
    norm(torch.randn(4, 4, 6, 6) + 3, 0.25)
    changed = {name for name, value in norm.named_buffers() if not torch.equal(value, before[name])}
    assert changed == {"running_mean_w25", "running_var_w25"}


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_at_full_width_equals_torchs(training: bool) -> None:
    norm, plain = SlimmableBatchNorm2d(6, (0.5, 1.0)).train(training), nn.BatchNorm2d(6).train(training)
    for x in torch.randn(3, 4, 6, 5, 5):
        torch.testing.assert_close(norm(x, 1.0), plain(x))
    state = {name: value for name, value in norm.state_dict().items() if not name.endswith("_w50")}
    torch.testing.assert_close(state["running_var"], plain.running_var)
    nn.BatchNorm2d(6).load_state_dict(state)  # torch fills in num_batches_tracked


def test_statistics_of_each_width_have_its_channels_and_name() -> None:
    norm = SlimmableBatchNorm2d(24, WIDTHS, divisor=8)
    sizes = {name: len(value) for name, value in norm.named_buffers() if name.startswith("running_mean")}
    assert sizes == {
        "running_mean": 24,
        "running_mean_w00": 8,
        "running_mean_w25": 8,
        "running_mean_w50": 16,
        "running_mean_w75": 24,
    }


def test_full_width_statistics_are_copied_to_every_width() -> None:
    norm = SlimmableBatchNorm2d(8, WIDTHS)
    norm(torch.randn(4, 8, 3, 3) * 2 + 1, 1.0)
    norm.copy_full_width_statistics()
    for width in WIDTHS:
        mean, variance = norm.statistics(width)
        assert torch.equal(mean, norm.statistics(1.0)[0][: len(mean)])
        assert torch.equal(variance, norm.statistics(1.0)[1][: len(variance)])


def test_a_width_that_the_network_was_not_built_with_is_refused() -> None:
    norm = SlimmableBatchNorm2d(8, (0.5, 1.0))
    with pytest.raises(ValueError, match=r"width 0.25; this network has \[0.5, 1.0\]"):
        norm(torch.randn(2, 2, 3, 3), 0.25)


@pytest.mark.parametrize("widths", [(0.25, 0.5), (0.251, 0.253, 1.0)])
def test_widths_without_one_or_with_colliding_names_are_refused(widths: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="widths must"):
        SlimmableBatchNorm2d(8, widths)


def test_suffixes_are_the_percentages() -> None:
    assert [statistics_suffix(width) for width in WIDTHS] == ["_w00", "_w25", "_w50", "_w75", ""]


def test_a_network_runs_functionally_on_other_parameters_and_leaves_its_own_alone() -> None:
    model = build_backbone("resnet18", WIDTHS, 3).train()
    other = build_backbone("resnet18", WIDTHS, 3).train()
    before = copy.deepcopy(model.state_dict())
    state = {**dict(other.named_parameters()), **copy.deepcopy(dict(other.named_buffers()))}
    x = torch.randn(2, 3, 32, 32)
    logits = torch.func.functional_call(model, state, (x, 0.25))
    torch.testing.assert_close(logits, other(x, 0.25))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_gradient_step_can_be_differentiated_through() -> None:
    model = build_backbone("mobilenet_v2", (0.25, 1.0), 3).eval()
    x = torch.randn(1, 3, 32, 32)
    parameters = dict(model.named_parameters())
    price = torch.tensor(0.5, requires_grad=True)
    loss = price * model(x, 0.25).square().mean()
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    stepped = {name: p - 0.1 * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    torch.func.functional_call(model, stepped, (x, 0.25)).square().mean().backward()
    assert price.grad is not None
    assert price.grad.abs() > 0


def test_layers_run_under_autocast_as_plain_ones_do() -> None:
    conv, norm, linear = SlimmableConv2d(8, 8, 3), SlimmableBatchNorm2d(8, (0.5, 1.0)), SlimmableLinear(8, 3)
    plain_norm = nn.BatchNorm2d(4)
    x = torch.randn(2, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        map_NCHW = norm(conv(x, 0.5), 0.5)
        expected = plain_norm(functional.conv2d(x, conv.weight[:4, :4], padding=1))
        logits = linear(map_NCHW.mean((2, 3)))
    assert map_NCHW.dtype == logits.dtype == torch.bfloat16
    assert torch.equal(map_NCHW, expected)
    assert norm.statistics(0.5)[0].dtype == torch.float32
