"""Resizing as two products with one matrix: exact everywhere, and quick where products are (pure)."""

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


def resize_matrix(size: int, resolution: int) -> Float32Array:
    """Return the matrix [resolution, size] that resizes one axis, bilinear and antialiased as torch does.

    A triangle as wide as the scale, centred on each output pixel, over the inputs that it covers.
    """
    scale = size / resolution
    support = max(scale, 1.0)
    matrix = np.zeros((resolution, size), dtype=np.float64)
    for row in range(resolution):
        center = scale * (row + 0.5)
        first, last = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), size)
        distance = np.abs(np.arange(first, last) - center + 0.5) / support
        weights = np.clip(1 - distance, 0, None)
        matrix[row, first:last] = weights / weights.sum()
    return matrix.astype(np.float32)
