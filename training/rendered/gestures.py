"""Movements of the arms and of things in the hands: each gives a pose at a phase, and the things."""

from dataclasses import replace

import numpy as np

from training.rendered.figure import Joints, Pose, vector
from training.rendered.shapes import Hull, ball, box, curve, limb
from training.rendered.style import Style


def wave(phase: float, style: Style) -> Pose:
    """Swing a raised hand from side to side."""
    swing = 0.2 * style.amplitude * np.sin(2 * np.pi * phase)
    high = 0.3 + 0.22 * style.variant
    return Pose(
        right_hand=vector(0.12, -0.4 - swing, high - 0.35 * abs(swing)),
        right_elbow=vector(-0.1, -1, -0.9),
        tilt=0.05 - 0.15 * swing,
    )


def clap(phase: float, style: Style) -> Pose:
    """Strike the palms together before the chest."""
    gap = 0.02 + 0.22 * style.amplitude * abs(np.sin(np.pi * phase))
    height = -0.22 + 0.3 * style.variant
    return Pose(
        left_hand=vector(0.36, gap, height),
        right_hand=vector(0.36, -gap, height),
        left_elbow=vector(-0.3, 0.8, -0.8),
        right_elbow=vector(-0.3, -0.8, -0.8),
    )


def brush_hair(phase: float, style: Style) -> Pose:
    """Draw a brush from the top of the head down the hair, again and again."""
    cycle = phase % 1.0
    down = cycle / 0.65 if cycle < 0.65 else 1 - (cycle - 0.65) / 0.35
    away = 0.0 if cycle < 0.65 else 0.12 * np.sin(np.pi * (cycle - 0.65) / 0.35)
    return Pose(
        right_hand=vector(0.06 - 0.04 * down, -0.13 - 0.08 * np.sin(np.pi * down) - away, 0.36 - 0.46 * down),
        right_elbow=vector(0.1, -1, -0.25),
        left_hand=vector(0.12, 0.16, 0.02 + 0.15 * style.variant),
        left_elbow=vector(0.1, 1, -0.7),
        tilt=0.14,
    )


