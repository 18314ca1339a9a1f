"""The networks in plain torch: the reference that every faster backend must agree with."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcom.checkpoint import ModelInfo
from sdcom.engine.backend import (
    Float32Array,
    FrameByFrame,
    Int64Array,
    Looked,
    Room,
    StreamFiller,
    UInt8Array,
)
from sdcom.engine.on_host import HostRoom, OnHost
from sdcom.model import Model
from sdcom.models.composition import SDCOM
from sdcom.models.temporal_shift import CarriedFrame, Earlier, earlier_rows
from sdcom.preprocess import normalize
from sdcom.recognition import Provider


class TorchBackend(OnHost):
    """A loaded model's own modules.

    Args:
        model: in inference mode, on any device.
        num_threads: of one network call, on a processor; None leaves torch's own number.
    """

    def __init__(self, model: Model, *, num_threads: int | None = None) -> None:
        self._info, self._networks = model
        self._num_threads = num_threads
        self._device = next(self._networks.parameters()).device

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._info

    @property
    def provider(self) -> Provider:
        """torch, and the device."""
        on_gpu = self._device.type == "cuda"
        gpu = torch.cuda.get_device_name(self._device) if on_gpu else ""
        return Provider(f"torch-{self._device.type}", torch.__version__, gpu)

    @property
    def buckets(self) -> tuple[int, ...]:
        """None: any size."""
        return ()

    def prepare_thread(self) -> None:
        """Set the number of OpenMP threads, which each calling thread has of its own."""
        if self._num_threads is not None:
            torch.set_num_threads(self._num_threads)

    @torch.inference_mode()
    def look(self, frames_NHWC: UInt8Array) -> Looked:
        """Run the static network and the gate's embedding on RGB crops."""
        view = self._networks.look(self._pixels(frames_NHWC))
        return Looked(_array(view.features_ND), _array(self._networks.gate.embed(view.map_NCHW)))

    @torch.inference_mode()
    def decide(
        self, embeddings_BTE: Float32Array, state_BH: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Run the gate over frames in feeding order; return width logits [B, T, K] and the state."""
        state_1BH = None if state_BH is None else self._tensor(state_BH)[None]
        logits_BTK, last_1BH = self._networks.gate.decide(self._tensor(embeddings_BTE), state_1BH)
        return _array(logits_BTK), _array(last_1BH[0])

    @torch.inference_mode()
    def fill(self, frames_NHWC: UInt8Array, width: float, before_N: Int64Array | None = None) -> Float32Array:
        """Run the dynamic network; return features [N, Dd], zero-padded."""
        earlier = None if before_N is None else earlier_rows(torch.from_numpy(before_N).to(self._device))
        return _array(self._networks.fill(self._pixels(frames_NHWC), width, earlier))

    @torch.inference_mode()
    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        """Return each frame's fused features [N, F]."""
        return _array(self._networks.fusion.project(self._tensor(features_ND), self._tensor(supplements_ND)))

    @torch.inference_mode()
    def classify(self, maxima_BTF: Float32Array, first: int = 0) -> Float32Array:
        """Return the logits [B, T, L] after each frame, the first of them at position `first`."""
        maxima = self._tensor(maxima_BTF).unbind(dim=1)
        logits = [self._networks.fusion.classify_at(m_BF, step) for step, m_BF in enumerate(maxima, first)]
        return _array(torch.stack(logits, dim=1))

    def open_stream(self) -> StreamFiller:
        """Return what fills a new stream's frames."""
        if self._info.config.temporal_shift:
            return _ShiftingStream(self._networks, self._pixels)
        return FrameByFrame(self, self._networks.dynamic.num_features)

    def open_room(self, _num_videos: int, /) -> Room:
        """Return room for any number of videos, in the processor's memory."""
        return HostRoom(self, self._info.config)

    def _pixels(self, frames_NHWC: UInt8Array) -> Tensor:
        """Return frames as the networks see them: normalised [N, 3, H, W], on the device."""
        return normalize(self._tensor(frames_NHWC), self._info.config.clip)

    def _tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


class _ShiftingStream:
    """A stream's frames through a network that hands channels from each to the next at its width."""

    def __init__(self, networks: SDCOM, pixels: Callable[[UInt8Array], Tensor]) -> None:
        self._networks = networks
        self._pixels = pixels
        self._num_pushed = 0
        self._carried: dict[float, tuple[int, CarriedFrame]] = {}

    @torch.inference_mode()
    def fill(self, frame_HWC: UInt8Array, width: float) -> Float32Array:
        """Return the features [Dd] of the stream's next frame, zeros at width 0."""
        return _array(self._networks.fill(self._pixels(frame_HWC[None]), width, self._earlier(width))[0])

    def _earlier(self, width: float) -> Earlier:
        """Return what this frame reads of the last one in the window at its width."""
        position, self._num_pushed = self._num_pushed, self._num_pushed + 1
        last, carried = self._carried.get(width, (position, CarriedFrame()))
        if position - last >= self._networks.config.clip.num_frames:
            carried = CarriedFrame()
        self._carried[width] = (position, carried)
        return carried.next_frame()


def _array(tensor: Tensor) -> Float32Array:
    array: Float32Array = tensor.float().cpu().numpy()
    return array
