"""The networks as torch modules of exactly one width each, in batches of few sizes: CUDA graphs on a GPU."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.checkpoint import ModelInfo
from sdcom.engine.backend import (
    Begun,
    Float32Array,
    FrameByFrame,
    Int64Array,
    Looked,
    Room,
    StreamFiller,
    UInt8Array,
)
from sdcom.engine.cuda_graphs import CudaGraphs, Rows, Uploads, as_tensor, exact_float32
from sdcom.engine.dense import Classify, Conclude, Decide, Fill, Fuse, Look
from sdcom.engine.dense_room import DenseRoom
from sdcom.model import Model
from sdcom.models.fusion import FusionHead
from sdcom.recognition import Provider

Precision = Literal["fp32", "mixed", "bf16", "fp16"]
"""Mixed is float16, but for the static network: what decides the widths is float32's."""

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Sizes of batches: less than half of one is padding, and there are few to capture."""

AnyPart = TypeVar("AnyPart", bound=nn.Module)

_DTYPES: dict[Precision, tuple[torch.dtype, torch.dtype]] = {
    "fp32": (torch.float32, torch.float32),
    "mixed": (torch.float32, torch.float16),
    "bf16": (torch.bfloat16, torch.bfloat16),
    "fp16": (torch.float16, torch.float16),
}
"""Of the static network; of the dynamic one and the fusion head's projection."""


class BatchCall(Protocol):
    """Begins a module on a batch of some size."""

    def __call__(
        self, part: nn.Module, num_rows: int, arrays: Sequence[Rows]
    ) -> Begun[tuple[Float32Array, ...]]:
        """Have the module's outputs of the arrays' rows computed, with rows of zeros up to `num_rows`."""


