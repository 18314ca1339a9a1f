"""Meta-learned weighting of the policy's losses (method, Meta-learned weighting).

A small network sees what each frame's cross entropy and cost are, and says what each of them should weigh.
It learns from where its weights lead: one SGD step of the policy is taken on paper, the stepped policy is
judged on a meta batch without weights, and that judgement is differentiated through the step.

One step of the policy stage, with `losses_of = functional_losses(networks, frame_losses)`:

    share = plain_share(epoch)
    parameters, rates = trained_parameters(networks, optimizer)
    update_network(network, meta_optimizer, meta_gradients(network, parameters, losses_of, ...))
    real_loss(network, frame_losses(networks, batch), share).backward()  # of every micro batch

While `plain_share(epoch)` is 1, in epoch 0, the weights have no say and the meta network is left alone.

Shapes: N frames of any videos; a pair is (cross entropy, efficiency).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from sdcom.sampling import Int64Array
from training.convolutions import LinearConvolutions

BatchT = TypeVar("BatchT")
ModuleT = TypeVar("ModuleT", bound=nn.Module)

Parameters = Mapping[str, Tensor]
MeanOverRanks = Callable[[Sequence[Tensor]], list[Tensor]]
"""Averages each tensor over the ranks of a data-parallel run."""

SUBSET_KEY = 2**32 - 2  # last word of the subset's key, beyond any clip index and unlike any of batches.py


class FrameLosses(NamedTuple):
    """The terms of the policy's loss before they are averaged over frames.

    Attributes:
        cross_entropy_N: of the prediction after each frame, and of the static network on that frame.
        efficiency_N: relative cost of the width chosen, in [0, 1].
        diversity: a scalar, already weighted.
    """

    cross_entropy_N: Tensor
    efficiency_N: Tensor
    diversity: Tensor


LossesOf = Callable[[Parameters, BatchT], FrameLosses]
"""The losses of a batch as a function of the trainable parameters, which keep their dtype and gradients."""


class MetaNetwork(nn.Module):
    """Linear, ReLU, linear, sigmoid: a frame's pair [N, 2] to its weights v [N, 2], in (0, 1)."""

    def __init__(self, hidden: int = 100) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 2), nn.Sigmoid())

    def forward(self, pairs_N2: Tensor) -> Tensor:  # noqa: D102 - described by the class
        weights_N2: Tensor = self.layers(pairs_N2)
        return weights_N2


def plain_share(epoch: int, decay: float = 0.005) -> float:
    """Return alpha, the share of the plain sum in the weights: `exp(-decay * epoch^2)`, 1 at epoch 0."""
    return math.exp(-decay * epoch**2)


def plain_loss(losses: FrameLosses) -> Tensor:
    """Return the sum that the meta batch is judged by: cross entropy + efficiency + diversity."""
    return losses.cross_entropy_N.mean() + losses.efficiency_N.mean() + losses.diversity


def real_loss(network: MetaNetwork, losses: FrameLosses, share: float) -> Tensor:
    """Return the loss of the real update: the weights are numbers, no gradient reaches what gives them."""
    with torch.no_grad():
        weights_N2 = frame_weights(network, losses, share)
    return _weighted(losses, weights_N2) + losses.diversity


def frame_weights(network: MetaNetwork, losses: FrameLosses, share: float) -> Tensor:
    """Return `share + (1 - share) * v` [N, 2]; gradients reach the meta network, and not the losses."""
    weights_N2: Tensor = share + (1 - share) * network(_pairs(losses).detach())
    return weights_N2


def functional_losses(
    module: ModuleT, frame_losses: Callable[[ModuleT, BatchT], FrameLosses]
) -> LossesOf[BatchT]:
    """Return `frame_losses(module, batch)` as a function of the module's trainable parameters.

    Parameters that are not given are the module's own. Nothing of the module changes: the running
    statistics that a training pass would move are those of copies.

    Args:
        module: holds the policy's networks, each in the mode that it is trained in.
        frame_losses: must not depend on anything random but torch's global generators.
    """
    applied = _Applied(module, frame_losses)

    def losses_of(parameters: Parameters, batch: BatchT) -> FrameLosses:
        replaced = {**_copied_statistics(applied), **{f"module.{k}": v for k, v in parameters.items()}}
        losses: FrameLosses = functional_call(applied, replaced, (batch,))
        return losses

    return losses_of


