"""What stage 2 draws: noise and prices, of a clip and an epoch and nothing else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.conftest import TINY_CONFIG
from tests.training.conftest import batches_of, patterned_store
from training.batches import Batches
from training.draws import drawn_prices, gumbel_noise

T = TINY_CONFIG.clip.num_frames
Draw = Callable[[Batches, int, Tensor], Tensor]


def _noise(batches: Batches, epoch: int, clips_B: Tensor) -> Tensor:
    return gumbel_noise(batches, epoch, clips_B, 5)


def _prices(batches: Batches, epoch: int, clips_B: Tensor) -> Tensor:
    return drawn_prices(batches, epoch, clips_B, 10.0)


def _batches(*, stage: int = 2, seed: int = 0, batch_size: int = 4) -> Batches:
    return batches_of(patterned_store(8), TINY_CONFIG.clip, stage=stage, seed=seed, batch_size=batch_size)


@pytest.mark.parametrize("draw", [_noise, _prices])
def test_a_clips_draws_are_the_same_in_any_batch_and_others_in_every_epoch_stage_and_seed(draw: Draw) -> None:
    clips = torch.tensor([3, 1, 6])
    whole, turned = draw(_batches(), 0, clips), draw(_batches(batch_size=2), 0, clips[[2, 0]])
    assert torch.equal(whole[-T:], turned[:T])
    assert torch.equal(whole[:T], turned[T:])
    for others in (
        draw(_batches(), 1, clips),
        draw(_batches(stage=5), 0, clips),
        draw(_batches(seed=1), 0, clips),
        draw(_batches(), 0, clips[[1, 2, 0]]),
    ):
        assert not torch.isclose(whole, others).any()


def test_the_noise_is_gumbels() -> None:
    noise_NK = torch.cat([_noise(_batches(), epoch, torch.arange(8)) for epoch in range(200)])
    assert float(noise_NK.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise_NK.var()) == pytest.approx(torch.pi**2 / 6, rel=0.03)


def test_all_frames_of_a_video_have_one_price() -> None:
    prices_BT = _prices(_batches(), 0, torch.arange(8)).unflatten(0, (8, T))
    assert torch.equal(prices_BT, prices_BT[:, :1].expand(8, T))
    assert len(prices_BT.unique()) == 8


def test_prices_are_uniform_from_nothing_to_the_highest() -> None:
    drawn = torch.cat([_prices(_batches(), epoch, torch.arange(8))[::T] for epoch in range(250)])
    shares = torch.histc(drawn, bins=5, min=0, max=10) / len(drawn)
    assert float(shares.sum()) == pytest.approx(1), "none is outside"
    assert shares.tolist() == pytest.approx([0.2] * 5, abs=0.03)


def test_where_no_price_is_the_highest_there_is_none() -> None:
    assert not drawn_prices(_batches(), 0, torch.arange(8), 0.0).any()
