"""The exponential moving average of a network's weights and buffers."""

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class MovingAverage(Generic[ModuleT]):
    """A copy of a module that follows it: `average = decay * average + (1 - decay) * module`.

    The first update copies. Nothing waits for the device, unlike `torch.optim.swa_utils.AveragedModel`, which
    counts its updates there.

    Args:
        module: to follow; its buffers are averaged too.
        decay: in [0, 1).

    Attributes:
        module: the average, in evaluation mode, without gradients.
    """

    def __init__(self, module: ModuleT, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(requires_grad=False)
        self._decay = decay
        self._num_updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the module as it is now."""
        weight = 1 - self._decay if self._num_updates else 1.0
        ours, theirs = self.module.state_dict(), module.state_dict()
        floating = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], weight)
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])
        self._num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of updates."""
        return {"module": self.module.state_dict(), "num_updates": self._num_updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back."""
        self.module.load_state_dict(state_dict["module"])
        self._num_updates = state_dict["num_updates"]
