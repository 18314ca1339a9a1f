"""Solids in space, a camera, and painting the one through the other, back to front."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from training.rendered.figure import Vector, vector

Colour = tuple[int, int, int]
Image = npt.NDArray[np.uint8]

_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 14)), np.sin(np.linspace(0, 2 * np.pi, 14))], axis=1)
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class Hull:
    """The convex hull of balls: a limb of two, a ball of one, a flat face with radius 0.

    Attributes:
        points_N3: the balls' centres, metres.
        radii_N: their radii, metres.
        colour: RGB.
        layer: -1 is painted before everything of layer 0, 1 after; inside a layer, far before near.
    """

    points_N3: npt.NDArray[np.float64]
    radii_N: npt.NDArray[np.float64]
    colour: Colour
    layer: int = 0


def limb(
    start: Vector, end: Vector, radius: float, colour: Colour, *, end_radius: float | None = None
) -> Hull:
    """Return a rounded stick between two points; `end_radius` makes it taper."""
    radii = np.array([radius, radius if end_radius is None else end_radius])
    return Hull(np.stack([start, end]), radii, colour)


def ball(centre: Vector, radius: float, colour: Colour) -> Hull:
    """Return a ball."""
    return Hull(centre[None], np.array([radius]), colour)


def curve(points: Sequence[Vector], radius: float, colour: Colour) -> list[Hull]:
    """Return a bent rod through the points, as short straight pieces."""
    return [limb(a, b, radius, colour) for a, b in pairwise(points)]


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def box(centre: Vector, size: Vector, colour: Colour, *, layer: int = 0) -> list[Hull]:
    """Return an upright box's five faces that can be seen, each side in its own shade."""
    half = size / 2
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half + centre
    faces = [((0, 1, 3, 2), 0.75), ((4, 5, 7, 6), 0.85), ((0, 1, 5, 4), 0.62), ((2, 3, 7, 6), 0.7)]
    faces.append(((1, 3, 7, 5), 1.0))
    return [Hull(corners[list(ids)], np.zeros(4), _shade(colour, light), layer) for ids, light in faces]


@dataclass(frozen=True, slots=True)
class View:
    """A camera that looks at one point.

    Attributes:
        target: what it looks at, metres.
        yaw: radians around the figure; 0 sees its face, pi / 2 its left side.
        pitch: radians above the horizontal.
        roll: radians of tilt of the picture.
        distance: metres from the target.
        focal_px: focal length in pixels.
        centre_px: (x, y) where the target appears.
    """

    target: Vector
    yaw: float
    pitch: float
    roll: float
    distance: float
    focal_px: float
    centre_px: tuple[float, float]

    def project(
        self, points_N3: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return pixels (N, 2) and depths (N,) in metres; points behind the camera are held before it."""
        towards = vector(
            np.cos(self.yaw) * np.cos(self.pitch), np.sin(self.yaw) * np.cos(self.pitch), np.sin(self.pitch)
        )
        right = vector(-np.sin(self.yaw), np.cos(self.yaw), 0)
        up = np.cross(towards, right)
        offsets = points_N3 - self.target
        depth = np.maximum(self.distance - offsets @ towards, 0.3)
        flat = np.stack([offsets @ right, -(offsets @ up)], axis=1) * (self.focal_px / depth)[:, None]
        cosine, sine = np.cos(self.roll), np.sin(self.roll)
        turned = flat @ np.array([[cosine, sine], [-sine, cosine]])
        return turned + np.array(self.centre_px), depth

    def pixels_per_metre(self, depth: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the size of a metre at each depth."""
        scale: npt.NDArray[np.float64] = self.focal_px / depth
        return scale


def _fill(image: Image, outline_N2: npt.NDArray[np.float64], colour: Colour) -> None:
    fixed = np.round(np.clip(outline_N2, -4000, 4000) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillConvexPoly(image, cv2.convexHull(fixed), colour, cv2.LINE_AA, _SUBPIXEL_BITS)


def _paint_hull(
    image: Image, pixels_N2: npt.NDArray[np.float64], radii_px: npt.NDArray[np.float64], hull: Hull
) -> None:
    rounded = radii_px.max() > 0
    outline = (
        (pixels_N2[:, None] + radii_px[:, None, None] * _CIRCLE).reshape(-1, 2) if rounded else pixels_N2
    )
    if radii_px.max() <= 2:
        _fill(image, outline, hull.colour)
        return
    # A darker rim and a lit core, towards the upper left, make a flat outline read as round.
    _fill(image, outline, _shade(hull.colour, 0.78))
    lit = pixels_N2[:, None] + radii_px[:, None, None] * (0.68 * _CIRCLE - np.array([0.2, 0.2]))
    _fill(image, lit.reshape(-1, 2), hull.colour)


def paint(image: Image, hulls: Iterable[Hull], view: View) -> None:
    """Paint the solids into the image (uint8 [H, W, 3], changed in place), far ones first."""
    projected = []
    for hull in hulls:
        pixels, depth = view.project(hull.points_N3)
        projected.append(
            ((hull.layer, -float(depth.mean())), pixels, hull.radii_N * view.pixels_per_metre(depth), hull)
        )
    projected.sort(key=lambda entry: entry[0])
    for _, pixels, radii_px, hull in projected:
        _paint_hull(image, pixels, radii_px, hull)
