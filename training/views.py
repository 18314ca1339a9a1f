"""What stage 2 sees of its clips: new views every epoch, or a few that frozen networks remember.

Shapes: B videos, T frames in feeding order, N = B * T frames, M remembered frames, D features, K widths,
L labels.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sdcom.models.composition import SDCOM, StaticView
from sdcom.models.temporal_shift import earlier_rows, rows_before
from sdcom.preprocess import normalize
from training.batches import Batch, Batches, keyed_rng
from training.draws import drawn_prices, gumbel_noise
from training.loop import BatchT
from training.optimize import Precision, mixed_precision


class PolicyBatch(NamedTuple):
    """What the policy learns from.

    Attributes:
        static: what the frozen static network saw in N frames, or the frames, normalised, for it to look at.
        supplements_KND: the dynamic network's features at every width. None with temporal shift, where they
            depend on the widths that are drawn: `static` then holds the frames.
        supplement_logits_KNL: its class logits at every width, or None.
        noise_NK: Gumbel's, that draws the widths.
        price_N: in nats, of a full-width frame: what the widths are drawn at.
        targets_BL: classes.
    """

    static: StaticView | Tensor
    supplements_KND: Tensor | None
    supplement_logits_KNL: Tensor | None
    noise_NK: Tensor
    price_N: Tensor
    targets_BL: Tensor

    def supplements(self, networks: SDCOM, choices_NK: Tensor) -> tuple[Tensor, Tensor]:
        """Return the dynamic network's features and class logits at every width, given the widths drawn."""
        if self.supplements_KND is not None and self.supplement_logits_KNL is not None:
            return self.supplements_KND, self.supplement_logits_KNL
        assert isinstance(self.static, Tensor), "frames of a network with temporal shift are not remembered"
        drawn_BT = choices_NK.argmax(dim=-1).unflatten(0, (len(self.targets_BL), -1))
        return every_width(networks, self.static, drawn_BT)


class Views(Protocol[BatchT]):
    """Where stage 2's batches come from."""

    def draw(
        self, batches: Batches, epoch: int, start_step: int, chosen_SB: Sequence[Sequence[int]]
    ) -> Iterator[BatchT]:
        """Yield a batch of given clips for each step from `start_step` on."""

    def split(
        self, batches: Batches, epoch: int, batch: BatchT, num_parts: int, highest_price: float
    ) -> list[PolicyBatch]:
        """Return equal parts of a batch, with what frozen networks say of each, and prices to learn at."""


