"""Temporal shift (TSM, arXiv:1811.08383): channels handed from frame to frame, without weights or MACs.

Causal, and among the frames of one video that run at the same width: what a residual block computes from,
it takes for the first eighth of its channels from the frame before at that width, zeros if there is none;
the shortcut keeps the frame's own (docs/adr/0005-temporal-shift.md). Frames run in time order.

Shapes: B videos, T frames of each in time order, N frames of any videos, C H W.
"""

from collections.abc import Callable

import torch
from torch import Tensor

CHANNELS_PER_SHIFTED = 8

Earlier = Callable[[Tensor], Tensor]
"""Given the shifted channels [N, c, H, W] of N frames, returns those of the frame before each of them."""


def shifted(x_NCHW: Tensor, earlier: Earlier) -> Tensor:
    """Return a map whose first eighth of channels is that of the frames before; under 8 channels, the map."""
    num_shifted = x_NCHW.shape[1] // CHANNELS_PER_SHIFTED
    if num_shifted == 0:
        return x_NCHW
    return torch.cat((earlier(x_NCHW[:, :num_shifted]), x_NCHW[:, num_shifted:]), dim=1)


def rows_before(chosen_BT: Tensor) -> Tensor:
    """Return, for each frame, the last one before it in its video that runs at a width.

    Args:
        chosen_BT: bool, whether a frame runs at the width; all true for one width for every frame.

    Returns:
        [B * T], rows of the flattened frames, int64; -1 where there is none. Frames that were not chosen
        have one too: what they would read if they alone ran at the width besides.
    """
    num_videos, num_frames = chosen_BT.shape
    positions_T = torch.arange(num_frames, device=chosen_BT.device)
    last_BT = torch.where(chosen_BT, positions_T, -1).cummax(dim=1).values
    before_BT = torch.cat((torch.full_like(last_BT[:, :1], -1), last_BT[:, :-1]), dim=1)
    first_row_B1 = num_frames * torch.arange(num_videos, device=chosen_BT.device)[:, None]
    return torch.where(before_BT >= 0, before_BT + first_row_B1, -1).flatten()


def earlier_rows(before_N: Tensor) -> Earlier:
    """Return the shift among the frames of one batch.

    Args:
        before_N: row of the frame before each; -1 where there is none, which reads zeros.
    """
    absent_N111 = (before_N < 0)[:, None, None, None]
    rows_N = before_N.clamp(min=0)
    return lambda x_NCHW: x_NCHW[rows_N].masked_fill(absent_N111, 0)


class CarriedFrame:
    """The last frame of a stream at one width: what its blocks hand on to the next one."""

    def __init__(self) -> None:
        self._handed: list[Tensor] = []

    def next_frame(self) -> Earlier:
        """Return the shift of one more frame, run alone: each block takes what is handed on, and hands on."""
        handed, self._handed = iter(self._handed), []

        def earlier(x_NCHW: Tensor) -> Tensor:
            self._handed.append(x_NCHW.clone())
            return next(handed, torch.zeros_like(x_NCHW))

        return earlier
