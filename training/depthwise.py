"""Depthwise convolutions whose gradient can be differentiated by its own gradient in no time.

torch differentiates the gradient of a grouped convolution group by group, and MobileNetV2 has seven thousand
of them. The meta gradient needs the one part of that derivative that is itself a grouped convolution.
Shapes: N frames, C channels, H W.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.overrides import TorchFunctionMode


class LinearDepthwise(TorchFunctionMode):
    """In this context the gradients of depthwise convolutions are linear functions of what comes from above.

    They can be differentiated again by that, and not by the input or the weight, by which they count as
    constant: right for any derivative by something that neither of them depends on, as the weights of losses
    are.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.conv2d and kwargs.get("groups", 1) > 1 and len(args) == 5:
            x_NCHW, weight, bias, stride, padding = args
            if bias is None and kwargs["groups"] == len(weight):
                return _convolved(x_NCHW, weight, stride, padding)
        return func(*args, **kwargs)


def _convolved(x_NCHW: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    kind = x_NCHW.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x_NCHW, weight = x_NCHW.to(dtype), weight.to(dtype)
    convolved: Tensor = _Depthwise.apply(x_NCHW, weight, stride, padding)  # type: ignore[no-untyped-call]  # torch's gap
    return convolved


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x_NCHW, weight)
        ctx.steps = (stride, padding)
        return functional.conv2d(x_NCHW, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, above_NCHW: Tensor) -> tuple[Tensor | None, ...]:
        of_input, of_weight = _Gradients.apply(above_NCHW, *ctx.saved_tensors, *ctx.steps)  # type: ignore[no-untyped-call]
        return of_input, of_weight, None, None


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes all by position
        ctx: Any, above_NCHW: Tensor, x_NCHW: Tensor, weight: Tensor, stride: int, padding: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x_NCHW, weight)
        ctx.steps = (stride, padding)
        steps = {"stride": stride, "padding": padding, "groups": len(weight)}
        of_input = conv2d_input(x_NCHW.shape, weight, above_NCHW, **steps)
        return of_input, conv2d_weight(x_NCHW, weight.shape, above_NCHW, **steps)

    @staticmethod
    def backward(ctx: Any, along_input: Tensor, along_weight: Tensor) -> tuple[Tensor | None, ...]:
        x_NCHW, weight = ctx.saved_tensors
        stride, padding = ctx.steps
        of_above = functional.conv2d(along_input, weight, None, stride, padding, groups=len(weight))
        of_above = of_above + functional.conv2d(
            x_NCHW, along_weight, None, stride, padding, groups=len(weight)
        )
        return of_above, None, None, None, None
