"""Stage 2's meta-learned weighting as a run keeps it: the network, its optimiser, what it is judged on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import Adam

from training.batches import Batches
from training.checkpoints import Stateful
from training.distributed import means_over_ranks
from training.meta import (
    FrameLosses,
    LossesOf,
    MetaNetwork,
    Parameters,
    frame_weights,
    meta_batch_clips,
    meta_gradients,
    meta_subset,
    plain_share,
    update_network,
)
from training.recipes import MetaRecipe
from training.views import PolicyBatch

_META_STAGE = 100
"""Added to the stage's number in the keys of meta batches, which are drawn apart from the others."""


class Weighting:
    """The meta network, its optimiser, and the batches that it is judged on.

    Args:
        recipe: its.
        batches: of the stage.

    Attributes:
        batches: drawn apart from the stage's own.
        network: that gives the weights.
    """

    def __init__(self, recipe: MetaRecipe, batches: Batches) -> None:
        self.batches = replace(batches, stage=batches.stage + _META_STAGE)
        self.network = _new_meta_network(recipe.hidden, batches.seed).to(batches.source.device)
        self._recipe = recipe
        self._optimizer = Adam(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    def kept(self) -> dict[str, Stateful]:
        """Return what a checkpoint holds."""
        return {"meta_network": self.network, "meta_optimizer": self._optimizer}

    def share(self, epoch: int) -> float:
        """Return the share of the plain sum in the weights, in [0, 1]."""
        return plain_share(epoch, self._recipe.plain_decay)

    def chosen(self, epoch: int, start_step: int) -> list[list[int]]:
        """Return the clips of this process's slice of each of an epoch's meta batches, from a step on."""
        batches = self.batches
        subset = meta_subset(
            batches.num_clips,
            self._recipe.subset_size,
            seed=batches.seed,
            stage_number=batches.stage,
            epoch=epoch,
        )
        share = batches.batch_size // batches.world_size
        own = slice(batches.rank * share, (batches.rank + 1) * share)
        steps = range(start_step, batches.steps_per_epoch)
        return [meta_batch_clips(subset, step, batches.batch_size)[own].tolist() for step in steps]

    def learn(
        self,
        parameters: Parameters,
        losses_of: LossesOf[PolicyBatch],
        micro_batches: Sequence[PolicyBatch],
        meta_parts: Sequence[PolicyBatch],
        *,
        rates: Mapping[str, float],
        share: float,
    ) -> None:
        """Take one step of the meta network."""
        gradients = meta_gradients(
            self.network,
            parameters,
            losses_of,
            micro_batches,
            meta_parts,
            rates=rates,
            share=share,
            mean_over_ranks=means_over_ranks,
        )
        update_network(self.network, self._optimizer, gradients)

    @torch.no_grad()
    def mean_weights(self, losses: FrameLosses, epoch: int) -> dict[str, Tensor]:
        """Return what the frames' cross entropies and costs weigh on average."""
        weights_N2 = frame_weights(self.network, losses, self.share(epoch))
        cross_entropy, cost = weights_N2.mean(dim=0)
        return {"weight_of_cross_entropy": cross_entropy, "weight_of_efficiency": cost}


def _new_meta_network(hidden: int, seed: int) -> MetaNetwork:
    """Return the same network whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MetaNetwork(hidden)