def brush(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the brush in the right hand."""
    del phase
    hand = joints["right_hand"]
    inwards = joints["crown"] - hand
    inwards = inwards / max(float(np.linalg.norm(inwards)), 1e-6)
    tip = hand + vector(0.02, 0.03, 0.13)
    return [
        limb(hand, tip, 0.022, style.prop_colour),
        limb(tip, tip + 0.02 * inwards, 0.045, style.prop_colour),
    ]


def shoot_bow(phase: float, style: Style) -> Pose:
    """Draw a bow to the left, hold, and let go."""
    drawn = float(np.interp(phase, [0.05, 0.55, 1.0], [0.0, 1.0, 1.0]))
    loosed = float(np.interp(phase, [0.76, 0.82], [0.0, 1.0]))
    raised = 0.06 * style.variant
    return Pose(
        twist=-0.15,
        turn=1.15,
        left_hand=vector(0.1, 0.74, raised),
        left_elbow=vector(0, 0.3, -1),
        right_hand=vector(0.14 - 0.06 * loosed, 0.45 - 0.55 * drawn - 0.14 * loosed, 0.06 + raised),
        right_elbow=vector(-0.1, -1, 0.35),
        left_foot=vector(0, 0.22, 0.08),
        right_foot=vector(0, -0.22, 0.08),
    )


def bow(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the bow, its string and the arrow."""
    grip, pull = joints["left_hand"], joints["right_hand"]
    bend = 0.14 + 0.1 * float(np.interp(phase, [0.05, 0.55, 0.76, 0.8], [0, 1, 1, 0]))
    arc = [grip + vector(0, -bend * height**2, 0.68 * height) for height in np.linspace(-1, 1, 9)]
    rest = (arc[0] + arc[-1]) / 2
    loosed = phase > 0.78
    nock = rest if loosed else pull
    things = curve(arc, 0.022, style.prop_colour)
    things += [limb(arc[0], nock, 0.006, (235, 235, 235)), limb(nock, arc[-1], 0.006, (235, 235, 235))]
    tail = nock + vector(0, max(0.0, phase - 0.78) * 60, 0)
    return [*things, limb(tail, tail + vector(0, 0.75, 0), 0.009, style.second_colour)]


def shoot_gun(phase: float, style: Style) -> Pose:
    """Aim with both arms and take the kick of each shot."""
    kick = _recoil(phase) * style.amplitude
    hands = vector(0.56 - 0.08 * kick, 0.0, 0.0 + 0.13 * kick)
    return Pose(
        lean=0.1 - 0.1 * kick,
        twist=0.25 if style.variant > 0.5 else 0.0,
        left_hand=hands + vector(-0.02, 0.03, -0.05),
        right_hand=hands + vector(0, -0.02, 0),
        left_elbow=vector(-0.2, 0.6, -1),
        right_elbow=vector(-0.2, -0.6, -1),
        left_foot=vector(0.16, 0.16, 0.08),
        right_foot=vector(-0.14, -0.16, 0.08),
    )


def _recoil(phase: float) -> float:
    """Return 1 just after each shot, falling to 0 before the next; one cycle is a shot."""
    since = (phase - 0.3) % 1.0
    return float(np.interp(since, [0.0, 0.1, 0.7], [0.0, 1.0, 0.0]))


def gun(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return a pistol or a rifle, and the flash of a shot."""
    hand = joints["right_hand"] + vector(0.03, 0, 0.03)
    raised = 0.45 * _recoil(phase)
    along = vector(np.cos(raised), 0, np.sin(raised))
    length = 0.24 if style.variant < 0.6 else 0.62
    steel = (45, 45, 50)
    muzzle = hand + length * along
    things = [limb(hand, muzzle, 0.028, steel), limb(hand, hand - vector(0.03, 0, 0.11), 0.028, steel)]
    if length > 0.5:
        things.append(limb(hand, hand - 0.36 * along, 0.035, style.second_colour))
    if (phase - 0.3) % 1.0 < 0.09:
        things += [
            ball(muzzle + 0.1 * along, 0.11, (255, 215, 90)),
            ball(muzzle + 0.08 * along, 0.06, (255, 255, 230)),
        ]
    return things


def pour(phase: float, style: Style) -> Pose:
    """Raise a bottle with the right hand and tip it over a cup on a table."""
    raised = float(np.interp(phase, [0.0, 0.3, 0.9, 1.0], [0.0, 1.0, 1.0, 0.8]))
    height = -0.34 + 0.24 * raised
    return Pose(
        lean=0.12,
        nod=0.35,
        right_hand=vector(0.36, -0.26 + 0.06 * raised, height),
        right_elbow=vector(-0.2, -1, -0.25),
        left_hand=vector(0.4, 0.12, -0.42) if style.variant > 0.4 else vector(0.3, 0.34, -0.5),
    )


def drink(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the table, the cup, the bottle and what runs out of it."""
    hand = joints["right_hand"]
    tipped = float(np.interp(phase, [0.1, 0.35, 0.9, 1.0], [0.25, 1.9, 2.1, 1.6])) * min(1.0, style.amplitude)
    along = vector(0.1, np.sin(tipped), np.cos(tipped))
    mouth = hand + 0.24 * along
    cup = vector(hand[0] + 0.02, 0.09, 0.94)
    table = box(vector(0.72, 0, 0.86), vector(0.75, 1.5, 0.05), style.second_colour, layer=1)
    things = [limb(hand - 0.12 * along, hand + 0.12 * along, 0.055, style.prop_colour)]
    things.append(limb(hand + 0.12 * along, mouth, 0.024, style.prop_colour))
    things.append(limb(cup, cup + vector(0, 0, 0.12), 0.05, (235, 235, 235), end_radius=0.065))
    if tipped > 1.55:
        things.append(limb(mouth, vector(cup[0], cup[1], cup[2] + 0.1), 0.012, (150, 90, 40)))
    return table + [replace(thing, layer=1) for thing in things]
