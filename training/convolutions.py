"""Convolutions whose gradient can be differentiated by its own gradient in no time.

torch differentiates the gradient of a convolution by everything that it depends on: by the weight as a
convolution with a kernel as large as the map, and where there are groups, group by group; MobileNetV2 has
seven thousand of them. The meta gradient needs one part of that alone, which is itself two convolutions.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.overrides import TorchFunctionMode

Steps = int | tuple[int, ...]


class LinearConvolutions(TorchFunctionMode):
    """In this context the gradients of convolutions are linear functions of what comes from above.

    They can be differentiated again by that, and not by the input or the weight, by which they count as
    constant: right for any derivative by something that neither of them depends on, as the weights of losses
    are.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not functional.conv2d:
            return func(*args, **kwargs)
        return _convolved(*args, **kwargs)


class _Form(NamedTuple):
    """What a convolution is besides its weight."""

    stride: Steps
    padding: Steps
    dilation: Steps
    groups: int


def _convolved(  # noqa: PLR0917 - `functional.conv2d`'s signature
    x_NCHW: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Steps = 1,
    padding: Steps = 0,
    dilation: Steps = 1,
    groups: int = 1,
) -> Tensor:
    kind = x_NCHW.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x_NCHW, weight = x_NCHW.to(dtype), weight.to(dtype)
    form = _Form(stride, padding, dilation, groups)
    convolved: Tensor = _Convolution.apply(x_NCHW, weight, form)  # type: ignore[no-untyped-call]  # torch's gap
    return convolved if bias is None else convolved + bias.to(convolved.dtype)[:, None, None]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight: Tensor, form: _Form) -> Tensor:
        ctx.save_for_backward(x_NCHW, weight)
        ctx.form = form
        return functional.conv2d(x_NCHW, weight, None, *form)

    @staticmethod
    def backward(ctx: Any, above_NCHW: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _Gradients.apply(above_NCHW, *ctx.saved_tensors, ctx.form)  # type: ignore[no-untyped-call]
        return (*gradients, None)


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, above_NCHW: Tensor, x_NCHW: Tensor, weight: Tensor, form: _Form
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x_NCHW, weight)
        ctx.form = form
        of_input = conv2d_input(x_NCHW.shape, weight, above_NCHW, *form)
        return of_input, conv2d_weight(x_NCHW, weight.shape, above_NCHW, *form)

    @staticmethod
    def backward(ctx: Any, along_input: Tensor, along_weight: Tensor) -> tuple[Tensor | None, ...]:
        x_NCHW, weight = ctx.saved_tensors
        from_input = functional.conv2d(along_input, weight, None, *ctx.form)
        from_weight = functional.conv2d(x_NCHW, along_weight, None, *ctx.form)
        return from_input + from_weight, None, None, None
