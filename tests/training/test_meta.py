"""Meta-learned weighting: the meta gradient against finite differences, and the steps by hand."""

import copy
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.models.composition import SDCOM
from tests.conftest import TINY_CONFIG, lively_networks
from training.losses import diversity
from training.meta import (
    FrameLosses,
    MeanOverRanks,
    MetaNetwork,
    frame_weights,
    functional_losses,
    meta_batch_clips,
    meta_gradients,
    meta_subset,
    plain_loss,
    plain_share,
    real_loss,
    sgd_step,
    trained_parameters,
    update_network,
)

B, T = 4, TINY_CONFIG.clip.num_frames
RATES = {"gate": 0.05, "fusion": 0.3}
SHARE = 0.4


@dataclass(frozen=True)
class Seen:
    """What the frozen networks said of a batch, and its targets [B, L]."""

    map_NCHW: Tensor
    static_ND: Tensor
    supplements_KND: Tensor
    logits_KNL: Tensor
    targets_BL: Tensor

    def slice(self, videos: slice) -> "Seen":
        frames = slice(videos.start * T, videos.stop * T)
        return Seen(
            self.map_NCHW[frames],
            self.static_ND[frames],
            self.supplements_KND[:, frames],
            self.logits_KNL[:, frames],
            self.targets_BL[videos],
        )


@pytest.fixture(scope="module")
def networks() -> SDCOM:
    """The policy's own parts, in float64; the gate's and the head's norms in training mode."""
    networks = lively_networks(TINY_CONFIG).requires_grad_(requires_grad=False)
    networks.gate.requires_grad_().train()
    networks.fusion.requires_grad_().train()
    networks.fusion.dropout.p = 0.2
    return networks


@pytest.fixture(scope="module")
def batches(networks: SDCOM) -> tuple[Seen, Seen]:
    """A batch, and a meta batch."""
    return _seen(networks, 1), _seen(networks, 2)


@pytest.fixture(scope="module", autouse=True)
def _double(networks: SDCOM, batches: tuple[Seen, Seen]) -> None:
    networks.double()


@pytest.fixture
def meta_network() -> MetaNetwork:
    torch.manual_seed(3)
    return MetaNetwork(hidden=6).double()


@torch.no_grad()
def _seen(networks: SDCOM, seed: int) -> Seen:
    torch.manual_seed(seed)
    frames_NCHW = functional.interpolate(torch.randn(B * T, 3, 4, 4), TINY_CONFIG.clip.crop, mode="bilinear")
    view = networks.look(frames_NCHW)
    filled = [networks.fill(frames_NCHW, width) for width in TINY_CONFIG.widths]
    logits = [networks.dynamic.classify(filled_ND) for filled_ND in filled]
    logits[0] = torch.zeros_like(logits[0])
    return Seen(
        view.map_NCHW.double(),
        view.features_ND.double(),
        torch.stack(filled).double(),
        torch.stack(logits).double(),
        torch.rand(B, TINY_CONFIG.num_labels).softmax(dim=-1).double(),
    )


def _frame_losses(networks: SDCOM, seen: Seen) -> FrameLosses:
    """The policy's terms, with soft choices: finite differences cannot see through hard ones."""
    shape_BT = (len(seen.targets_BL), T)
    static_NL = networks.static.classify(seen.static_ND)
    gate_logits_BTK, _ = networks.gate.decide(networks.gate.embed(seen.map_NCHW).unflatten(0, shape_BT))
    choices_NK = gate_logits_BTK.softmax(dim=-1).flatten(0, 1)
    dynamic_ND = torch.einsum("nk,knd->nd", choices_NK, seen.supplements_KND)
    logits_BTL = networks.fusion(seen.static_ND.unflatten(0, shape_BT), dynamic_ND.unflatten(0, shape_BT))
    targets_NL = seen.targets_BL.repeat_interleave(T, dim=0)
    return FrameLosses(
        functional.cross_entropy(logits_BTL.flatten(0, 1), targets_NL, reduction="none"),
        choices_NK @ torch.tensor(TINY_CONFIG.widths, dtype=choices_NK.dtype).square(),
        diversity(choices_NK, seen.logits_KNL, static_NL),
    )


def _trained(networks: SDCOM) -> tuple[dict[str, Tensor], dict[str, float]]:
    parameters = {name: p for name, p in networks.named_parameters() if p.requires_grad}
    return dict(parameters), {name: RATES[name.split(".")[0]] for name in parameters}


