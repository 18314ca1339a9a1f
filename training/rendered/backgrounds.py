"""Places: pictures larger than the frame, so that a shaking camera stays inside them."""

import cv2
import numpy as np
import numpy.typing as npt

from training.rendered.shapes import Colour, Image
from training.rendered.style import bright, muted

_Field = npt.NDArray[np.float32]


def _noise(rng: np.random.Generator, width: int, height: int, cells: int) -> _Field:
    """Return smooth noise in about [-1, 1], shape (height, width), with `cells` features across."""
    coarse = rng.uniform(-1, 1, (max(2, cells * height // width), max(2, cells))).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _cloudy(rng: np.random.Generator, width: int, height: int, cells: int) -> _Field:
    """Return noise of four octaves, shape (height, width)."""
    octaves = (0.5**level * _noise(rng, width, height, cells * 2**level) for level in range(4))
    return np.asarray(sum(octaves), dtype=np.float32)


def _tinted(field: _Field, dark: Colour, light: Colour) -> Image:
    """Return the noise as an image between two colours, uint8 [H, W, 3]."""
    share = np.clip(0.5 + 0.5 * field, 0, 1)[..., None]
    mixed = (1 - share) * np.array(dark) + share * np.array(light)
    return np.asarray(mixed, dtype=np.uint8)


def _vertical(image: Image, top: Colour, bottom: Colour) -> None:
    """Fill the image with a gradient."""
    share = np.linspace(0, 1, image.shape[0])[:, None, None]
    image[:] = ((1 - share) * np.array(top) + share * np.array(bottom)).astype(np.uint8)


def _ground(rng: np.random.Generator, image: Image, horizon: int, dark: Colour, light: Colour) -> None:
    """Cover everything below the horizon with a plain or a rough texture, lighter towards the viewer."""
    height, width = image.shape[:2]
    depth = height - horizon
    if depth <= 1:
        return
    rough = rng.uniform(0.1, 0.8) * _cloudy(rng, width, depth, int(rng.integers(6, 40)))
    nearer = np.linspace(-0.3, 0.3, depth, dtype=np.float32)[:, None]
    image[horizon:] = _tinted(rough + nearer, dark, light)


def _rectangle(
    rng: np.random.Generator, image: Image, base: int, tall: tuple[float, float], colour: Colour
) -> None:
    height, width = image.shape[:2]
    left, wide = int(rng.integers(-20, width)), int(rng.integers(width // 16, width // 3))
    top = base - int(rng.uniform(*tall) * height)
    cv2.rectangle(image, (left, top), (left + wide, base), colour, -1)
    rows, columns = int(rng.integers(0, 5)), int(rng.integers(1, 5))
    pane = muted(rng)
    for row in range(rows):
        for column in range(columns):
            x = left + (2 * column + 1) * wide // (2 * columns + 1)
            y = top + (2 * row + 1) * (base - top) // (2 * rows + 1)
            cv2.rectangle(
                image, (x, y), (x + wide // (3 * columns), y + (base - top) // (3 * rows + 1)), pane, -1
            )


def _trees(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(3, 14))):
        x, size = int(rng.integers(0, width)), int(rng.uniform(0.06, 0.22) * height)
        cv2.line(image, (x, horizon + 3), (x, horizon - size), (70, 52, 38), max(2, size // 9))
        for _ in range(7):
            green = (int(rng.integers(15, 80)), int(rng.integers(60, 140)), int(rng.integers(15, 60)))
            at = (x + int(rng.normal(0, size / 3)), horizon - size - int(rng.normal(0, size / 4)))
            cv2.circle(image, at, int(rng.uniform(0.25, 0.5) * size), green, -1, cv2.LINE_AA)


def _outdoors(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    sky = (int(rng.integers(90, 200)), int(rng.integers(140, 220)), int(rng.integers(180, 250)))
    _vertical(image, sky, (225, 228, 230))
    clouds = np.clip(_cloudy(rng, width, height, 4), 0, 1)[..., None] * rng.uniform(0, 0.9)
    image[:] = (image + clouds * (245 - image.astype(np.float32))).astype(np.uint8)
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 7))):
            _rectangle(rng, image, horizon + 2, (0.08, 0.5), muted(rng))
    if rng.random() < 0.7:
        _trees(rng, image, horizon)
    lawn = rng.random() < 0.55
    light = (
        (int(rng.integers(70, 140)), int(rng.integers(130, 190)), int(rng.integers(50, 90)))
        if lawn
        else muted(rng)
    )
    dark = (light[0] * 6 // 10, light[1] * 6 // 10, light[2] * 6 // 10)
    _ground(rng, image, horizon, dark, light)


def _indoors(rng: np.random.Generator, image: Image, horizon: int) -> None:
    height, _ = image.shape[:2]
    wall = muted(rng) if rng.random() < 0.7 else bright(rng)
    _vertical(image, wall, (wall[0] * 7 // 10, wall[1] * 7 // 10, wall[2] * 7 // 10))
    skirting = min(height - 1, horizon + int(rng.uniform(0.05, 0.2) * height))
    for _ in range(int(rng.integers(2, 8))):
        colour = muted(rng) if rng.random() < 0.7 else bright(rng)
        _rectangle(
            rng, image, int(rng.integers(height // 5, max(height // 5 + 1, skirting))), (0.08, 0.4), colour
        )
    wood = muted(rng)
    _ground(rng, image, skirting, (wood[0] * 7 // 10, wood[1] * 7 // 10, wood[2] * 7 // 10), wood)
    for _ in range(int(rng.integers(0, 4))):
        _rectangle(rng, image, skirting + int(rng.integers(4, 40)), (0.1, 0.4), muted(rng))


def _stands(rng: np.random.Generator, image: Image, horizon: int) -> None:
    """A field before rows of spectators."""
    height, width = image.shape[:2]
    specks = rng.integers(20, 210, (max(2, height // 6), width // 5, 3), dtype=np.uint8)
    image[:] = cv2.resize(specks, (width, height), interpolation=cv2.INTER_LINEAR)
    board = bright(rng)
    cv2.rectangle(image, (0, horizon - int(0.1 * height)), (width, horizon + 2), board, -1)
    green = (int(rng.integers(40, 100)), int(rng.integers(110, 170)), int(rng.integers(30, 70)))
    court = green if rng.random() < 0.7 else (190, 135, 80)
    _ground(rng, image, horizon, (court[0] * 8 // 10, court[1] * 8 // 10, court[2] * 8 // 10), court)


def _abstract(rng: np.random.Generator, image: Image, horizon: int) -> None:
    """Blurred shapes on a texture: a place out of focus."""
    height, width = image.shape[:2]
    image[:] = _tinted(_cloudy(rng, width, height, int(rng.integers(2, 8))), muted(rng), muted(rng))
    for _ in range(int(rng.integers(3, 12))):
        at = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(rng.integers(10, width // 5)), int(rng.integers(10, height // 4)))
        colour = muted(rng) if rng.random() < 0.7 else bright(rng)
        cv2.ellipse(image, at, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    _ground(rng, image, horizon, muted(rng), muted(rng))


_PLACES = (_outdoors, _indoors, _stands, _abstract)


def background(rng: np.random.Generator, width: int, height: int, horizon: int) -> Image:
    """Return a random place.

    Args:
        rng: the only source of chance.
        width: pixels.
        height: pixels.
        horizon: row where the ground ends; may lie outside the image.

    Returns:
        RGB, uint8 [height, width, 3].
    """
    image: Image = np.zeros((height, width, 3), dtype=np.uint8)
    place = _PLACES[int(rng.choice(len(_PLACES), p=[0.4, 0.35, 0.12, 0.13]))]
    place(rng, image, int(np.clip(horizon, height // 8, height - 1)))
    image = np.clip(image + 9 * _noise(rng, width, height, width // 3)[..., None], 0, 255).astype(np.uint8)
    if rng.random() < 0.55:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.7, 2.5))), dtype=np.uint8)
    return image
