"""What the figure is made of: its build and clothes, as solids around its joints."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from training.rendered.figure import Joints, vector
from training.rendered.shapes import Colour, Hull, ball, limb
from training.rendered.style import bright, muted

_SKINS: tuple[Colour, ...] = ((244, 208, 177), (224, 172, 105), (198, 134, 66), (141, 85, 36), (92, 58, 38))
_HAIRS: tuple[Colour, ...] = ((30, 22, 18), (70, 45, 25), (140, 100, 50), (205, 175, 110), (150, 150, 150))


@dataclass(frozen=True, slots=True)
class Body:
    """A person's looks.

    Attributes:
        girth: thickness of limbs and trunk; 1 is usual.
        head_m: radius of the head.
        skin: RGB, as all colours here.
        hair: of the hair.
        shirt: of the trunk and the upper arms.
        sleeve: of the forearms.
        trousers: of the hips and thighs.
        shin: of the lower legs.
        shoe: of the feet.
        skirt: whether the hips wear one.
        long_hair: whether the hair falls to the shoulders.
    """

    girth: float
    head_m: float
    skin: Colour
    hair: Colour
    shirt: Colour
    sleeve: Colour
    trousers: Colour
    shin: Colour
    shoe: Colour
    skirt: bool
    long_hair: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Return a random person."""
        skin = _SKINS[rng.integers(len(_SKINS))]
        shirt = bright(rng) if rng.random() < 0.6 else muted(rng)
        trousers = muted(rng) if rng.random() < 0.75 else bright(rng)
        return cls(
            girth=float(rng.uniform(0.85, 1.3)),
            head_m=float(rng.uniform(0.105, 0.13)),
            skin=skin,
            hair=_HAIRS[rng.integers(len(_HAIRS))],
            shirt=shirt,
            sleeve=skin if rng.random() < 0.5 else shirt,
            trousers=trousers,
            shin=skin if rng.random() < 0.35 else trousers,
            shoe=muted(rng),
            skirt=bool(rng.random() < 0.2),
            long_hair=bool(rng.random() < 0.4),
        )

    def solids(self, joints: Joints) -> list[Hull]:
        """Return the figure."""
        return [
            *self._trunk(joints),
            *self._head(joints),
            *self._limbs(joints, "left"),
            *self._limbs(joints, "right"),
        ]

    def _trunk(self, joints: Joints) -> list[Hull]:
        shoulders = np.stack([joints["left_shoulder"], joints["right_shoulder"]])
        hips = np.stack([joints["left_hip"], joints["right_hip"]])
        girth = self.girth
        waist = 0.35 * shoulders.mean(axis=0) + 0.65 * hips.mean(axis=0)
        chest = np.concatenate([shoulders * 0.92 + 0.08 * waist, waist[None]])
        pants = np.concatenate([hips, waist[None]])
        trunk = [
            Hull(pants, np.array([0.1, 0.1, 0.105]) * girth, self.trousers),
            Hull(chest, np.array([0.085, 0.085, 0.125]) * girth, self.shirt),
        ]
        if self.skirt:
            knees = np.stack([joints["left_knee"], joints["right_knee"]])
            hem = np.concatenate([hips, 0.35 * hips + 0.65 * knees])
            trunk.append(Hull(hem, np.array([0.12, 0.12, 0.13, 0.13]) * girth, self.trousers))
        return trunk

    def _head(self, joints: Joints) -> list[Hull]:
        radius = self.head_m
        head = [
            limb(joints["neck"], joints["head"], 0.055 * self.girth, self.skin),
            limb(
                joints["head"],
                joints["face"] - vector(0, 0, 0.03),
                radius * 0.95,
                self.skin,
                end_radius=radius * 0.72,
            ),
            ball(joints["crown"], radius * 1.04, self.hair),
        ]
        head += [
            ball(joints[f"{side}_eye"] + vector(0, 0, 0.01), 0.012, (35, 28, 25))
            for side in ("left", "right")
        ]
        if self.long_hair:
            head.append(limb(joints["crown"], joints["nape"], radius, self.hair, end_radius=radius * 0.8))
        return head

    def _limbs(self, joints: Joints, side: str) -> list[Hull]:
        shoulder, elbow, hand = (joints[f"{side}_{name}"] for name in ("shoulder", "elbow", "hand"))
        hip, knee, ankle = (joints[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        girth = self.girth
        return [
            limb(shoulder, elbow, 0.062 * girth, self.shirt, end_radius=0.048 * girth),
            limb(elbow, hand, 0.046 * girth, self.sleeve, end_radius=0.034 * girth),
            limb(hand, hand + 0.12 * (hand - elbow), 0.046, self.skin),
            limb(hip, knee, 0.092 * girth, self.trousers, end_radius=0.066 * girth),
            limb(knee, ankle, 0.062 * girth, self.shin, end_radius=0.044 * girth),
            limb(ankle, joints[f"{side}_toe"], 0.052, self.shoe, end_radius=0.042),
        ]
