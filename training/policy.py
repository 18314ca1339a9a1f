"""Stage 2: static network, gate and fusion head, over the frozen dynamic network.

Shapes: B videos, T frames in feeding order, N = B * T frames, D features, K widths, L labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from sdcom.cost import ModelMacs, model_macs
from sdcom.models.composition import SDCOM, StaticView
from training.batches import Batches
from training.checkpoints import Stateful
from training.loop import Backward, BatchT, LoopOptions, fit
from training.losses import anytime_cross_entropy, diversity, efficiency
from training.meta import (
    FrameLosses,
    functional_losses,
    real_loss,
    trained_parameters,
    twice_differentiable_recurrence,
)
from training.optimize import Part, Precision, body_and_classifier, mixed_precision
from training.recipes import PolicyRecipe
from training.views import NewViews, PolicyBatch, RememberedViews, Views, every_width
from training.weighting import Weighting

__all__ = ["Course", "PolicyStage", "every_width", "frame_losses", "train_policy"]


@dataclass(frozen=True, slots=True)
class Course:
    """One stage of learning a policy.

    Attributes:
        name: of the stage, in records and checkpoints.
        recipe: its.
        batches: to learn from; of one data set in all courses.
    """

    name: str
    recipe: PolicyRecipe
    batches: Batches


def train_policy(networks: SDCOM, courses: Sequence[Course], loop: LoopOptions) -> None:
    """Train the policy in place, in one course or several; the dynamic network stays as it is.

    Args:
        networks: on the batches' device.
        courses: in their order; the first one's views of the clips are those of all.
        loop: who is told, and where the state is kept.
    """
    networks.dynamic.requires_grad_(requires_grad=False).eval()
    first = courses[0]
    num_views, precision = first.recipe.num_views, first.recipe.optimization.precision
    if num_views:
        _train_on(RememberedViews(networks, first.batches, num_views, precision), networks, courses, loop)
    else:
        _train_on(NewViews(networks, precision), networks, courses, loop)
    networks.eval()


def _train_on(views: Views[BatchT], networks: SDCOM, courses: Sequence[Course], loop: LoopOptions) -> None:
    """Train in every course but those that a resumed run has behind it."""
    position = None if loop.checkpoints is None else loop.checkpoints.position()
    names = [course.name for course in courses]
    ended = names.index(position.stage) if position is not None and position.stage in names else 0
    for course in courses[ended:]:
        stage = PolicyStage(networks, views, course.batches, course.recipe, name=course.name)
        fit(stage, course.recipe.optimization, loop)


class PolicyStage(Generic[BatchT]):
    """The stage as the loop sees it.

    Args:
        networks: all but the dynamic network learns, but for parts whose multiplier is 0: no gradient
            reaches those.
        views: where its batches come from.
        batches: to learn from.
        recipe: this stage's.
        name: in records and checkpoints.

    Attributes:
        name: that.
        batches: those.
    """

    def __init__(
        self,
        networks: SDCOM,
        views: Views[BatchT],
        batches: Batches,
        recipe: PolicyRecipe,
        *,
        name: str = "policy",
    ) -> None:
        self.name = name
        self.batches = batches
        self._networks = networks
        self._views = views
        self._recipe = recipe
        for named, multiplier in self.parts():
            for _, parameter in named:
                parameter.requires_grad_(multiplier > 0)
        self._weighting = Weighting(recipe.meta, batches) if recipe.weighting == "meta" else None
        self._meta_batches: Iterator[BatchT] = iter(())

    def parts(self) -> Sequence[Part]:
        """Return the static network, its classifier, the gate and the fusion head."""
        recipe, networks = self._recipe, self._networks
        static_body, static_classifier = body_and_classifier(networks.static)
        return [
            (static_body, recipe.static_multiplier),
            (static_classifier, recipe.classifier_multiplier),
            (networks.gate.named_parameters(), recipe.gate_multiplier),
            (networks.fusion.named_parameters(), recipe.fusion_multiplier),
        ]

    def kept(self) -> Mapping[str, Stateful]:
        """Return the networks that learn, and the meta network with its optimiser if there is one."""
        weighting = {} if self._weighting is None else self._weighting.kept()
        networks = self._networks
        return {"static": networks.static, "gate": networks.gate, "fusion": networks.fusion, **weighting}

    def begin_epoch(self, _epoch: int) -> None:
        """Set the networks' modes."""
        modes: list[tuple[nn.Module, bool]] = [
            (self._networks.dynamic, False),
            (self._networks.static, not self._recipe.frozen_statistics),
            (self._networks.gate, True),
            (self._networks.fusion, True),  # dropout, even where it does not learn
            (self._networks.fusion.norm, self._recipe.fusion_multiplier > 0),
        ]
        for module, training in modes:
            module.train(training)

    def draw(self, epoch: int, start_step: int) -> Iterator[BatchT]:
        """Yield the epoch's batches from a step on."""
        chosen_SB = self.batches.chosen(epoch, start_step)
        if self._weighting is not None:
            meta_SB = self._weighting.chosen(epoch, start_step)
            self._meta_batches = self._views.draw(self._weighting.batches, epoch, start_step, meta_SB)
        return self._views.draw(self.batches, epoch, start_step, chosen_SB)

    def split(self, batch: BatchT, num_parts: int, epoch: int) -> Sequence[PolicyBatch]:
        """Return equal parts of a batch, with what frozen networks say of each."""
        return self._views.split(self.batches, epoch, batch, num_parts, self._recipe.highest_price)

    def before_step(self, micro_batches: Sequence[PolicyBatch], optimizer: Optimizer, epoch: int) -> None:
        """Let the meta network learn, where there is one, from where its weights would lead."""
        if self._weighting is None:
            return
        meta_batch = next(self._meta_batches)
        meta_parts = self._views.split(
            self._weighting.batches, epoch, meta_batch, len(micro_batches), self._recipe.highest_price
        )
        share = self._weighting.share(epoch)
        if share < 1:  # else its weights have no say yet
            parameters, rates = trained_parameters(self._networks, optimizer)
            losses_of = functional_losses(self._networks, self._unscaled_losses)
            self._weighting.learn(parameters, losses_of, micro_batches, meta_parts, rates=rates, share=share)

    def accumulate(self, micro_batch: PolicyBatch, epoch: int, backward: Backward) -> dict[str, Tensor]:
        """Add a part's gradients; return its loss terms."""
        recipe = self._recipe
        losses = self._losses(self._networks, micro_batch, recipe.optimization.precision)
        terms = {
            "cross_entropy": losses.cross_entropy_N.mean(),
            "efficiency": losses.efficiency_N.mean(),
            "diversity": losses.diversity,
        }
        if self._weighting is None:
            weighted = recipe.efficiency_weight * terms["efficiency"]
            loss = terms["cross_entropy"] + weighted + losses.diversity
        else:
            loss = real_loss(self._weighting.network, losses, self._weighting.share(epoch))
            terms |= self._weighting.mean_weights(losses, epoch)
        backward(loss)
        return {name: value.detach() for name, value in {"loss": loss, **terms}.items()}

    def after_step(self) -> None:
        """Nothing."""

    def _unscaled_losses(self, networks: SDCOM, batch: PolicyBatch) -> FrameLosses:
        """Return the losses that the meta network learns from: no gradient scaler comes between."""
        precision = self._recipe.optimization.precision
        return self._losses(networks, batch, "fp32" if precision == "fp16" else precision)

    def _losses(self, networks: SDCOM, batch: PolicyBatch, precision: Precision) -> FrameLosses:
        losses = frame_losses(networks, batch, self._recipe, precision)
        if self._weighting is None:
            return losses
        return losses._replace(efficiency_N=losses.efficiency_N * self._recipe.meta.efficiency_scale)


