"""Between the stages: the static network learns to see at its small input what it saw at the full one.

Pretrained networks lose more than they must on inputs smaller than those that they were trained on: the same
weights, taught for a while to give the full input's features, keep more (docs/experiments.md). No labels are
used. Shapes: N frames, D features.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from sdcom.models.composition import SDCOM
from training.batches import Batch, Batches
from training.checkpoints import Stateful
from training.loop import Backward, LoopOptions, fit
from training.losses import feature_distance
from training.optimize import Part, body_and_classifier, mixed_precision
from training.recipes import StaticRecipe


def train_static(networks: SDCOM, *, batches: Batches, recipe: StaticRecipe, loop: LoopOptions) -> None:
    """Teach the static network in place; the others stay as they are.

    Args:
        networks: on the batches' device.
        batches: of the model's clip; this stage sees `recipe.num_frames` of it.
        recipe: this stage's.
        loop: who is told, and where the state is kept.
    """
    fewer_frames = batches.clip.model_copy(update={"num_frames": recipe.num_frames})
    fit(StaticStage(networks, replace(batches, clip=fewer_frames), recipe), recipe.optimization, loop)
    networks.static.eval()


class StaticStage:
    """The stage as the loop sees it.

    Args:
        networks: whose static network learns; its teacher is what it is now, at the full input.
        batches: of as many frames as this stage sees.
        recipe: this stage's.

    Attributes:
        batches: those.
    """

    name = "static"

    def __init__(self, networks: SDCOM, batches: Batches, recipe: StaticRecipe) -> None:
        self.batches = batches
        self._networks = networks
        self._recipe = recipe
        self._teacher = copy.deepcopy(networks.static).eval().requires_grad_(requires_grad=False)

    def parts(self) -> Sequence[Part]:
        """Return the static network but for its classifier."""
        body, _ = body_and_classifier(self._networks.static)
        return [(body, 1.0)]

    def kept(self) -> Mapping[str, Stateful]:
        """Return the static network and what it started from."""
        return {"static": self._networks.static, "teacher": self._teacher}

    def begin_epoch(self, _epoch: int) -> None:
        """Let its batch norms learn the statistics of small inputs."""
        self._networks.static.train()

    def draw(self, epoch: int, start_step: int) -> Iterator[Batch]:
        """Yield the epoch's batches from a step on."""
        return self.batches.epoch(epoch, start_step)

    def split(self, batch: Batch, num_parts: int, _epoch: int) -> Sequence[Batch]:
        """Return equal parts of a batch."""
        return batch.split(num_parts)

    def before_step(self, micro_batches: Sequence[Batch], optimizer: Optimizer, epoch: int) -> None:
        """Nothing."""

    def accumulate(self, micro_batch: Batch, _epoch: int, backward: Backward) -> dict[str, Tensor]:
        """Add the gradients of the distance to the teacher's features; return it."""
        frames_NCHW = micro_batch.frames_BTCHW.flatten(0, 1)
        with mixed_precision(frames_NCHW.device, self._recipe.optimization.precision):
            with torch.no_grad():
                target_ND = self._teacher.pool(self._teacher.feature_map(frames_NCHW, 1.0))
            loss = feature_distance(self._networks.look(frames_NCHW).features_ND, target_ND)
        backward(loss)
        return {"loss": loss.detach()}

    def after_step(self) -> None:
        """Nothing."""
