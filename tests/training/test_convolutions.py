"""`LinearConvolutions`: the values and gradients are torch's own, at the cost of two convolutions."""

import pytest
import torch
from torch import Tensor
from torch.profiler import profile

from sdcom.models.backbone import build_backbone
from training.convolutions import LinearConvolutions


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
    with LinearConvolutions():
        found = derived()
    assert float(expected[-1].detach().abs().min()) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_group_is_differentiated_alone() -> None:
    weights = torch.ones(64, 1, 3, 3, requires_grad=True)
    x_NCHW = torch.randn(2, 64, 8, 8, requires_grad=True)
    scale = torch.ones((), requires_grad=True)
    with LinearConvolutions(), profile() as profiled:
        convolved = torch.conv2d(x_NCHW, weights, None, 2, 1, groups=64)
        gradients = torch.autograd.grad(convolved.sum() * scale, [x_NCHW, weights], create_graph=True)
        torch.autograd.grad([gradient.sum() for gradient in gradients], [scale])
    counts = {event.key: event.count for event in profiled.key_averages()}
    assert counts["aten::convolution"] <= 3, "one forward, and two for the second derivative"


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_with_a_bias_and_any_form_is_torchs_own(groups: int) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 6, 3, stride=2, padding=(1, 0), dilation=(1, 2), groups=groups).double()
    x_NCHW = torch.randn(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)

    def derived() -> tuple[Tensor, ...]:
        y_NCHW = layer(x_NCHW)
        return (y_NCHW, *torch.autograd.grad(y_NCHW.square().sum(), [x_NCHW, *layer.parameters()]))

    expected = derived()
    with LinearConvolutions():
        found = derived()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
