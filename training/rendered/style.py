"""How one performance differs from another of the same action."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from training.rendered.shapes import Colour


@dataclass(frozen=True, slots=True)
class Style:
    """The free choices of a performance.

    Attributes:
        amplitude: size of the movement; 1 is usual.
        variant: in [0, 1); picks between ways of doing it.
        prop_colour: RGB of the main thing in it.
        second_colour: RGB of its other parts.
    """

    amplitude: float
    variant: float
    prop_colour: Colour
    second_colour: Colour

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Return a random style."""
        return cls(
            amplitude=float(rng.uniform(0.8, 1.2)),
            variant=float(rng.random()),
            prop_colour=bright(rng),
            second_colour=muted(rng),
        )


def bright(rng: np.random.Generator) -> Colour:
    """Return a saturated colour."""
    channels = rng.permutation([rng.integers(160, 250), rng.integers(40, 220), rng.integers(20, 110)])
    return int(channels[0]), int(channels[1]), int(channels[2])


def muted(rng: np.random.Generator) -> Colour:
    """Return a greyish colour of any lightness."""
    light = int(rng.integers(30, 205))
    red, green, blue = (int(np.clip(light + rng.integers(-28, 29), 0, 255)) for _ in range(3))
    return red, green, blue
