"""One clip: a performance of the action in a scene, and what the recording does to it."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from sdcom.errors import UnknownNameError
from training.rendered.actions import ACTIONS, Action
from training.rendered.backgrounds import background
from training.rendered.figure import joints
from training.rendered.scene import Scene, shadow
from training.rendered.shapes import Image, paint

FRAMES_PER_SECOND = 25
INTERRUPTED = 0.4
"""Usual share of the clips that have a span of uninformative frames."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """A span of frames that show nothing of the action.

    Attributes:
        start: first frame of the span.
        stop: the frame after its last.
        kind: "dark", "blurred" or "cutaway" (to another place, with nobody in it).
    """

    start: int
    stop: int
    kind: str


@dataclass(frozen=True, slots=True)
class _Take:
    """When the action happens in one clip, and how the camera moves.

    Attributes:
        phases_N: the action's phase at each frame.
        offsets_N2: shift of the picture, pixels.
        zoom_N: magnification, about 1.
    """

    phases_N: npt.NDArray[np.float64]
    offsets_N2: npt.NDArray[np.float64]
    zoom_N: npt.NDArray[np.float64]


def draw_interruption(rng: np.random.Generator, num_frames: int, probability: float) -> Interruption | None:
    """Return a random span of uninformative frames, at most half of the clip, or none."""
    if rng.random() >= probability or num_frames < 4:
        return None
    length = max(1, int(num_frames * rng.uniform(0.15, 0.5)))
    latest = num_frames - length
    start = int(rng.choice(np.array([0, latest, rng.integers(0, latest + 1)])))
    return Interruption(start, start + length, str(rng.choice(["dark", "blurred", "cutaway"])))


def _draw_phases(action: Action, rng: np.random.Generator, num_frames: int) -> npt.NDArray[np.float64]:
    times_s = np.arange(num_frames) / FRAMES_PER_SECOND
    cycle_s = float(rng.uniform(*action.cycle_s))
    if action.repeats:
        return np.asarray(rng.uniform(0, 1) + times_s / cycle_s)
    # Clips are cut to the action, so even the shortest shows most of it.
    first, last = rng.uniform(0, 0.1), rng.uniform(0.92, 1.0)
    length_s = max(min(cycle_s, float(times_s[-1])), 1 / FRAMES_PER_SECOND)
    wait_s = rng.uniform(0, 1) * max(0.0, float(times_s[-1]) - length_s)
    return np.asarray(first + (last - first) * np.clip((times_s - wait_s) / length_s, 0, 1))


def _draw_take(action: Action, scene: Scene, rng: np.random.Generator, num_frames: int) -> _Take:
    phases = _draw_phases(action, rng, num_frames)
    times_s = np.arange(num_frames)[:, None] / FRAMES_PER_SECOND
    shake = np.zeros((num_frames, 2))
    for frequency in (0.4, 1.3, 3.1):
        swing = np.sin(2 * np.pi * (frequency * times_s + rng.uniform(0, 1, 2)))
        shake += scene.shake_px * rng.normal(0, 1 / (1 + frequency), 2) * swing
    middle = np.linspace(-0.5, 0.5, num_frames)
    pan = middle[:, None] * rng.normal(0, 0.05, 2) * scene.background.shape[0] * rng.integers(0, 2)
    roots = np.stack([action.pose(float(phase), scene.style).root for phase in phases])
    on_screen, _ = scene.view.project(roots - roots.mean(axis=0))
    travel = on_screen - on_screen.mean(axis=0)
    return _Take(phases, shake + pan - scene.following * travel, 1 + middle * rng.normal(0, 0.06))


def _draw_frame(
    action: Action, scene: Scene, take: _Take, frame: int, centre: npt.NDArray[np.float64]
) -> Image:
    """Return the scene at one frame before the recording spoils it, as wide and high as twice `centre`."""
    zoom, offset, phase = float(take.zoom_N[frame]), take.offsets_N2[frame], float(take.phases_N[frame])
    width, height = round(2 * centre[0]), round(2 * centre[1])
    shift = centre + offset - zoom * (centre + np.array(scene.margin_px))
    affine = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    image = cv2.warpAffine(scene.background, affine, (width, height), borderMode=cv2.BORDER_REFLECT)
    place = centre + zoom * (np.array(scene.view.centre_px) - centre) + offset
    view = replace(
        scene.view, focal_px=scene.view.focal_px * zoom, centre_px=(float(place[0]), float(place[1]))
    )
    placed = joints(action.pose(phase, scene.style))
    figure = scene.body.solids(placed)
    painted: Image = np.asarray(image, dtype=np.uint8)
    paint(painted, [shadow(figure, scene.ground), *figure, *action.things(placed, phase, scene.style)], view)
    for (left, top), (right, bottom), colour in scene.occluders:
        near = np.round(1.4 * offset).astype(int)
        corner, opposite = (left + int(near[0]), top), (right + int(near[0]), bottom)
        cv2.rectangle(painted, corner, opposite, colour, -1)
    return painted


def _interrupt(image: Image, interruption: Interruption, cutaway: Image) -> Image:
    if interruption.kind == "cutaway":
        return cutaway
    if interruption.kind == "dark":
        return image // np.uint8(16)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), image.shape[0] / 14), dtype=np.uint8)


def _record(image: Image, scene: Scene, grain: npt.NDArray[np.int16], rng: np.random.Generator) -> Image:
    """Return what the camera makes of the picture: lens, sensor, colours, borders."""
    grade, (height, width) = scene.grade, image.shape[:2]
    if grade.blur_px > 0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), grade.blur_px), dtype=np.uint8)
    if grade.grey:
        image = np.asarray(
            cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), dtype=np.uint8
        )
    image = np.asarray(cv2.LUT(image, grade.curve_256[None]), dtype=np.uint8)
    # Noise is a random window of one larger sheet: drawn anew it would cost more than the whole frame.
    row, column = (
        int(rng.integers(0, grain.shape[0] - height + 1)),
        int(rng.integers(0, grain.shape[1] - width + 1)),
    )
    noisy = np.clip(image + grain[row : row + height, column : column + width, None], 0, 255).astype(np.uint8)
    border = int(grade.letterbox * height)
    noisy[:border] = 0
    noisy[height - border :] = 0
    return np.asarray(noisy)


def render_clip(
    action: str,
    rng: np.random.Generator,
    *,
    num_frames: int,
    width: int = 320,
    height: int = 240,
    scene: Scene | None = None,
    interrupted: float = INTERRUPTED,
) -> npt.NDArray[np.uint8]:
    """Return a random clip of a figure that performs the action.

    Args:
        action: one of `ACTIONS`.
        rng: the only source of chance; the same state gives the same frames.
        num_frames: N, at least 1.
        width: pixels.
        height: pixels.
        scene: who, where and before which camera; drawn from `rng` if None.
        interrupted: probability of a span of uninformative frames.

    Returns:
        RGB frames, uint8 [N, height, width, 3].

    Raises:
        UnknownNameError: there is no such action.
        ValueError: a size is below 16 pixels, or there are no frames.
    """
    if action not in ACTIONS:
        raise UnknownNameError("action", action, ACTIONS)
    if num_frames < 1 or min(width, height) < 16:
        raise ValueError(
            f"need at least 1 frame of at least 16x16 pixels, got {num_frames=} {width=} {height=}"
        )
    performed = ACTIONS[action]
    scene = scene or Scene.draw(performed, rng, width, height)
    take = _draw_take(performed, scene, rng, num_frames)
    roots = [performed.pose(float(phase), scene.style).root for phase in take.phases_N]
    scene = replace(scene, view=replace(scene.view, target=scene.view.target + np.mean(roots, axis=0)))
    interruption = draw_interruption(rng, num_frames, interrupted)
    cutaway = background(rng, width, height, height // 2)
    grain = np.round(rng.normal(0, scene.grade.noise, (height + 32, width + 32))).astype(np.int16)
    centre = np.array([width / 2, height / 2])
    frames: npt.NDArray[np.uint8] = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    for index in range(num_frames):
        image = _draw_frame(performed, scene, take, index, centre)
        if scene.mirrored:
            image = np.ascontiguousarray(image[:, ::-1])
        if interruption and interruption.start <= index < interruption.stop:
            image = _interrupt(image, interruption, cutaway)
        frames[index] = _record(image, scene, grain, rng)
    return frames