def _meta_loss(
    network: MetaNetwork, networks: SDCOM, batches: Sequence[Seen], meta_batches: Sequence[Seen], seed: int
) -> float:
    """Take the step in place with torch's own SGD, judge the result, and go back: nothing functional."""
    parts = {"gate": networks.gate, "fusion": networks.fusion}
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    optimizer = torch.optim.SGD(
        [{"params": list(part.parameters()), "lr": RATES[name]} for name, part in parts.items()]
    )
    torch.manual_seed(seed)
    for batch in batches:
        (real_loss(network, _frame_losses(networks, batch), SHARE) / len(batches)).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        judged = [plain_loss(_frame_losses(networks, batch)) for batch in meta_batches]
    for name, part in parts.items():
        part.load_state_dict(before[name])
    return float(torch.stack(judged).mean())


@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_the_meta_gradient_is_that_of_finite_differences(
    networks: SDCOM, batches: tuple[Seen, Seen], meta_network: MetaNetwork, num_micro_batches: int
) -> None:
    size = B // num_micro_batches
    micro, meta_micro = (
        [seen.slice(slice(start, start + size)) for start in range(0, B, size)] for seen in batches
    )
    parameters, rates = _trained(networks)
    losses_of = functional_losses(networks, _frame_losses)
    torch.manual_seed(9)
    gradients = meta_gradients(
        meta_network, parameters, losses_of, micro, meta_micro, rates=rates, share=SHARE
    )
    generator = torch.Generator().manual_seed(0)
    expected, found = [], []
    for _ in range(6):
        directions = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in gradients]
        losses = []
        for step in (1e-4, -1e-4):
            moved = copy.deepcopy(meta_network).requires_grad_(requires_grad=False)
            for parameter, direction in zip(moved.parameters(), directions, strict=True):
                parameter.add_(direction, alpha=step)
            losses.append(_meta_loss(moved, networks, micro, meta_micro, seed=9))
        expected.append((losses[0] - losses[1]) / 2e-4)
        found.append(sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True)))
    assert min(map(abs, expected)) > 1e-6, "a gradient of zeros would prove nothing"
    assert found == pytest.approx(expected, rel=1e-4)


