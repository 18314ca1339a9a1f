"""Stage 2: static network, gate and fusion head, over the frozen dynamic network.

Shapes: B videos, T frames in feeding order, N = B * T frames, D features, K widths, L labels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.models.composition import SDCOM
from sdcom.preprocess import normalize
from training.batches import Batches, keyed_rng
from training.losses import anytime_cross_entropy, diversity, efficiency
from training.optimize import (
    body_and_classifier,
    build_optimizer,
    build_schedule,
    mixed_precision,
    update,
)
from training.recipes import PolicyRecipe
from training.supernet import Report


@dataclass(frozen=True, slots=True)
class PolicyLosses:
    """The terms of the policy's loss, each a scalar."""

    cross_entropy: Tensor
    efficiency: Tensor
    diversity: Tensor

    def total(self, recipe: PolicyRecipe) -> Tensor:
        """Return the weighted sum that is minimised."""
        weighted = recipe.efficiency_weight * self.efficiency + recipe.diversity_weight * self.diversity
        return self.cross_entropy + weighted


class Observation(NamedTuple):
    """What the networks say of N frames, but for the gate and the fusion head.

    Attributes:
        map_NCHW: the static network's feature map.
        static_ND: its pool.
        supplements_KND: the dynamic network's features at every width.
        supplement_logits_KNL: its class logits at every width.
    """

    map_NCHW: Tensor
    static_ND: Tensor
    supplements_KND: Tensor
    supplement_logits_KNL: Tensor


def train_policy(
    networks: SDCOM,
    *,
    batches: Batches,
    recipe: PolicyRecipe,
    report: Report,
) -> None:
    """Train the policy in place; the dynamic network stays as it is.

    Args:
        networks: on the batches' device.
        batches: to learn from; the Gumbel noise is torch's own.
        recipe: this stage's.
        report: told every epoch's losses.
    """
    memory = remember(networks, batches, recipe.num_views) if recipe.num_views else None

    def draw(epoch: int) -> Iterator[tuple[Observation, Tensor]]:
        if memory is not None:
            yield from recalled_batches(memory, batches, epoch)
            return
        for batch in batches.epoch(epoch):
            yield observe(networks, batch.frames_BTCHW.flatten(0, 1)), batch.targets_BL

    fit_policy(networks, draw, max(batches.steps_per_epoch, 1), recipe, report)


def fit_policy(
    networks: SDCOM,
    draw_epoch: Callable[[int], Iterator[tuple[Observation, Tensor]]],
    steps_per_epoch: int,
    recipe: PolicyRecipe,
    report: Report,
) -> None:
    """Minimise the policy's loss over epochs of observations and their targets [B, L]."""
    options = recipe.optimization
    networks.dynamic.requires_grad_(requires_grad=False)
    static_body, static_classifier = body_and_classifier(networks.static)
    optimizer = build_optimizer(
        [
            (static_body, recipe.static_multiplier),
            (static_classifier, recipe.classifier_multiplier),
            (networks.gate.named_parameters(), recipe.gate_multiplier),
            (networks.fusion.named_parameters(), recipe.fusion_multiplier),
        ],
        options,
    )
    schedule = build_schedule(optimizer, options, steps_per_epoch)
    device = next(networks.parameters()).device
    for epoch in range(options.epochs):
        _set_modes(networks, recipe)
        terms: list[Tensor] = []
        for observation, targets_BL in draw_epoch(epoch):
            with mixed_precision(device):
                losses = policy_losses(networks, observation, targets_BL, recipe)
                loss = losses.total(recipe)
            loss.backward()
            update(optimizer, schedule, options.max_gradient_norm)
            terms.append(torch.stack((losses.cross_entropy, losses.efficiency, losses.diversity)).detach())
        means = torch.stack(terms).mean(dim=0).tolist()
        report("policy", epoch, dict(zip(("cross_entropy", "efficiency", "diversity"), means, strict=True)))
    networks.eval()


