"""The fusion head: static and supplementary features of the frames fed so far become class logits."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class FusionHead(nn.Module):
    """Project each frame, keep the running maximum over frames, classify after every one.

    `z_t = ReLU(BN(Linear([f_s ; f_d])))`, `m_t = max(m_{t-1}, z_t)`, and the t-th of T separate
    classifiers reads `m_t`: the last one's logits are the video's, each earlier one's an anytime answer.

    Args:
        static_features: Ds.
        dynamic_features: Dd.
        hidden: F, size of z.
        num_frames: T.
        num_labels: L.
        dropout: before the classifiers, in training.
    """

    def __init__(
        self,
        *,
        static_features: int,
        dynamic_features: int,
        hidden: int,
        num_frames: int,
        num_labels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.linear = nn.Linear(static_features + dynamic_features, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(dropout)
        bound = 1 / math.sqrt(hidden)  # as T separate nn.Linear would be
        self.classifier_weight = nn.Parameter(
            torch.empty(num_frames, num_labels, hidden).uniform_(-bound, bound)
        )
        self.classifier_bias = nn.Parameter(torch.empty(num_frames, num_labels).uniform_(-bound, bound))

    def project(self, static_ND: Tensor, dynamic_ND: Tensor) -> Tensor:
        """Return z [N, F], at least 0.

        Args:
            static_ND: [N, Ds].
            dynamic_ND: [N, Dd], zero-padded where the width leaves fewer.
        """
        z_NF: Tensor = self.norm(self.linear(torch.cat((static_ND, dynamic_ND), dim=1)))
        return functional.relu(z_NF)

    def classify(self, maxima_BTF: Tensor) -> Tensor:
        """Return the logits after each frame.

        Args:
            maxima_BTF: running maxima m after the first t frames, t from 1 to at most T.

        Returns:
            [B, t, L]; the i-th is of the i-th classifier.
        """
        num_fed = maxima_BTF.shape[1]
        weight_TLF, bias_TL = self.classifier_weight[:num_fed], self.classifier_bias[:num_fed]
        return torch.einsum("btf,tlf->btl", self.dropout(maxima_BTF), weight_TLF) + bias_TL

    def classify_at(self, maxima_F: Tensor, step: int) -> Tensor:
        """Return the logits [..., L] of one classifier.

        Args:
            maxima_F: running maxima m after frame `step`, [..., F].
            step: position in feeding order, from 0.

        Raises:
            ValueError: there is no such classifier.
        """
        if not 0 <= step < self.num_frames:
            raise ValueError(f"step must be in [0, {self.num_frames}), got {step}")
        maxima_F = self.dropout(maxima_F)
        return functional.linear(maxima_F, self.classifier_weight[step], self.classifier_bias[step])

    def forward(self, static_BTD: Tensor, dynamic_BTD: Tensor) -> Tensor:
        """Return the logits [B, t, L] after each of up to T frames, given in feeding order."""
        z_NF = self.project(static_BTD.flatten(0, 1), dynamic_BTD.flatten(0, 1))
        z_BTF = z_NF.view(*static_BTD.shape[:2], -1)
        return self.classify(running_maximum(z_BTF))


def running_maximum(z_BTF: Tensor) -> Tensor:
    """Return, after each frame, the maximum of it and those before: [B, T, F]."""
    return torch.cummax(z_BTF, dim=1).values
