"""The fusion head: projection, running maximum, a classifier per frame."""

import pytest
import torch
from torch.nn import functional

from sdcom.models.fusion import FusionHead, running_maximum

B, T, STATIC, DYNAMIC, F, L = 2, 5, 6, 9, 11, 4


def _head() -> FusionHead:
    head = FusionHead(
        static_features=STATIC, dynamic_features=DYNAMIC, hidden=F, num_frames=T, num_labels=L, dropout=0.5
    )
    head.project(torch.randn(16, STATIC), torch.randn(16, DYNAMIC))  # moves the statistics off their start
    return head.eval()


def test_logits_are_those_of_separate_classifiers_on_the_maximum_so_far() -> None:
    head = _head()
    static_BTD, dynamic_BTD = torch.randn(B, T, STATIC), torch.randn(B, T, DYNAMIC)
    logits_BTL = head(static_BTD, dynamic_BTD)
    maximum_BF = torch.zeros(B, F)
    for step in range(T):
        maximum_BF = torch.maximum(maximum_BF, head.project(static_BTD[:, step], dynamic_BTD[:, step]))
        expected = maximum_BF @ head.classifier_weight[step].T + head.classifier_bias[step]
        torch.testing.assert_close(logits_BTL[:, step], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(head.classify_at(maximum_BF, step), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(head.classify_at(maximum_BF[0], step), expected[0], rtol=0, atol=1e-5)


def test_the_first_frames_alone_give_the_same_anytime_answers() -> None:
    head = _head()
    static_BTD, dynamic_BTD = torch.randn(B, T, STATIC), torch.randn(B, T, DYNAMIC)
    whole = head(static_BTD, dynamic_BTD)
    torch.testing.assert_close(head(static_BTD[:, :3], dynamic_BTD[:, :3]), whole[:, :3], rtol=0, atol=1e-5)


def test_the_projection_is_a_linear_layer_a_batch_norm_and_a_relu() -> None:
    head = _head()
    static_ND, dynamic_ND = torch.randn(3, STATIC), torch.randn(3, DYNAMIC)
    linear = torch.cat((static_ND, dynamic_ND), 1) @ head.linear.weight.T
    norm = head.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scaled = (linear - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(head.project(static_ND, dynamic_ND), functional.relu(scaled))


def test_the_running_maximum_never_falls_and_ends_at_the_maximum() -> None:
    z_BTF = torch.randn(B, T, F)
    maxima_BTF = running_maximum(z_BTF)
    assert (maxima_BTF.diff(dim=1) >= 0).all()
    assert torch.equal(maxima_BTF[:, -1], z_BTF.amax(dim=1))


def test_gradients_of_the_last_answer_reach_every_frame_and_not_the_other_classifiers() -> None:
    head = _head().train()
    dynamic_BTD = torch.randn(B, T, DYNAMIC, requires_grad=True)
    head(torch.randn(B, T, STATIC), dynamic_BTD)[:, -1].square().sum().backward()
    assert dynamic_BTD.grad is not None
    assert (dynamic_BTD.grad.abs().sum((0, 2)) > 0).all()
    assert head.classifier_weight.grad is not None
    assert head.classifier_weight.grad[:-1].abs().max() == 0


@pytest.mark.parametrize("step", [-1, T])
def test_a_step_without_a_classifier_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=rf"in \[0, {T}\), got {step}"):
        _head().classify_at(torch.zeros(B, F), step)