def policy_losses(
    networks: SDCOM, observation: Observation, targets_BL: Tensor, recipe: PolicyRecipe
) -> PolicyLosses:
    """Return the loss terms of one batch, with widths drawn by straight-through Gumbel-softmax."""
    shape_BT = (len(targets_BL), len(observation.static_ND) // len(targets_BL))
    static_ND = observation.static_ND
    static_NL = networks.static.classify(static_ND).float()

    embeddings_ND = networks.gate.embed(observation.map_NCHW)
    gate_logits_BTK, _ = networks.gate.decide(embeddings_ND.unflatten(0, shape_BT))
    choices_BTK = functional.gumbel_softmax(gate_logits_BTK.float(), tau=recipe.temperature, hard=True)
    choices_NK = choices_BTK.flatten(0, 1)
    dynamic_ND = torch.einsum("nk,knd->nd", choices_NK, observation.supplements_KND.float())

    logits_BTL = networks.fusion(static_ND.unflatten(0, shape_BT), dynamic_ND.unflatten(0, shape_BT)).float()
    targets_NL = targets_BL.repeat_interleave(shape_BT[1], dim=0)
    smoothing = recipe.label_smoothing
    fused = anytime_cross_entropy(logits_BTL, targets_BL, smoothing)
    auxiliary = functional.cross_entropy(static_NL, targets_NL, label_smoothing=smoothing)
    return PolicyLosses(
        cross_entropy=fused + auxiliary,
        efficiency=efficiency(choices_BTK, networks.config.widths),
        diversity=diversity(choices_NK, observation.supplement_logits_KNL.float(), static_NL),
    )


def observe(networks: SDCOM, frames_NCHW: Tensor) -> Observation:
    """Run the static network, and the dynamic one at every width, on normalised frames."""
    with mixed_precision(frames_NCHW.device):
        view = networks.look(frames_NCHW)
        return Observation(view.map_NCHW, view.features_ND, *every_width(networks, frames_NCHW))


@dataclass(frozen=True, slots=True)
class Memory:
    """What frozen networks said of augmented views of every clip.

    Attributes:
        observations: of each clip, `num_views * T` frames, view by view in time order, as float16.
        targets_NVL: of each view of each clip.
        num_views: of each clip.
    """

    observations: Sequence[Observation]
    targets_NVL: Tensor
    num_views: int

    def recall(self, clip_index: int, view: int, order_T: Tensor) -> Observation:
        """Return a view of a clip, its frames in the given order, as float32."""
        rows_T = order_T + len(order_T) * view
        seen = self.observations[clip_index]
        return Observation(
            seen.map_NCHW[rows_T].float(),
            seen.static_ND[rows_T].float(),
            seen.supplements_KND[:, rows_T].float(),
            seen.supplement_logits_KNL[:, rows_T].float(),
        )


@torch.no_grad()
def remember(networks: SDCOM, batches: Batches, num_views: int) -> Memory:
    """Observe `num_views` augmented views of every clip once, by networks that are frozen from here on."""
    networks.eval()
    clip = batches.clip
    time_order_T = np.arange(clip.num_frames)
    observations, targets = [], []
    for clip_index in range(len(batches.source.clips)):
        views = [batches.view(number, clip_index, time_order_T) for number in range(num_views)]
        seen = observe(networks, normalize(torch.cat([view.frames_THWC for view in views]), clip))
        observations.append(Observation(*(part.half() for part in seen)))
        targets.append(torch.stack([view.target_L for view in views]))
    return Memory(observations, torch.stack(targets).to(batches.source.device), num_views)


def recalled_batches(memory: Memory, batches: Batches, epoch: int) -> Iterator[tuple[Observation, Tensor]]:
    """Yield one epoch of full batches from memory: every clip once, a random view of each."""
    for step in range(batches.steps_per_epoch):
        chosen = batches.chosen(epoch, step)[0]
        views = [_recalled_view(batches, epoch, clip_index, memory.num_views) for clip_index in chosen]
        order_T = torch.from_numpy(batches.feeding_order(epoch, step))
        seen = [memory.recall(*pair, order_T) for pair in zip(chosen, views, strict=True)]
        observation = Observation(
            torch.cat([clip.map_NCHW for clip in seen]),
            torch.cat([clip.static_ND for clip in seen]),
            torch.cat([clip.supplements_KND for clip in seen], dim=1),
            torch.cat([clip.supplement_logits_KNL for clip in seen], dim=1),
        )
        yield observation, memory.targets_NVL[chosen, views]


def _recalled_view(batches: Batches, epoch: int, clip_index: int, num_views: int) -> int:
    rng = keyed_rng(batches.seed, batches.stage, epoch, clip_index)
    return int(rng.integers(num_views))


@torch.no_grad()
def every_width(networks: SDCOM, frames_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Run the dynamic network at every width.

    Returns:
        Zero-padded features [K, N, Dd] and class logits [K, N, L]; both are zeros at width 0, as in
        inference.
    """
    features, logits = [], []
    for width in networks.config.widths:
        filled_ND = networks.fill(frames_NCHW, width)
        features.append(filled_ND)
        classified_NL = networks.dynamic.classify(filled_ND)
        logits.append(classified_NL if width > 0 else torch.zeros_like(classified_NL))
    return torch.stack(features), torch.stack(logits)


def _set_modes(networks: SDCOM, recipe: PolicyRecipe) -> None:
    modes: list[tuple[nn.Module, bool]] = [
        (networks.dynamic, False),
        (networks.static, not recipe.frozen_statistics),
        (networks.gate, True),
        (networks.fusion, True),
    ]
    for module, training in modes:
        module.train(training)
