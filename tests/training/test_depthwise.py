"""Depthwise convolutions in `LinearDepthwise`: the same values and gradients, and no loop over groups."""

import pytest
import torch
from torch import Tensor
from torch.profiler import profile

from sdcom.models.backbone import build_backbone
from training.depthwise import LinearDepthwise


@pytest.mark.parametrize("same_padding", [False, True])
def test_the_derivative_of_a_gradient_by_the_losses_weights_is_torchs_own(same_padding: bool) -> None:
    torch.manual_seed(0)
    network = build_backbone("mobilenet_v2", (1.0,), 5, same_padding).train().double()
    frames_NCHW = torch.randn(3, 3, 33, 33, dtype=torch.float64)
    directions = [torch.randn_like(parameter) for parameter in network.parameters()]

    def derived() -> tuple[Tensor, ...]:
        weights_N = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
        torch.manual_seed(1)  # dropout's
        loss = (network(frames_NCHW, 1.0).square().sum(dim=1) * weights_N).mean()
        gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        along = torch.stack([(g * d).sum() for g, d in zip(gradients, directions, strict=True)]).sum()
        return (loss, *gradients, *torch.autograd.grad(along, [weights_N]))

    expected = derived()
    with LinearDepthwise():
        found = derived()
    assert float(expected[-1].detach().abs().min()) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_group_is_differentiated_alone() -> None:
    weights = torch.ones(64, 1, 3, 3, requires_grad=True)
    x_NCHW = torch.randn(2, 64, 8, 8, requires_grad=True)
    scale = torch.ones((), requires_grad=True)
    with LinearDepthwise(), profile() as profiled:
        convolved = torch.conv2d(x_NCHW, weights, None, 2, 1, groups=64)
        gradients = torch.autograd.grad(convolved.sum() * scale, [x_NCHW, weights], create_graph=True)
        torch.autograd.grad([gradient.sum() for gradient in gradients], [scale])
    counts = {event.key: event.count for event in profiled.key_averages()}
    assert counts["aten::convolution"] <= 5


def test_other_convolutions_are_left_alone() -> None:
    x_NCHW, weight = torch.randn(1, 4, 5, 5), torch.randn(6, 2, 3, 3, requires_grad=True)
    with LinearDepthwise():
        grouped = torch.conv2d(x_NCHW, weight, None, 1, 1, groups=2)
        plain = torch.conv2d(x_NCHW[:, :2], weight)
    assert {grouped.grad_fn.name(), plain.grad_fn.name()} == {"ConvolutionBackward0"}  # type: ignore[union-attr]