class DenseBackend:
    """A loaded model, sliced once for each width, its batch norms folded.

    On a GPU a part is captured in a CUDA graph for each size of batch, at its first use. On a processor the
    same modules run as they are: how the tests hold them against the reference.

    Args:
        model: in inference mode, on the processor, without temporal shift; not changed.
        device: where to compute.
        precision: of the backbones and the fusion head's projection; "mixed" has the static one in float32.
        compiled: on a GPU, have torch.compile make kernels for the backbones in batches of the largest size.
        num_threads: of a network call on a processor.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: Literal["cuda", "cpu"],
        precision: Precision,
        compiled: bool = False,
        num_threads: int = 1,
    ) -> None:
        info, networks = model
        assert not info.config.temporal_shift, "frames that read one another cannot share batches"
        assert device == "cuda" or not compiled, "nothing is compiled for a processor"
        static_dtype, dtype = _DTYPES[precision]
        self._info, self._device, self._num_threads = info, device, num_threads
        self._num_features = networks.dynamic.num_features
        self._look = self._placed(Look(networks, static_dtype))
        self._fill = {
            width: self._placed(Fill(networks, width, dtype)) for width in info.config.widths if width > 0
        }
        self._decide = self._placed(Decide(networks))
        self._fuse = self._placed(Fuse(networks, dtype))
        self._heads = _Heads(self._fuse, networks.fusion, device)
        self._begin_batch: BatchCall = self._padded
        self._upload: Callable[[UInt8Array, Tensor], object] = _copy
        if device == "cuda":
            self._upload = Uploads()
            self._begin_batch = CudaGraphs(compiled_rows=BUCKETS[-1] if compiled else None)
        name = "-".join(("torch", device, precision, *(["compiled"] if compiled else [])))
        model_name = torch.cuda.get_device_name() if device == "cuda" else ""
        self._provider = Provider(name, torch.__version__, model_name)

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._info

    @property
    def provider(self) -> Provider:
        """torch, the device, the precision, and whether kernels were compiled."""
        return self._provider

    @property
    def buckets(self) -> tuple[int, ...]:
        """The sizes of batches; others are padded, and larger ones cut."""
        return BUCKETS

    def prepare_thread(self) -> None:
        """Set the number of OpenMP threads, which each calling thread has of its own."""
        torch.set_num_threads(self._num_threads)

    def look(self, frames_NHWC: UInt8Array) -> Looked:
        """Run the static network and the gate's embedding on RGB crops."""
        return Looked(*self._in_batches(self._look, frames_NHWC))

    def decide(
        self, embeddings_BTE: Float32Array, state_BH: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Run the gate over frames in feeding order; return width logits [B, T, K] and the state."""
        num_videos, num_frames, _ = embeddings_BTE.shape
        if state_BH is None:
            state_BH = np.zeros((num_videos, self._info.config.gate_hidden), dtype=np.float32)
        is_whole = num_frames == self._info.config.clip.num_frames
        run = self._in_batches if is_whole else self._directly
        logits_BTK, last_BH = run(self._decide, embeddings_BTE, state_BH)
        return logits_BTK, last_BH

    def fill(self, frames_NHWC: UInt8Array, width: float, before_N: Int64Array | None = None) -> Float32Array:
        """Run the dynamic network; return features [N, Dd], zero-padded."""
        assert before_N is None, "nothing here shifts"
        return self._in_batches(self._fill[width], frames_NHWC)[0]

    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        """Return each frame's fused features [N, F]."""
        return self._directly(self._fuse, features_ND, supplements_ND)[0]

    def classify(self, maxima_BTF: Float32Array, first: int = 0) -> Float32Array:
        """Return the logits [B, T, L] after each frame, the first of them at position `first`."""
        classifiers = self._heads.classifiers(first, maxima_BTF.shape[1])
        return self._directly(classifiers, maxima_BTF)[0]

    def conclude(self, features_BTD: Float32Array, supplements_BTD: Float32Array) -> Float32Array:
        """Fuse and classify videos from their first frame on; return logits [B, T, L] after each frame."""
        head = self._heads.whole(features_BTD.shape[1])
        return self._in_batches(head, features_BTD, supplements_BTD)[0]

    def open_stream(self) -> StreamFiller:
        """Return what fills a new stream's frames."""
        return FrameByFrame(self, self._num_features)

    def open_room(self, num_videos: int, /) -> Room:
        """Return room for so many videos in the device's memory."""
        return DenseRoom(
            self._info.config,
            num_videos,
            look=self._look,
            fill=self._fill,
            decide=self._decide,
            conclude=self._heads.whole,
            device=self._device,
            begin=self._begin,
            upload=self._upload,
        )

    def _in_batches(self, part: nn.Module, *arrays: Rows) -> tuple[Float32Array, ...]:
        """Run a part on any number of rows, in batches of the sizes that there are."""
        return self._begin(part, *arrays)()

    def _begin(self, part: nn.Module, *arrays: Rows) -> Begun[tuple[Float32Array, ...]]:
        """Begin the same; arrays that are pinned must stay as they are until its end."""
        batches = []
        for start in range(0, len(arrays[0]), BUCKETS[-1]):
            rows = [array[start : start + BUCKETS[-1]] for array in arrays]
            size = next(bucket for bucket in BUCKETS if bucket >= len(rows[0]))
            batches.append(self._begin_batch(part, size, rows))
        if len(batches) == 1:
            return batches[0]
        return lambda: tuple(
            np.concatenate(outputs) for outputs in zip(*(end() for end in batches), strict=True)
        )

    def _padded(
        self, part: nn.Module, num_rows: int, arrays: Sequence[Rows]
    ) -> Begun[tuple[Float32Array, ...]]:
        """Run a part as it is, on rows of zeros beside those given."""
        num_used = len(arrays[0])
        padded = [
            functional.pad(rows, (0, 0) * (rows.ndim - 1) + (0, num_rows - num_used))
            for rows in map(as_tensor, arrays)
        ]
        outputs = tuple(output[:num_used] for output in self._directly(part, *padded))
        return lambda: outputs

    @torch.inference_mode()
    def _directly(self, part: nn.Module, *arrays: Rows) -> tuple[Float32Array, ...]:
        """Run a part as it is: what frames of a stream take, one by one, has too few kernels for a graph."""
        with exact_float32():
            outputs = part(*(as_tensor(array).to(self._device) for array in arrays))
        return tuple(output.cpu().numpy() for output in outputs)

    def _placed(self, part: AnyPart) -> AnyPart:
        return part.to(self._device).eval().requires_grad_(requires_grad=False)


class _Heads:
    """The fusion head's classifiers, of as many frames and from whichever on as are asked for."""

    def __init__(self, fuse: Fuse, fusion: FusionHead, device: str) -> None:
        self._fuse, self._fusion, self._device = fuse, fusion, device
        self._classifiers: dict[tuple[int, int], Classify] = {}
        self._whole: dict[int, Conclude] = {}

    def classifiers(self, first: int, num_frames: int) -> Classify:
        """Return those of some frames, the first of them at position `first`."""
        steps = first, first + num_frames
        if steps not in self._classifiers:
            self._classifiers[steps] = Classify(self._fusion, slice(*steps)).to(self._device).eval()
        return self._classifiers[steps]

    def whole(self, num_frames: int) -> Conclude:
        """Return the head for videos of so many frames."""
        if num_frames not in self._whole:
            self._whole[num_frames] = Conclude(self._fuse, self.classifiers(0, num_frames)).eval()
        return self._whole[num_frames]


def _copy(frames_THWC: UInt8Array, placed_THWC: Tensor) -> None:
    np.copyto(placed_THWC.numpy(), frames_THWC)
