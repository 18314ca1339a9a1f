"""Parts computed from the processor's memory: what they make of held frames, and of whole videos."""

from abc import ABC, abstractmethod

import numpy as np

from sdcom.engine.backend import Float32Array, Held, Looked, Picked, UInt8Array


class OnHost(ABC):
    """A backend's functions that follow from the others, where frames need not be taken anywhere."""

    _staging_NHWC: UInt8Array = np.empty((0, 0, 0, 0), dtype=np.uint8)

    @abstractmethod
    def look(self, frames_NHWC: UInt8Array) -> Looked:
        """Run the static network and the gate's embedding on RGB crops."""

    @abstractmethod
    def fill(self, frames_NHWC: UInt8Array, width: float) -> Float32Array:
        """Run the dynamic network."""

    @abstractmethod
    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        """Return each frame's fused features [N, F]."""

    @abstractmethod
    def classify(self, maxima_BTF: Float32Array) -> Float32Array:
        """Return the logits [B, T, L] after each frame."""

    def hold(self, frames_THWC: UInt8Array) -> Held:
        """Return a video's frames themselves."""
        return frames_THWC

    def look_picked(self, picked: Picked) -> Looked:
        """Look at frames of several videos."""
        return self.look(self._gather(picked))

    def fill_picked(self, picked: Picked, width: float) -> Float32Array:
        """Fill frames of several videos."""
        return self.fill(self._gather(picked), width)

    def conclude(self, features_BTD: Float32Array, supplements_BTD: Float32Array) -> Float32Array:
        """Fuse and classify videos from their first frame on; return logits [B, T, L] after each frame."""
        rows_ND, supplements_ND = (
            rows.reshape(-1, rows.shape[-1]) for rows in (features_BTD, supplements_BTD)
        )
        z_BTF = self.fuse(rows_ND, supplements_ND).reshape(*features_BTD.shape[:2], -1)
        return self.classify(np.maximum.accumulate(z_BTF, axis=1))

    def _gather(self, picked: Picked) -> UInt8Array:
        """Return the batch's frames [size, H, W, C]: a view where it is a run of one video's frames.

        Copies go into an array that the next batch uses again: fresh memory costs more than the copy.
        """
        size, (held_THWC, first) = picked.size, picked.shares[0]
        assert isinstance(held_THWC, np.ndarray)
        is_run = len(picked.shares) == 1 and first[-1] - first[0] + 1 == len(first) == size
        if is_run:
            return held_THWC[first[0] : first[-1] + 1]
        frame_shape = held_THWC.shape[1:]
        if len(self._staging_NHWC) < size or self._staging_NHWC.shape[1:] != frame_shape:
            self._staging_NHWC = np.empty((size, *frame_shape), dtype=np.uint8)
        start = 0
        for frames_THWC, positions in picked.shares:
            assert isinstance(frames_THWC, np.ndarray)
            end = start + len(positions)
            rows_NHWC = self._staging_NHWC[start:end]
            np.take(frames_THWC, positions, axis=0, out=rows_NHWC, mode="clip")
            start = end
        self._staging_NHWC[start:size] = 0
        return self._staging_NHWC[:size]