def test_ranks_with_half_a_batch_each_agree_with_one_that_has_it_all(
    networks: SDCOM, batches: tuple[Seen, Seen], meta_network: MetaNetwork
) -> None:
    whole = copy.deepcopy(networks).eval()  # no statistics of a batch, no dropout
    meeting = _Meeting(2)

    def rank(part: slice, mean_over_ranks: MeanOverRanks) -> list[Tensor]:
        own = copy.deepcopy(whole)
        parameters, rates = _trained(own)
        mine = [[seen.slice(part)] for seen in batches]
        losses_of = functional_losses(own, _frame_losses)
        network = copy.deepcopy(meta_network)
        return meta_gradients(
            network, parameters, losses_of, *mine, rates=rates, share=SHARE, mean_over_ranks=mean_over_ranks
        )

    expected = rank(slice(0, B), list)
    with ThreadPoolExecutor(2) as ranks:
        halves = (slice(0, B // 2), slice(B // 2, B))
        found = list(ranks.map(rank, halves, (meeting.mean, meeting.mean)))
    for one, other, alone in zip(*found, expected, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, alone)
        assert alone.any()


class _Meeting:
    """Threads in place of processes: each leaves its tensors, and takes the mean of everybody's."""

    def __init__(self, num_ranks: int) -> None:
        self._left: dict[int, Sequence[Tensor]] = {}
        self._barrier = threading.Barrier(num_ranks, timeout=60)

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self._left[threading.get_ident()] = tensors
        self._barrier.wait()
        means = [torch.stack(same).mean(dim=0) for same in zip(*self._left.values(), strict=True)]
        self._barrier.wait()
        return means


def test_the_functional_step_is_one_step_of_torchs_sgd(
    networks: SDCOM, batches: tuple[Seen, Seen], meta_network: MetaNetwork
) -> None:
    parameters, rates = _trained(networks)
    losses_of = functional_losses(networks, _frame_losses)
    torch.manual_seed(4)
    loss = real_loss(meta_network, losses_of(parameters, batches[0]), SHARE)
    stepped = sgd_step(parameters, torch.autograd.grad(loss, list(parameters.values())), rates)

    real = copy.deepcopy(networks)
    groups = [{"params": [p], "lr": rates[name]} for name, p in real.named_parameters() if name in rates]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    torch.manual_seed(4)
    real_loss(meta_network, _frame_losses(real, batches[0]), SHARE).backward()
    optimizer.step()
    expected = dict(real.named_parameters())
    for name, value in stepped.items():
        assert torch.equal(value, expected[name]), name
        assert not torch.equal(value, parameters[name]), name


def test_nothing_of_the_real_model_changes(
    networks: SDCOM, batches: tuple[Seen, Seen], meta_network: MetaNetwork
) -> None:
    before = copy.deepcopy(networks.state_dict())
    of_meta = copy.deepcopy(meta_network.state_dict())
    parameters, rates = _trained(networks)
    losses_of = functional_losses(networks, _frame_losses)
    meta_gradients(meta_network, parameters, losses_of, batches[:1], batches[1:], rates=rates, share=SHARE)
    assert all(torch.equal(value, before[name]) for name, value in networks.state_dict().items())
    assert all(torch.equal(value, of_meta[name]) for name, value in meta_network.state_dict().items())
    assert all(p.grad is None for p in (*networks.parameters(), *meta_network.parameters()))


def test_the_real_update_sends_no_gradient_to_the_meta_network(
    networks: SDCOM, batches: tuple[Seen, Seen], meta_network: MetaNetwork
) -> None:
    losses = _frame_losses(copy.deepcopy(networks), batches[0])
    loss = real_loss(meta_network, losses, SHARE)
    loss.backward()
    assert all(p.grad is None for p in meta_network.parameters())
    weights_N2 = frame_weights(meta_network, losses, SHARE).detach()
    by_hand = weights_N2[:, 0] @ losses.cross_entropy_N + weights_N2[:, 1] @ losses.efficiency_N
    torch.testing.assert_close(loss, by_hand / (B * T) + losses.diversity)
    assert SHARE < float(weights_N2.min()) < float(weights_N2.max()) < 1


def test_weights_learn_from_the_losses_but_send_no_gradient_into_them(meta_network: MetaNetwork) -> None:
    cross_entropy_N = torch.rand(5, dtype=torch.float64, requires_grad=True)
    losses = FrameLosses(cross_entropy_N, torch.rand(5, dtype=torch.float64), torch.zeros(()))
    frame_weights(meta_network, losses, SHARE).sum().backward()
    assert cross_entropy_N.grad is None
    assert all(p.grad is not None for p in meta_network.parameters())


def test_the_weights_start_as_the_plain_sum_and_end_as_the_networks_own(meta_network: MetaNetwork) -> None:
    assert plain_share(0) == 1
    assert plain_share(10) == pytest.approx(math.exp(-0.5))
    assert plain_share(49) < 1e-5
    cross_entropy_N, efficiency_N = torch.rand(2, 5, dtype=torch.float64)
    losses = FrameLosses(cross_entropy_N, efficiency_N, torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(real_loss(meta_network, losses, plain_share(0)), plain_loss(losses))
    own_N2 = meta_network(torch.stack(losses[:2], dim=-1))
    torch.testing.assert_close(frame_weights(meta_network, losses, 0.0), own_N2)


def test_the_meta_network_learns_to_lower_the_meta_loss(
    networks: SDCOM, batches: tuple[Seen, Seen], meta_network: MetaNetwork
) -> None:
    parameters, rates = _trained(networks)
    losses_of = functional_losses(networks, _frame_losses)
    optimizer = torch.optim.Adam(meta_network.parameters(), lr=0.02)
    before = _meta_loss(meta_network, networks, batches[:1], batches[1:], seed=0)
    for _ in range(15):
        torch.manual_seed(0)
        gradients = meta_gradients(
            meta_network, parameters, losses_of, batches[:1], batches[1:], rates=rates, share=SHARE
        )
        update_network(meta_network, optimizer, gradients)
    assert _meta_loss(meta_network, networks, batches[:1], batches[1:], seed=0) < before - 1e-4


def test_only_what_the_optimizer_moves_takes_part_in_the_step() -> None:
    module = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2), "frozen": nn.Linear(2, 2)})
    module["frozen"].requires_grad_(requires_grad=False)
    groups = [
        {"params": list(module["body"].parameters()), "lr": 0.0},
        {"params": list(module["head"].parameters()), "lr": 0.5},
    ]
    parameters, rates = trained_parameters(module, torch.optim.SGD(groups, lr=1.0))
    assert list(parameters) == ["head.weight", "head.bias"]
    assert rates == {"head.weight": 0.5, "head.bias": 0.5}
    assert parameters["head.weight"] is module["head"].weight


def test_an_epochs_meta_batches_come_from_a_subset_that_the_next_epoch_redraws() -> None:
    first = meta_subset(2000, 500, seed=1, stage_number=2, epoch=0)
    assert len(set(first.tolist())) == len(first) == 500
    assert np.array_equal(first, meta_subset(2000, 500, seed=1, stage_number=2, epoch=0))
    assert not np.array_equal(first, meta_subset(2000, 500, seed=1, stage_number=2, epoch=1))
    seen = np.concatenate([meta_batch_clips(first, step, 30) for step in range(17)])
    assert set(seen.tolist()) == set(first.tolist())
    assert len(meta_subset(20, 500, seed=1, stage_number=2, epoch=0)) == 20
    assert len(meta_batch_clips(np.arange(3), 7, 8)) == 8
