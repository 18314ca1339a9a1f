"""The gate: how wide a gap the static network leaves at each frame, and so which width should fill it."""

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """1x1 convolution, batch norm, tanh, flatten, linear, batch norm, tanh; then a GRU over frames.

    The embedding is of each frame alone; the choice is causal: it depends on the frame and those fed
    before it, so a stream fed frame by frame gets the decisions of the whole sequence.

    Args:
        in_channels: channels of the static network's feature map.
        map_size: its side.
        channels: after the 1x1 convolution.
        features: D, size of a frame's embedding.
        hidden: size of the GRU's state.
        num_widths: K.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        map_size: int,
        channels: int,
        features: int,
        hidden: int,
        num_widths: int,
    ) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels * map_size**2, features, bias=False)
        self.norm = nn.BatchNorm1d(features)
        self.gru = nn.GRU(features, hidden, batch_first=True)
        self.choice = nn.Linear(hidden, num_widths)

    def embed(self, map_NCHW: Tensor) -> Tensor:
        """Return each frame's embedding [N, D] from the static feature map [N, c, h, w]."""
        squeezed = torch.tanh(self.squeeze_norm(self.squeeze(map_NCHW)))
        return torch.tanh(self.norm(self.linear(squeezed.flatten(1))))

    def decide(self, embeddings_BTD: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return each frame's width logits, given the frames fed before it.

        Args:
            embeddings_BTD: frames in feeding order.
            state: [1, B, hidden] as the call on the frames before returned it; None at the start.

        Returns:
            Logits [B, T, K], and the state after the last frame [1, B, hidden].
        """
        hidden_BTH, state = self.gru(embeddings_BTD, state)
        assert state is not None
        logits_BTK: Tensor = self.choice(hidden_BTH)
        return logits_BTK, state
