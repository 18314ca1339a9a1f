"""Stage 2: static network, gate and fusion head, over the frozen dynamic network.

Shapes: B videos, T frames in feeding order, N = B * T frames, D features, K widths, L labels.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.models.composition import SDCOM
from training.batches import Augmentation, Batch, ClipStore, training_batches
from training.losses import anytime_cross_entropy, diversity, efficiency
from training.optimize import body_and_classifier, build_optimizer, build_schedule, update
from training.recipes import PolicyRecipe
from training.supernet import Report


@dataclass(frozen=True, slots=True)
class PolicyLosses:
    """The terms of the policy's loss, and the mean width chosen, each a scalar."""

    cross_entropy: Tensor
    efficiency: Tensor
    diversity: Tensor

    def total(self, recipe: PolicyRecipe) -> Tensor:
        """Return the weighted sum that is minimised."""
        weighted = recipe.efficiency_weight * self.efficiency + recipe.diversity_weight * self.diversity
        return self.cross_entropy + weighted


def train_policy(
    networks: SDCOM,
    *,
    store: ClipStore,
    augmentation: Augmentation,
    recipe: PolicyRecipe,
    rng: np.random.Generator,
    report: Report,
) -> None:
    """Train the policy in place; the dynamic network stays as it is.

    Args:
        networks: on the store's device.
        store: training clips.
        augmentation: of the clips.
        recipe: this stage's.
        rng: draws batches; the Gumbel noise is torch's own.
        report: told every epoch's losses.
    """
    options = recipe.optimization
    networks.dynamic.requires_grad_(requires_grad=False)
    static_body, static_classifier = body_and_classifier(networks.static)
    optimizer = build_optimizer(
        [
            (static_body, recipe.static_multiplier),
            (static_classifier, recipe.static_multiplier * recipe.classifier_multiplier),
            (networks.gate.parameters(), recipe.gate_multiplier),
            (networks.fusion.parameters(), recipe.fusion_multiplier),
        ],
        options,
    )
    schedule = build_schedule(optimizer, options, max(len(store) // options.batch_size, 1))
    for epoch in range(options.epochs):
        _set_modes(networks, recipe)
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=store.device))
        num_steps = 0
        for batch in training_batches(store, networks.config.clip, augmentation, options.batch_size, rng):
            with torch.autocast(store.device.type, dtype=torch.bfloat16, enabled=store.device.type == "cuda"):
                losses = policy_losses(networks, batch, recipe)
                loss = losses.total(recipe)
            loss.backward()
            update(optimizer, schedule, options.max_gradient_norm)
            sums["cross_entropy"] += losses.cross_entropy.detach()
            sums["efficiency"] += losses.efficiency.detach()
            sums["diversity"] += losses.diversity.detach()
            num_steps += 1
        report("policy", epoch, {name: float(value) / num_steps for name, value in sums.items()})
    networks.eval()


def policy_losses(networks: SDCOM, batch: Batch, recipe: PolicyRecipe) -> PolicyLosses:
    """Return the loss terms of one batch, with widths drawn by straight-through Gumbel-softmax."""
    shape_BT = batch.frames_BTCHW.shape[:2]
    frames_NCHW = batch.frames_BTCHW.flatten(0, 1)
    view = networks.look(frames_NCHW)
    static_NL = networks.static.classify(view.features_ND)
    supplements_KND, supplement_logits_KNL = every_width(networks, frames_NCHW)

    gate_logits_BTK, _ = networks.gate.decide(networks.gate.embed(view.map_NCHW).unflatten(0, shape_BT))
    choices_BTK = functional.gumbel_softmax(gate_logits_BTK.float(), tau=recipe.temperature, hard=True)
    choices_NK = choices_BTK.flatten(0, 1)
    dynamic_ND = torch.einsum("nk,knd->nd", choices_NK, supplements_KND.float())

    logits_BTL = networks.fusion(view.features_ND.unflatten(0, shape_BT), dynamic_ND.unflatten(0, shape_BT))
    labels_N = batch.labels_B.repeat_interleave(shape_BT[1])
    smoothing = recipe.label_smoothing
    cross_entropy = anytime_cross_entropy(
        logits_BTL.float(), batch.labels_B, smoothing
    ) + functional.cross_entropy(static_NL.float(), labels_N, label_smoothing=smoothing)
    return PolicyLosses(
        cross_entropy=cross_entropy,
        efficiency=efficiency(choices_BTK, networks.config.widths),
        diversity=diversity(choices_NK, supplement_logits_KNL.float(), static_NL.float()),
    )


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
