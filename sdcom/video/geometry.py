"""Sizes and orientations of frames. Pure.

Legend of shape suffixes: N frames, H height, W width; C is always 3, RGB.
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

MAX_ASPECT = 4
"""Longer frames are cropped to this aspect before they are scaled: a 4096x16 video would become 65536x256."""


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return (width, height) with the short side at `short_side` and the aspect kept."""
    short = min(width, height)

    def scaled(side: int) -> int:
        return (2 * side * short_side + short) // (2 * short)

    return scaled(width), scaled(height)


def tamed_size(width: int, height: int) -> tuple[int, int]:
    """Return (width, height) with the long side cut to `MAX_ASPECT` times the short one."""
    longest = MAX_ASPECT * min(width, height)
    return min(width, longest), min(height, longest)


def center_crop(frame_HWC: UInt8Array, crop: int) -> UInt8Array:
    """Return the central square of `crop` pixels, a view."""
    height, width = frame_HWC.shape[:2]
    top, left = (height - crop) // 2, (width - crop) // 2
    return frame_HWC[top : top + crop, left : left + crop]


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored frames are turned to stand upright: first transposed, then mirrored.

    Attributes:
        transpose: rows become columns.
        flip_x: mirrored left to right, afterwards.
        flip_y: mirrored top to bottom, afterwards.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def from_display_matrix(cls, matrix: bytes) -> "Orientation":
        """Return the nearest of the eight orientations to a display matrix.

        Args:
            matrix: nine 32-bit integers, native order (ISO/IEC 14496-12, 6.2.2; libavutil/display.h): a
                stored point (p, q) is shown at (a p + c q + x, b p + d q + y) for a b u c d v x y w.
        """
        a, b, _, c, d = struct.unpack_from("=5i", matrix)
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(transpose=False, flip_x=a < 0, flip_y=d < 0)
        return cls(transpose=True, flip_x=c < 0, flip_y=b < 0)

    @classmethod
    def from_rotation(cls, degrees: int) -> "Orientation":
        """Return the nearest orientation to a turn counter-clockwise."""
        quarter = round(degrees / 90) % 4
        return cls(transpose=quarter % 2 == 1, flip_x=quarter in {2, 3}, flip_y=quarter in {1, 2})

    @property
    def is_upright(self) -> bool:
        """True if stored frames already stand upright."""
        return not (self.transpose or self.flip_x or self.flip_y)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the upright (width, height) of stored frames of that size."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, frame_HWC: UInt8Array) -> UInt8Array:
        """Return the frame upright, a view."""
        turned = frame_HWC.swapaxes(0, 1) if self.transpose else frame_HWC
        return turned[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
