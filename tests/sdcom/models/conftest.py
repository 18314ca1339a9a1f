"""What the tests of the networks share: random states, and the slice of a state that a width uses."""

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

from sdcom.architecture import statistics_suffix

Randomize = Callable[[nn.Module], None]
SliceState = Callable[[nn.Module, nn.Module, float], dict[str, Tensor]]


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def randomize() -> Randomize:
    """Give a network's normalisation layers random parameters and statistics, as if it were trained."""
    return _randomize


@pytest.fixture
def slice_state() -> SliceState:
    """Cut a slimmable network's state to what a plain narrow network of a width holds."""
    return _slice_state


@torch.no_grad()
def _randomize(model: nn.Module) -> None:
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        leaf = name.rpartition(".")[2]
        if leaf.startswith("running_var") or (leaf == "weight" and value.ndim == 1):
            value.uniform_(0.5, 1.5)
        elif leaf.startswith("running_mean") or leaf == "bias":
            value.normal_(0, 0.2)


def _slice_state(slimmable: nn.Module, plain: nn.Module, width: float) -> dict[str, Tensor]:
    state: Mapping[str, Tensor] = slimmable.state_dict()
    sliced = {}
    for name, value in plain.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        is_statistic = name.endswith(("running_mean", "running_var"))
        source = state[name + statistics_suffix(width) if is_statistic else name]
        sliced[name] = source[tuple(slice(0, size) for size in value.shape)].clone()
    return sliced
