"""Learning rates, who is decayed, and what a step does."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from sdcom.models.composition import SDCOM
from tests.conftest import TINY_CONFIG
from training.optimize import (
    Precision,
    build_optimizer,
    build_scaler,
    learning_rate_factor,
    mixed_precision,
    set_learning_rates,
    update,
)
from training.recipes import Optimization


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, 0.1), (1, 0.55), (2, 1), (39.99, 1), (40, 0.1), (79.9, 0.1), (80, 0.01), (100, 0.01)],
)
def test_the_papers_schedule_warms_up_and_falls_tenfold_at_milestones(epoch: float, factor: float) -> None:
    assert learning_rate_factor(epoch, Optimization()) == pytest.approx(factor)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.1), (2, 1), (6, 0.5), (10, 0), (11, 0)])
def test_without_milestones_the_rate_follows_a_cosine_to_zero(epoch: float, factor: float) -> None:
    options = Optimization(epochs=10, warmup_epochs=2, milestones=())
    assert learning_rate_factor(epoch, options) == pytest.approx(factor)


def test_without_a_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert learning_rate_factor(0, Optimization(warmup_epochs=0)) == 1


def test_rates_follow_the_schedule_and_keep_each_parts_multiplier() -> None:
    options = Optimization(learning_rate=0.5, epochs=4, warmup_epochs=0, milestones=(2,))
    parts = [(nn.Linear(2, 2).named_parameters(), 1.0), (nn.Linear(2, 2).named_parameters(), 0.1)]
    optimizer = build_optimizer(parts, options)
    rates = []
    for step in range(8):
        set_learning_rates(optimizer, step / 3, options)
        rates.append(tuple(group["lr"] for group in optimizer.param_groups))
    assert rates[:6] == [pytest.approx((0.5, 0.5, 0.05, 0.05))] * 6
    assert rates[6:] == [pytest.approx((0.05, 0.05, 0.005, 0.005))] * 2


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("adamw", AdamW)])
def test_matrices_are_decayed_and_vectors_and_frozen_parameters_are_not(name: str, kind: type) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    module[2].weight.requires_grad = False
    options = Optimization(optimizer=name, weight_decay=0.3)  # type: ignore[arg-type]  # one of the two
    optimizer = build_optimizer([(module.named_parameters(), 1.0)], options)
    assert isinstance(optimizer, kind)
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == 0.3
    assert plain["weight_decay"] == 0
    assert [p is module[0].weight for p in decayed["params"]] == [True]
    assert len(plain["params"]) == 4


def test_no_bias_is_decayed_whatever_its_shape() -> None:
    networks = SDCOM(TINY_CONFIG)
    parts = [(networks.gate.named_parameters(), 1.0), (networks.fusion.named_parameters(), 1.0)]
    gate, _, fusion, _ = (group["params"] for group in build_optimizer(parts, Optimization()).param_groups)
    assert networks.fusion.classifier_bias.ndim == 2
    assert {id(p) for p in fusion} == {
        id(networks.fusion.linear.weight),
        id(networks.fusion.classifier_weight),
    }
    assert id(networks.gate.choice.weight) in {id(p) for p in gate}
    assert all(p.ndim > 1 for p in gate)


def test_an_update_scales_large_gradients_down_and_clears_them() -> None:
    parameter = nn.Parameter(torch.zeros(2, 2))
    options = Optimization(learning_rate=1.0, weight_decay=0.0, warmup_epochs=0, milestones=(99,))
    optimizer = build_optimizer([([("weight", parameter)], 1.0)], options)
    parameter.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    norm = update(optimizer, build_scaler(torch.device("cpu"), "fp16"), max_gradient_norm=1.0)
    assert float(norm) == pytest.approx(5)
    assert not parameter.grad
    torch.testing.assert_close(parameter.detach(), torch.tensor([[-0.6, 0.0], [0.0, -0.8]]))


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_on_a_processor_every_precision_is_float32(precision: Precision) -> None:
    with mixed_precision(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32
    assert not build_scaler(torch.device("cpu"), precision).is_enabled()
