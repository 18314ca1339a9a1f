"""A scene: one person in one place before one camera. Its clips differ in how the action is performed."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from training.rendered.actions import Action
from training.rendered.backgrounds import background
from training.rendered.body import Body
from training.rendered.figure import Pose, joints, vector
from training.rendered.shapes import Colour, Hull, Image, View, paint
from training.rendered.style import Style, muted

_MARGIN = 0.25
"""How far the background reaches beyond the frame on each side, as a share of the frame's width."""


@dataclass(frozen=True, slots=True)
class Grade:
    """The look of the recording.

    Attributes:
        curve_256: what each brightness becomes, uint8 [256, 3].
        grey: whether it is black and white.
        blur_px: standard deviation of the lens's blur.
        noise: standard deviation of the sensor's noise, of 255.
        letterbox: share of the height that each black border takes.
    """

    curve_256: npt.NDArray[np.uint8]
    grey: bool
    blur_px: float
    noise: float
    letterbox: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Return a random look."""
        levels = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.65, 1.3)
        tint = rng.uniform(0.88, 1.0, 3) * rng.uniform(0.85, 1.0)
        floor = rng.uniform(0, 25)
        return cls(
            curve_256=(floor + levels * tint * (255 - floor)).astype(np.uint8),
            grey=bool(rng.random() < 0.1),
            blur_px=float(rng.choice([0.0, rng.uniform(0.4, 1.1)])),
            noise=float(rng.uniform(0.5, 4.0)),
            letterbox=float(rng.choice([0.0, 0.0, 0.0, 0.08])),
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """What the clips of one group share.

    Attributes:
        body: the person.
        style: the person's way of performing and the things used.
        view: the camera.
        background: RGB, uint8, larger than the frame by a margin on each side.
        margin_px: (x, y) size of that margin.
        ground: RGB of the figure's shadow.
        following: share of the figure's travel that the camera follows.
        shake_px: size of the camera's unrest.
        mirrored: whether left and right are swapped.
        grade: the look of the recording.
        occluders: ((left, top), (right, bottom), RGB) of things before the lens, pixels.
    """

    body: Body
    style: Style
    view: View
    background: Image
    margin_px: tuple[int, int]
    ground: Colour
    following: float
    shake_px: float
    mirrored: bool
    grade: Grade
    occluders: tuple[tuple[tuple[int, int], tuple[int, int], Colour], ...]

    @classmethod
    def draw(cls, action: Action, rng: np.random.Generator, width: int, height: int) -> Self:
        """Return a random scene that shows the action in frames of this size."""
        view = _draw_view(action, rng, width, height)
        margin = (int(_MARGIN * width), int(_MARGIN * height))
        horizon = view.centre_px[1] - view.focal_px * np.tan(view.pitch) + margin[1]
        place = background(rng, width + 2 * margin[0], height + 2 * margin[1], int(horizon))
        if rng.random() < 0.3:
            _add_bystanders(rng, place, view, margin)
        floor = place[margin[1] + int(height * 0.85), :].mean(axis=0) * 0.62
        return cls(
            body=Body.draw(rng),
            style=Style.draw(rng),
            view=view,
            background=place,
            margin_px=margin,
            ground=(int(floor[0]), int(floor[1]), int(floor[2])),
            following=float(rng.choice([0.0, 0.5, 0.9, 1.0])),
            shake_px=float(rng.choice([0.0, rng.uniform(0.5, 4.0)])) * height / 240,
            mirrored=bool(rng.random() < 0.5),
            grade=Grade.draw(rng),
            occluders=_draw_occluders(rng, width, height),
        )


def _draw_view(action: Action, rng: np.random.Generator, width: int, height: int) -> View:
    close = rng.random() < action.close_up
    # The span of the picture in metres, and the height that its middle looks at.
    span = rng.uniform(0.95, 1.35) if close else action.height_m * rng.uniform(1.05, 1.9)
    reach = action.height_m - 1.8
    middle = rng.uniform(1.25, 1.4) + 0.6 * reach if close else action.height_m / 2 + rng.uniform(-0.1, 0.15)
    distance = rng.uniform(3.0, 8.0)
    yaw = np.deg2rad(rng.uniform(*action.yaw_deg) * rng.choice([-1.0, 1.0]))
    return View(
        target=vector(0.05, 0, middle),
        yaw=float(yaw),
        pitch=float(np.deg2rad(rng.uniform(-6, 20))),
        roll=float(np.deg2rad(rng.normal(0, 2.0))),
        distance=float(distance),
        focal_px=float(height * distance / (span + (0.35 if close else 0.0))),
        centre_px=(float(width * rng.uniform(0.38, 0.62)), float(height * rng.uniform(0.47, 0.55))),
    )


def _add_bystanders(rng: np.random.Generator, place: Image, view: View, margin: tuple[int, int]) -> None:
    """Paint a few people who stand behind, smaller, into the background."""
    still = joints(Pose())
    for _ in range(int(rng.integers(1, 4))):
        far = View(
            target=vector(0, 0, view.target[2]),
            yaw=float(rng.uniform(-np.pi, np.pi)),
            pitch=view.pitch,
            roll=view.roll,
            distance=view.distance + float(rng.uniform(2.0, 7.0)),
            focal_px=view.focal_px,
            centre_px=(float(rng.uniform(0, place.shape[1])), view.centre_px[1] + margin[1]),
        )
        paint(place, Body.draw(rng).solids(still), far)


def _draw_occluders(
    rng: np.random.Generator, width: int, height: int
) -> tuple[tuple[tuple[int, int], tuple[int, int], Colour], ...]:
    kind = rng.choice(["none", "bars", "box"], p=[0.65, 0.2, 0.15])
    colour = muted(rng)
    if kind == "bars":
        gap, wide = int(width * rng.uniform(0.18, 0.4)), max(2, int(width * rng.uniform(0.01, 0.04)))
        start = int(rng.integers(0, gap))
        return tuple(((x, -height), (x + wide, 2 * height), colour) for x in range(start, width, gap))
    if kind == "box":
        left, wide = int(rng.integers(-width // 4, width)), int(width * rng.uniform(0.2, 0.6))
        return (((left, int(height * rng.uniform(0.68, 0.9))), (left + wide, 2 * height), colour),)
    return ()


def shadow(hulls: list[Hull], colour: Colour) -> Hull:
    """Return the dark patch on the ground under the figure."""
    points = np.concatenate([hull.points_N3 for hull in hulls])
    low, high = points.min(axis=0), points.max(axis=0)
    centre, size = (low + high) / 2, (high - low) / 2
    around = np.linspace(0, 2 * np.pi, 13)
    rim = np.stack(
        [centre[0] + 0.8 * size[0] * np.cos(around), centre[1] + 0.8 * size[1] * np.sin(around)], axis=1
    )
    return Hull(np.concatenate([rim, np.zeros((13, 1))], axis=1), np.zeros(13), colour, -2)