def frame_losses(
    networks: SDCOM, batch: PolicyBatch, recipe: PolicyRecipe, precision: Precision
) -> FrameLosses:
    """Return the loss terms of every frame, with widths drawn by straight-through Gumbel-softmax."""
    device = batch.targets_BL.device
    with mixed_precision(device, precision):
        static = batch.static
        view = static if isinstance(static, StaticView) else networks.look(static)
        shape_BT = (len(batch.targets_BL), len(view.features_ND) // len(batch.targets_BL))
        static_NL = networks.static.classify(view.features_ND).float()

        embeddings_BTD = networks.gate.embed(view.map_NCHW).unflatten(0, shape_BT)
        with twice_differentiable_recurrence():
            gate_logits_BTK, _ = networks.gate.decide(embeddings_BTD)
        priced_NK = priced(gate_logits_BTK.flatten(0, 1).float(), batch.price_N, model_macs(networks.config))
        choices_NK = chosen_widths(priced_NK, batch.noise_NK, recipe.temperature)
        supplements_KND, supplement_logits_KNL = batch.supplements(networks, choices_NK)
        dynamic_ND = torch.einsum("nk,knd->nd", choices_NK, supplements_KND.float())
        logits_BTL = networks.fusion(
            view.features_ND.unflatten(0, shape_BT), dynamic_ND.unflatten(0, shape_BT)
        ).float()

        smoothing = recipe.label_smoothing
        targets_NL = batch.targets_BL.repeat_interleave(shape_BT[1], dim=0)
        fused_N = anytime_cross_entropy(logits_BTL, batch.targets_BL, smoothing)
        auxiliary_N = functional.cross_entropy(
            static_NL, targets_NL, reduction="none", label_smoothing=smoothing
        )
        similarity = diversity(choices_NK, supplement_logits_KNL.float(), static_NL)
        weight_N = (recipe.price_growth * batch.price_N).exp()
        return FrameLosses(
            cross_entropy_N=fused_N + auxiliary_N,
            efficiency_N=efficiency(choices_NK, networks.config.widths) * weight_N,
            diversity=recipe.diversity_weight * similarity,
        )


def priced(gate_logits_NK: Tensor, price_N: Tensor, macs: ModelMacs) -> Tensor:
    """Return what a request's budget makes of the gate's logits [N, K]: less the price of each width's MACs.

    As `sdcom.budget.choose_widths` has it: the full width costs the price.
    """
    share_K = torch.tensor(macs.dynamic_by_choice) / macs.dynamic_by_choice[-1]
    return gate_logits_NK - price_N[:, None] * share_K.to(price_N, non_blocking=True)


def chosen_widths(gate_logits_NK: Tensor, noise_NK: Tensor, temperature: float) -> Tensor:
    """Return one-hot choices [N, K] of logits and noise together, whose gradient is the softmax's.

    Straight-through Gumbel-softmax (arXiv:1611.01144, 2.2).
    """
    soft_NK = ((gate_logits_NK + noise_NK) / temperature).softmax(dim=-1)
    hard_NK = torch.zeros_like(soft_NK).scatter_(-1, soft_NK.argmax(dim=-1, keepdim=True), 1.0)
    return hard_NK - soft_NK.detach() + soft_NK
