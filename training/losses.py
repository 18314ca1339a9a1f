"""The losses of both stages (method, Training). Shapes: B videos, T frames, K widths, L labels, N frames."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from training.distributed import mean_over_ranks


def soft_cross_entropy(logits_NL: Tensor, target_NL: Tensor) -> Tensor:
    """Return the mean cross entropy to target probabilities."""
    return -(target_NL * logits_NL.log_softmax(dim=-1)).sum(dim=-1).mean()


def anytime_cross_entropy(logits_BTL: Tensor, targets_BL: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross entropy [N] of the prediction after each frame of each video, N = B * T."""
    targets_BTL = targets_BL[:, None].expand_as(logits_BTL)
    return functional.cross_entropy(
        logits_BTL.flatten(0, 1), targets_BTL.flatten(0, 1), reduction="none", label_smoothing=label_smoothing
    )


def efficiency(choices_NK: Tensor, widths: Sequence[float]) -> Tensor:
    """Return each frame's relative cost [N] of the width chosen, `sum_k a_k * W_k^2`, in [0, 1]."""
    cost_K = torch.tensor(widths).square().to(choices_NK, non_blocking=True)
    return choices_NK @ cost_K


def diversity(choices_NK: Tensor, dynamic_KNL: Tensor, static_NL: Tensor) -> Tensor:
    """Return 1 + the mean cosine similarity of the chosen supplement's logits and the static ones, in [0, 2].

    The supplement should say something else than the static network. Similarities are taken at each width
    and then chosen among, which for one-hot choices is the same as choosing logits first, but keeps the
    gradient finite where the choice is width 0, whose logits are zeros: it counts as neutral.
    """
    similarity_KN = functional.cosine_similarity(dynamic_KNL, static_NL[None], dim=-1)
    return 1 + (choices_NK * similarity_KN.T).sum(dim=-1).mean()


def feature_distance(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Return the mean squared distance to the teacher's first features, as a share of their mean square.

    The mean square is that of all processes, so that their losses add up to the global batch's. It counts as
    1e-6 at least: features of an untrained teacher can vanish, and have no scale then.
    """
    target_ND = teacher_ND[:, : student_ND.shape[1]]
    mean_square = mean_over_ranks(target_ND.square().mean()).clamp(min=1e-6)
    return functional.mse_loss(student_ND, target_ND) / mean_square