def trained_parameters(module: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the parameters that the optimiser moves now, and the learning rate of each, by name."""
    rate_of = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    moved = {name: p for name, p in module.named_parameters() if rate_of.get(id(p), 0.0) > 0}
    return dict(moved), {name: rate_of[id(p)] for name, p in moved.items()}


def sgd_step(
    parameters: Parameters, gradients: Sequence[Tensor], rates: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return what one step of plain SGD makes of the parameters; they stay as they are."""
    moved = zip(parameters.items(), gradients, strict=True)
    return {name: value.add(gradient, alpha=-rates[name]) for (name, value), gradient in moved}


def meta_gradients(
    network: MetaNetwork,
    parameters: Parameters,
    losses_of: LossesOf[BatchT],
    batches: Sequence[BatchT],
    meta_batches: Sequence[BatchT],
    *,
    rates: Mapping[str, float],
    share: float,
    mean_over_ranks: MeanOverRanks = list,
) -> list[Tensor]:
    """Return the gradient, by the meta network's parameters, of the meta loss after a pseudo update.

    With `L(w)` the weighted loss, `theta' = theta - rate * grad L(w)` and the meta loss `M(theta')`, it is
    `-rate * grad M(theta') . d grad L(w) / dw`: the chain rule, cut at theta'. Cut there, nothing but
    sums crosses from micro batch to micro batch and from rank to rank, and the graph of one micro batch is
    alive at a time. No gradient scaler is involved: in float16, compute the losses without autocast.

    Args:
        network: the meta network.
        parameters: those that the policy trains, theta, by their names in the module.
        losses_of: as `functional_losses` makes it; runs twice on each of `batches`, on the same noise. It
            must be twice differentiable, which cuDNN's recurrent layers are not
            (`twice_differentiable_recurrence`).
        batches: this rank's equal micro batches of the step.
        meta_batches: likewise, of the meta batch.
        rates: learning rate of each parameter in the pseudo update.
        share: alpha, in [0, 1].
        mean_over_ranks: averages gradients over the ranks, which all make the same call.

    Returns:
        One tensor for each of `network.parameters()`, the same on all ranks.
    """
    noise = _Noise(parameters)
    states, pseudo = [], []
    for batch in batches:
        states.append(noise.state())
        loss = real_loss(network, losses_of(parameters, batch), share)
        pseudo.append(torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True))
    stepped = sgd_step(parameters, mean_over_ranks(_mean(pseudo)), rates)
    stepped = {name: value.detach().requires_grad_() for name, value in stepped.items()}
    judged = [
        torch.autograd.grad(
            plain_loss(losses_of(stepped, batch)), list(stepped.values()), materialize_grads=True
        )
        for batch in meta_batches
    ]
    judgement = mean_over_ranks(_mean(judged))
    directions = [rates[name] * gradient for name, gradient in zip(parameters, judgement, strict=True)]
    weighting = []
    for batch, state in zip(batches, states, strict=True):
        with noise.replayed(state), LinearConvolutions():
            losses = losses_of(parameters, batch)
        weighting.append(_through_the_step(network, parameters, losses, share, directions))
    return mean_over_ranks(_mean(weighting))


def update_network(network: MetaNetwork, optimizer: Optimizer, gradients: Sequence[Tensor]) -> None:
    """Take one step of the meta network with the gradients given."""
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def meta_subset(num_clips: int, size: int, *, seed: int, stage_number: int, epoch: int) -> Int64Array:
    """Return the clips that the epoch's meta batches are drawn from, in random order.

    Args:
        num_clips: in the training set.
        size: of the subset; all clips if there are no more.
        seed: of the run.
        stage_number: of the stage, as in the keys of its batches.
        epoch: from 0.

    Returns:
        Different indices, shape (min(size, num_clips),).
    """
    rng = np.random.default_rng([seed, stage_number, epoch, SUBSET_KEY])
    return rng.permutation(num_clips)[:size]


def meta_batch_clips(subset: Int64Array, step: int, batch_size: int) -> Int64Array:
    """Return the clips of a step's meta batch (B,): the subset is gone through again and again."""
    return subset[(step * batch_size + np.arange(batch_size)) % len(subset)]


def twice_differentiable_recurrence() -> AbstractContextManager[None]:
    """Return the context to run a GRU in, where its gradient is to be differentiated again.

    cuDNN's has no second derivative; torch's own kernels have. Elsewhere than on CUDA it changes nothing.
    """
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=False)
    return context


def _pairs(losses: FrameLosses) -> Tensor:
    return torch.stack((losses.cross_entropy_N, losses.efficiency_N), dim=-1)


def _weighted(losses: FrameLosses, weights_N2: Tensor) -> Tensor:
    return (weights_N2 * _pairs(losses)).sum(dim=-1).mean()


def _mean(gradients: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return the mean of several lists of gradients, tensor by tensor."""
    return [
        torch.stack(same).mean(dim=0) if len(same) > 1 else same[0] for same in zip(*gradients, strict=True)
    ]


def _through_the_step(
    network: MetaNetwork,
    parameters: Parameters,
    losses: FrameLosses,
    share: float,
    directions: Sequence[Tensor],
) -> list[Tensor]:
    """Return `-directions . d grad L / d(meta parameters)`.

    The diversity is left out: its gradient is not weighted, so it has no part in the second derivative.
    """
    weighted = _weighted(losses, frame_weights(network, losses, share))
    gradients = torch.autograd.grad(
        weighted, list(parameters.values()), create_graph=True, materialize_grads=True
    )
    along = torch.stack([(g * d).sum() for g, d in zip(gradients, directions, strict=True)]).sum()
    of_network = torch.autograd.grad(along, list(network.parameters()), materialize_grads=True)
    return [-gradient for gradient in of_network]


class _Applied(nn.Module, Generic[ModuleT, BatchT]):
    """Makes a function of a module and a batch the forward pass that `functional_call` calls."""

    def __init__(self, module: ModuleT, function: Callable[[ModuleT, BatchT], FrameLosses]) -> None:
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, batch: BatchT) -> FrameLosses:
        return self.function(self.module, batch)


def _copied_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers that a pass would change: those of layers in training mode."""
    return {
        f"{prefix}.{name}": buffer.clone()
        for prefix, layer in module.named_modules()
        if layer.training
        for name, buffer in layer.named_buffers(recurse=False)
    }


class _Noise:
    """Keeps and replays the state of torch's generators, the processor's and the parameters' devices'."""

    def __init__(self, parameters: Parameters) -> None:
        on_cuda = (value.device for value in parameters.values() if value.device.type == "cuda")
        self._devices = sorted(set(on_cuda), key=str)

    def state(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._devices)]

    @contextmanager
    def replayed(self, state: Sequence[Tensor]) -> Iterator[None]:
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(state[0])
            for device, of_device in zip(self._devices, state[1:], strict=True):
                torch.cuda.set_rng_state(of_device, device)
            yield
