"""The moving average follows weights and buffers, and takes its state back."""

import copy

import torch
from torch import nn

from training.moving_average import MovingAverage


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    network(torch.randn(8, 3))
    return network


def test_the_first_update_copies_and_the_next_ones_follow() -> None:
    first, second, third = (_network(seed) for seed in range(3))
    average = MovingAverage(_network(3), decay=0.75)
    average.update(first)
    average.update(second)
    average.update(third)
    states = [network.state_dict() for network in (first, second, third)]
    for name, value in average.module.state_dict().items():
        one, two, three = (state[name] for state in states)
        if value.is_floating_point():
            expected = 0.75 * (0.75 * one + 0.25 * two) + 0.25 * three
            torch.testing.assert_close(value, expected)
        else:
            assert torch.equal(value, three)


def test_an_average_neither_learns_nor_trains() -> None:
    average = MovingAverage(_network(0), decay=0.5)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert not average.module.training


def test_a_restored_average_goes_on_as_the_other_would_have() -> None:
    ours, theirs = MovingAverage(_network(0), decay=0.5), MovingAverage(_network(1), decay=0.5)
    ours.update(_network(2))
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    for average in (ours, theirs):
        average.update(_network(3))
    restored = theirs.module.state_dict()
    assert all(torch.equal(value, restored[name]) for name, value in ours.module.state_dict().items())