class NewViews:
    """Other frames, crops and colours of each clip in every epoch; the static network may learn.

    Args:
        networks: the dynamic network stays as it is.
        precision: of the networks, on CUDA.
    """

    def __init__(self, networks: SDCOM, precision: Precision) -> None:
        self._networks = networks
        self._precision = precision

    def draw(
        self, batches: Batches, epoch: int, start_step: int, chosen_SB: Sequence[Sequence[int]]
    ) -> Iterator[Batch]:
        """Yield a batch of given clips for each step from `start_step` on."""
        return batches.drawn(epoch, start_step, chosen_SB)

    def split(
        self, batches: Batches, epoch: int, batch: Batch, num_parts: int, highest_price: float
    ) -> list[PolicyBatch]:
        """Return equal parts of a batch, with what the dynamic network says of each at every width."""
        noise_NK = gumbel_noise(batches, epoch, batch.clip_indices_B, self._networks.config.num_widths)
        price_N = drawn_prices(batches, epoch, batch.clip_indices_B, highest_price)
        parts = []
        for frames_BTCHW, targets_BL, noise_nK, price_n in zip(
            batch.frames_BTCHW.chunk(num_parts),
            batch.targets_BL.chunk(num_parts),
            noise_NK.chunk(num_parts),
            price_N.chunk(num_parts),
            strict=True,
        ):
            frames_NCHW = frames_BTCHW.flatten(0, 1)
            features_KND, logits_KNL = self._supplements(frames_NCHW)
            draws = (noise_nK, price_n, targets_BL)
            parts.append(PolicyBatch(frames_NCHW, features_KND, logits_KNL, *draws))
        return parts

    def _supplements(self, frames_NCHW: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return what can be known of frames before their widths are drawn."""
        if self._networks.config.temporal_shift:
            return None, None
        with mixed_precision(frames_NCHW.device, self._precision):
            return every_width(self._networks, frames_NCHW)


class Recalled(NamedTuple):
    """Rows [B, T] of the memory, and the clips that they are of, on the CPU."""

    rows_BT: Tensor
    clip_indices_B: Tensor


class RememberedViews:
    """A few views of each clip, seen once by networks that are frozen from then on.

    Args:
        networks: static and dynamic network stay as they are.
        batches: whose clips are seen; every batch drawn later must be of them.
        num_views: of each clip, drawn as in the first so many epochs.
        precision: of the networks, on CUDA.
    """

    def __init__(self, networks: SDCOM, batches: Batches, num_views: int, precision: Precision) -> None:
        self._networks = networks
        self._batches = batches
        self._num_views = num_views
        self._precision = precision
        self._memory: _Memory | None = None

    def draw(
        self, batches: Batches, epoch: int, start_step: int, chosen_SB: Sequence[Sequence[int]]
    ) -> Iterator[Recalled]:
        """Yield a batch of given clips for each step, a random view of each; see them all first, once."""
        if self._memory is None:
            self._memory = _remember(self._networks, self._batches, self._num_views, self._precision)
        for step, chosen_B in enumerate(chosen_SB, start_step):
            views_B = [self._view(batches, epoch, clip_index) for clip_index in chosen_B]
            starts_B = (np.array(chosen_B) * self._num_views + views_B) * batches.clip.num_frames
            rows_BT = starts_B[:, None] + batches.feeding_order(epoch, step)
            yield Recalled(torch.from_numpy(rows_BT), torch.tensor(chosen_B, dtype=torch.int64))

    def split(
        self, batches: Batches, epoch: int, batch: Recalled, num_parts: int, highest_price: float
    ) -> list[PolicyBatch]:
        """Return equal parts of a batch, as they are remembered."""
        assert self._memory is not None, "drawn batches are remembered"
        noise_NK = gumbel_noise(batches, epoch, batch.clip_indices_B, self._networks.config.num_widths)
        rows_BT = batch.rows_BT.to(noise_NK.device, non_blocking=True)
        price_N = drawn_prices(batches, epoch, batch.clip_indices_B, highest_price)
        draws = (rows_BT, noise_NK, price_N)
        parts = zip(*(drawn.chunk(num_parts) for drawn in draws), strict=True)
        return [self._memory.recall(*part) for part in parts]

    def _view(self, batches: Batches, epoch: int, clip_index: int) -> int:
        rng = keyed_rng(batches.seed, batches.stage, epoch, clip_index)
        return int(rng.integers(self._num_views))


class _Memory(NamedTuple):
    """What networks said of views of clips: M = clips * views * T frames in time order, as float16."""

    map_MCHW: Tensor
    static_MD: Tensor
    supplements_KMD: Tensor
    supplement_logits_KML: Tensor
    targets_ML: Tensor

    def recall(self, rows_BT: Tensor, noise_NK: Tensor, price_N: Tensor) -> PolicyBatch:
        """Return some videos' frames, as float32."""
        rows_N = rows_BT.flatten()
        return PolicyBatch(
            StaticView(self.map_MCHW[rows_N].float(), self.static_MD[rows_N].float()),
            self.supplements_KMD[:, rows_N].float(),
            self.supplement_logits_KML[:, rows_N].float(),
            noise_NK,
            price_N,
            self.targets_ML[rows_BT[:, 0]],
        )


@torch.no_grad()
def _remember(networks: SDCOM, batches: Batches, num_views: int, precision: Precision) -> _Memory:
    """Run both networks, in evaluation mode, on `num_views` augmented views of every clip."""
    training = networks.static.training
    networks.static.eval()
    time_order_T = np.arange(batches.clip.num_frames)
    seen = []
    track = batches.tracked("remembering views of clips")
    for clip_index in track(range(batches.num_clips), batches.num_clips):
        views = [batches.view(number, clip_index, time_order_T) for number in range(num_views)]
        frames_NCHW = normalize(torch.cat([view.frames_THWC for view in views]), batches.clip)
        with mixed_precision(frames_NCHW.device, precision):
            parts = (*networks.look(frames_NCHW), *every_width(networks, frames_NCHW))
        targets = torch.stack([view.target_L for view in views]).to(frames_NCHW.device)
        targets_NL = targets.repeat_interleave(len(time_order_T), dim=0)
        seen.append((*(part.half() for part in parts), targets_NL))
    networks.static.train(training)
    frame_axes = (0, 0, 1, 1, 0)
    return _Memory(
        *(torch.cat(part, axis) for part, axis in zip(zip(*seen, strict=True), frame_axes, strict=True))
    )


@torch.no_grad()
def every_width(
    networks: SDCOM, frames_NCHW: Tensor, chosen_BT: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the dynamic network at every width.

    Args:
        networks: of B * T = N frames.
        frames_NCHW: normalised.
        chosen_BT: the index of the width that each frame gets, for a network with temporal shift: at a
            width, a frame reads the last one before it that gets this width.

    Returns:
        Zero-padded features [K, N, Dd] and class logits [K, N, L]; both are zeros at width 0, as in
        inference.

    Raises:
        ValueError: a network with temporal shift needs `chosen_BT`.
    """
    features, logits = [], []
    for index, width in enumerate(networks.config.widths):
        earlier = None if chosen_BT is None else earlier_rows(rows_before(chosen_BT == index))
        filled_ND = networks.fill(frames_NCHW, width, earlier)
        features.append(filled_ND)
        classified_NL = networks.dynamic.classify(filled_ND)
        logits.append(classified_NL if width > 0 else torch.zeros_like(classified_NL))
    return torch.stack(features), torch.stack(logits)
