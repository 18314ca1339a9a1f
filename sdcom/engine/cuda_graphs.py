"""Calls of torch modules as CUDA graphs: captured once for each module and batch size, then replayed.

A call is one launch for the processor, however many kernels it has. All captures share one pool of memory,
because a GPU takes calls in their order, and each one's results are copied out before the next. Arrays go in
through pinned memory and come out in it, so that copies run at the bus's speed and nobody waits for them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sdcom.engine.backend import Begun, Float32Array, UInt8Array
from sdcom.engine.dense import Backboned

Rows = npt.NDArray[np.generic] | Tensor
"""Input of a call: an array, or a tensor that is on the GPU already."""

_WARM_UPS = 3  # cuDNN chooses its algorithms in the first, libraries take their scratch memory in the others


@dataclass(frozen=True, slots=True)
class _Capture:
    """A captured call: its graph, and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class CudaGraphs:
    """Captures calls at their first use, and replays them. For one thread at a time.

    Args:
        compiled_rows: the batch size at which torch.compile makes kernels for parts with backbones; None is
            never.
    """

    def __init__(self, *, compiled_rows: int | None) -> None:
        self._compiled_rows = compiled_rows
        self._captures: dict[tuple[object, ...], _Capture] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()
        self._arguments: list[_Argument] = []

    @torch.inference_mode()
    def __call__(
        self, part: nn.Module, num_rows: int, arrays: Sequence[Rows]
    ) -> Begun[tuple[Float32Array, ...]]:
        """Begin a module on a batch that is padded with rows of zeros, without waiting for the GPU.

        Args:
            part: returns a tuple of tensors with as many rows as its inputs have.
            num_rows: at which it is captured, at least as many as the arrays have.
            arrays: its inputs, with the same number of rows; pinned ones must stay as they are until the end.

        Returns:
            What waits for its outputs, of the arrays' rows.
        """
        key = (part, num_rows, *(array.shape[1:] for array in arrays))
        if key not in self._captures:
            self._captures[key] = self._capture(part, num_rows, arrays)
        capture = self._captures[key]
        for array, memory in zip(arrays, capture.inputs, strict=True):
            _upload(as_tensor(array), memory)
        capture.graph.replay()
        num_used = len(arrays[0])
        outputs = [output[:num_used].to("cpu", non_blocking=True) for output in capture.outputs]
        ended = torch.cuda.Event(blocking=True)  # a thread that waits leaves its processor to others
        ended.record()

        def end() -> tuple[Float32Array, ...]:
            ended.synchronize()
            return tuple(output.numpy() for output in outputs)

        return end

    def _capture(self, part: nn.Module, num_rows: int, arrays: Sequence[Rows]) -> _Capture:
        inputs = self._memory(num_rows, arrays)
        for each in inputs:
            each.zero_()  # other captures left other types there, and a part may read numbers of rows
        run: Callable[..., tuple[Tensor, ...]] = part
        if isinstance(part, Backboned) and num_rows == self._compiled_rows:
            run = torch.compile(part, dynamic=False, fullgraph=True)
        with exact_float32(choose_algorithms=_has_two_bytes(part)):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):
                    run(*inputs)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                outputs = run(*inputs)
        return _Capture(graph, inputs, outputs)

    def _memory(self, num_rows: int, arrays: Sequence[Rows]) -> tuple[Tensor, ...]:
        """Return the inputs' memory, shared with the other captures."""
        while len(self._arguments) < len(arrays):
            self._arguments.append(_Argument())
        return tuple(
            argument.memory((num_rows, *array.shape[1:]), as_tensor(array[:0]).dtype)
            for argument, array in zip(self._arguments, arrays, strict=False)
        )


class _Argument:
    """The GPU's memory of one argument, for whatever type and shape a call has.

    Where a larger one is needed, captures made before keep what they were captured with.
    """

    def __init__(self) -> None:
        self._bytes = torch.zeros(0, dtype=torch.uint8, device="cuda")

    def memory(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return memory of a shape."""
        num_bytes = prod(shape) * dtype.itemsize
        if num_bytes > len(self._bytes):
            self._bytes = self._bytes.new_zeros(max(num_bytes, 2 * len(self._bytes)))
        return self._bytes[:num_bytes].view(dtype).view(*shape)


class Uploads:
    """Copies of frames to the GPU beside what is computed there. For any number of threads at a time."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    @torch.inference_mode()
    def __call__(self, frames_THWC: UInt8Array, on_device_THWC: Tensor) -> None:
        """Copy frames to memory of the GPU; return once they are there."""
        pinned_THWC = torch.empty(frames_THWC.shape, dtype=torch.uint8, pin_memory=True)
        np.copyto(pinned_THWC.numpy(), frames_THWC)
        with torch.cuda.stream(self._stream):
            on_device_THWC.copy_(pinned_THWC, non_blocking=True)
            arrived = torch.cuda.Event(blocking=True)
            arrived.record()
        arrived.synchronize()


def as_tensor(rows: Rows) -> Tensor:
    """Return rows as a tensor, where they are."""
    return rows if isinstance(rows, Tensor) else torch.from_numpy(rows)


def _upload(rows: Tensor, memory: Tensor) -> None:
    """Copy rows to the memory of a capture, zeros after them."""
    if len(rows) < len(memory):
        memory[len(rows) :].zero_()
    reachable = rows if rows.is_cuda or rows.is_pinned() else rows.pin_memory()
    memory[: len(rows)].copy_(reachable, non_blocking=True)


def _has_two_bytes(part: nn.Module) -> bool:
    """Return whether cuDNN may time its algorithms for a part: where it has two bytes, not for float32."""
    return any(parameter.dtype.itemsize == 2 for parameter in part.parameters())


@contextmanager
def exact_float32(*, choose_algorithms: bool = False) -> Iterator[None]:
    """Keep float32 layers and all sums float32 (no TF32), and set whether cuDNN times its algorithms."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    wanted: tuple[tuple[object, str, bool], ...] = (
        (cudnn, "allow_tf32", False),
        (cudnn, "benchmark", choose_algorithms),
        (matmul, "allow_tf32", False),
        (matmul, "allow_fp16_reduced_precision_reduction", False),
        (matmul, "allow_bf16_reduced_precision_reduction", False),
    )
    before = [getattr(place, name) for place, name, _ in wanted]
    for place, name, value in wanted:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(wanted, before, strict=True):
            setattr(place, name, value)
