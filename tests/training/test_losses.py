"""The losses against values worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional

from training.losses import anytime_cross_entropy, diversity, efficiency, feature_distance, soft_cross_entropy

WIDTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def test_soft_cross_entropy_by_hand() -> None:
    logits_NL = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log() + 3  # a shift changes nothing
    target_NL = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    expected = (-(0.5 * math.log(0.25) + 0.5 * math.log(0.75)) + math.log(2)) / 2
    assert float(soft_cross_entropy(logits_NL, target_NL)) == pytest.approx(expected)


def test_soft_cross_entropy_to_certain_targets_is_cross_entropy() -> None:
    logits_NL, labels_N = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    soft = soft_cross_entropy(logits_NL, functional.one_hot(labels_N, 4).float())
    torch.testing.assert_close(soft, functional.cross_entropy(logits_NL, labels_N))


def test_anytime_cross_entropy_is_that_of_each_frame_of_each_video() -> None:
    probabilities_BTL = torch.tensor([[[0.5, 0.5], [0.9, 0.1]], [[0.2, 0.8], [0.4, 0.6]]])
    loss = anytime_cross_entropy(probabilities_BTL.log(), torch.eye(2))
    assert loss.tolist() == pytest.approx([-math.log(p) for p in (0.5, 0.9, 0.8, 0.6)])


def test_label_smoothing_gives_every_class_its_share() -> None:
    loss = anytime_cross_entropy(
        torch.tensor([[[0.75, 0.25]]]).log(), torch.tensor([[1.0, 0.0]]), label_smoothing=0.2
    )
    assert float(loss) == pytest.approx(-(0.9 * math.log(0.75) + 0.1 * math.log(0.25)))


def test_efficiency_is_the_square_of_the_width_chosen_for_each_frame() -> None:
    choices_NK = functional.one_hot(torch.tensor([0, 2, 4, 1]), 5).float()
    assert efficiency(choices_NK, WIDTHS).tolist() == pytest.approx([0, 0.25, 1, 0.0625])


def test_efficiency_pulls_towards_narrow_widths() -> None:
    choices_NK = torch.full((1, 5), 0.2, requires_grad=True)
    efficiency(choices_NK, WIDTHS).sum().backward()
    assert choices_NK.grad is not None
    assert (choices_NK.grad[0].diff() > 0).all()


@pytest.mark.parametrize(
    ("dynamic", "expected"), [([2.0, 2.0], 2), ([-1.0, -1.0], 0), ([3.0, -3.0], 1), ([0.0, 0.0], 1)]
)
def test_diversity_is_least_where_the_supplement_says_the_opposite(
    dynamic: list[float], expected: float
) -> None:
    loss = diversity(torch.ones(1, 1), torch.tensor([[dynamic]]), torch.ones(1, 2))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_diversity_is_the_mean_over_the_widths_chosen() -> None:
    dynamic_KNL = torch.tensor([[[0.0, 0.0]] * 3, [[1.0, 0.0]] * 3, [[-2.0, 0.0]] * 3])
    static_NL = torch.tensor([[5.0, 0.0]] * 3)
    chosen = diversity(torch.eye(3), dynamic_KNL, static_NL)
    assert float(chosen) == pytest.approx(1 + (0 + 1 - 1) / 3)
    assert float(diversity(torch.eye(3)[[1, 1, 2]], dynamic_KNL, static_NL)) == pytest.approx(1 + 1 / 3)


def test_a_frame_without_a_supplement_has_no_wild_gradient() -> None:
    choices_NK = torch.tensor([[1.0, 0.0]], requires_grad=True)
    static_NL = torch.tensor([[0.3, -0.4]], requires_grad=True)
    diversity(choices_NK, torch.tensor([[[0.0, 0.0]], [[3.0, -4.0]]]), static_NL).backward()
    torch.testing.assert_close(choices_NK.grad, torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(static_NL.grad, torch.zeros(1, 2))


def test_feature_distance_compares_the_first_features_relative_to_their_size() -> None:
    student_ND, teacher_ND = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0, 100.0]])
    assert float(feature_distance(student_ND, teacher_ND)) == pytest.approx((4 + 4) / (9 + 16))
    assert float(feature_distance(teacher_ND, teacher_ND)) == 0
