"""Batch norm folded into the layer before it: the arithmetic that every engine's networks share (pure)."""

import numpy as np
import numpy.typing as npt

from sdcom.architecture import NORM_EPS

Float32Array = npt.NDArray[np.float32]


def fold_norm(
    weight_C: Float32Array, bias_C: Float32Array, mean_c: Float32Array, variance_c: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Return a batch norm in evaluation as the scale and the shift of each channel.

    The layer before it takes them in: its weights times the scale, its bias the shift.

    Args:
        weight_C: affine weight at full width.
        bias_C: affine bias at full width.
        mean_c: running mean at the width wanted, of the first c channels.
        variance_c: running variance at that width.

    Returns:
        Both of c channels.
    """
    num_channels = len(mean_c)
    scale_c = weight_C[:num_channels] / np.sqrt(variance_c + np.float32(NORM_EPS))
    return scale_c, bias_C[:num_channels] - mean_c * scale_c
