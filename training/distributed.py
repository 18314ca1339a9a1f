"""Data parallel by hand: every process computes its slice of the global batch (docs/adr).

All of it does nothing where `torch.distributed` is not initialised, so that one process and many run the
same code. Shapes: N frames, C channels.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

ResultT = TypeVar("ResultT")

PATIENCE = timedelta(hours=4)
"""For the first process, which opens every clip of a dataset before the others have anything to do."""


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this process is the one that writes files and draws the progress bar."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the other processes that torchrun started, if it did, for as long as the context lasts.

    Args:
        device: the kind to train on.

    Yields:
        The device of this process: on CUDA the one of its place on the machine (LOCAL_RANK).
    """
    if "RANK" not in os.environ or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for every process to come here."""
    if dist.is_initialized():
        dist.barrier()


def from_main(compute: Callable[[], ResultT]) -> ResultT:
    """Return in every process what the first one computes; the others wait for it.

    Args:
        compute: is called in the first process alone; its result can be pickled.
    """
    if not dist.is_initialized():
        return compute()
    box: list[Any] = [compute() if is_main() else None]
    dist.broadcast_object_list(box, src=0)
    result: ResultT = box[0]
    return result


def sum_over_ranks(x: Tensor) -> Tensor:
    """Return the sum over processes of a tensor that every process has; no gradient passes."""
    if not dist.is_initialized():
        return x
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def mean_over_ranks(x: Tensor) -> Tensor:
    """Return the mean over processes of a tensor that every process has; no gradient passes."""
    return sum_over_ranks(x) / world_size()


def gather_lists(values: Sequence[int]) -> list[int]:
    """Return every process's values, one list after the other in the order of the processes."""
    if not dist.is_initialized():
        return list(values)
    lists: list[list[int]] = [[] for _ in range(world_size())]
    dist.all_gather_object(lists, list(values))
    return [value for one in lists for value in one]


@torch.no_grad()
def broadcast_state(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if not dist.is_initialized():
        return
    for value in module.state_dict().values():
        dist.broadcast(value, src=0)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum every parameter's gradient over the processes, in one flat message.

    Parameters without a gradient stay without one: they are the same ones in every process.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not dist.is_initialized() or not gradients:
        return
    sum_in_place(gradients)


@torch.no_grad()
def means_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return every tensor's mean over the processes; all of one type, on one device."""
    if not dist.is_initialized():
        return list(tensors)
    means = [tensor.detach() / world_size() for tensor in tensors]
    sum_in_place(means)
    return means


@torch.no_grad()
def sum_in_place(tensors: Sequence[Tensor]) -> None:
    """Sum tensors over the processes, in one flat message; all of one type, on one device."""
    if not dist.is_initialized():
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, summed in zip(tensors, flat.split(sizes), strict=True):
        tensor.copy_(summed.view(tensor.shape))


def global_batch_norm() -> AbstractContextManager[Any]:
    """Return the context in which batch norms see the global batch; with one process it changes nothing."""
    return _GlobalBatchNorm() if world_size() > 1 else nullcontext()


class _GlobalBatchNorm(TorchFunctionMode):
    """Replaces `functional.batch_norm` in training mode, for all kinds of batch norm layers alike.

    The layers stay as they are, and know nothing of other processes.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm and kwargs["training"]:
            return batch_norm_over_ranks(*args, **kwargs)
        return func(*args, **kwargs)


def batch_norm_over_ranks(  # noqa: PLR0917 - `functional.batch_norm`'s signature
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    training: bool,  # noqa: ARG001 - likewise
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalise by the mean and variance of all processes' inputs together; differentiable, twice too.

    Args:
        x: [N, C] or [N, C, H, W], as large in every process.
        running_mean: [C], updated in place; None keeps none.
        running_var: likewise, of the unbiased variance.
        weight: [C].
        bias: [C].
        training: True; the statistics of the batch are used.
        momentum: weight of this batch in the running statistics.
        eps: added to the variance.
    """
    others = [axis for axis in range(x.ndim) if axis != 1]
    exact = x if x.dtype is torch.float64 else x.float()
    variance, mean = torch.var_mean(exact, dim=others, correction=0)
    mean, variance = _pooled(mean, variance)
    if running_mean is not None and running_var is not None:
        count = world_size() * x.numel() // x.shape[1]
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    shape = [1, -1] + [1] * (x.ndim - 2)
    scale = weight * torch.rsqrt(variance + eps)
    return (exact * scale.view(shape) + (bias - mean * scale).view(shape)).to(x.dtype)


class _SumOverRanks(torch.autograd.Function):
    """A sum over processes, whose gradient is the sum of theirs, as often as it is differentiated."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return sum_over_ranks(x)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return _differentiable_sum(gradient)


def _differentiable_sum(x: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(x)  # type: ignore[no-untyped-call]  # torch's gap
    return total


def _pooled(mean_C: Tensor, variance_C: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the union of equally large samples, one of each process.

    In float64, because a variance is here the difference of two means of squares.
    """
    mean, variance = mean_C.double(), variance_C.double()
    both = _differentiable_sum(torch.stack((mean, variance + mean.square()))) / world_size()
    pooled_mean, mean_square = both
    pooled_variance = (mean_square - pooled_mean.square()).clamp(min=0)
    return pooled_mean.to(mean_C.dtype), pooled_variance.to(mean_C.dtype)
