"""What an engine computes with: the parts of one model, on arrays.

Shapes: B videos, T frames of each in feeding order, N frames of any videos, H W pixels, C channels, Ds and
Dd static and dynamic features, E the gate's embedding, F fused features, K widths, L labels. In `decide`'s
state, H is the GRU's size.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Looked:
    """What the static network and the gate's embedding say of N frames.

    Attributes:
        features_ND: static features [N, Ds].
        embeddings_NE: the gate's per-frame vectors [N, E].
    """

    features_ND: Float32Array
    embeddings_NE: Float32Array


class Backend(Protocol):
    """Runs the parts of one model on arrays; one call at a time. uint8 frames in, float32 out.

    Arrays given are not kept after the call: they are overwritten. Arrays returned are the caller's to keep.
    """

    def look(self, frames_NHWC: UInt8Array) -> Looked:
        """Run the static network and the gate's embedding on cropped RGB frames."""
        ...

    def decide(
        self, embeddings_BTE: Float32Array, state_BH: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Return the gate's logits [B, T, K] and its state after the last frame [B, H]."""
        ...

    def fill(self, frames_NHWC: UInt8Array, width: float) -> Float32Array:
        """Return the dynamic features [N, Dd] at a width above 0, zero-padded."""
        ...

    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        """Return the fused features z [N, F] of static and dynamic ones."""
        ...

    def classify(self, maxima_BTF: Float32Array) -> Float32Array:
        """Return the logits [B, T, L] after each frame of running maxima."""
        ...
