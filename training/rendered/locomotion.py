"""Movements of the whole body: each gives a pose at a phase, and the things around the figure."""

from dataclasses import replace

import numpy as np

from training.rendered.figure import Joints, Pose, Vector, between, neck_base, vector
from training.rendered.shapes import Hull, ball, box, limb
from training.rendered.style import Style


def _step(phase: float, stride: float, lift: float, kick: float, stance: float) -> tuple[float, float]:
    """Return an ankle's (forward, height above its rest) in a gait cycle that begins as the foot lands.

    Args:
        phase: cycles.
        stride: how far before and behind the pelvis the foot goes, metres.
        lift: height of the foot as it swings through.
        kick: extra height behind the body.
        stance: share of the cycle on the ground.
    """
    phase %= 1.0
    if phase < stance:
        return stride * (1 - 2 * phase / stance), 0.0
    swing = (phase - stance) / (1 - stance)
    return -stride * np.cos(np.pi * swing), lift * np.sin(np.pi * swing) + kick * np.sin(
        np.pi * swing**0.6
    ) ** 2


def walk(phase: float, style: Style) -> Pose:
    """Stride at an even pace; one cycle is two steps."""
    stride = 0.34 * style.amplitude
    (left, left_up), (right, right_up) = (_step(phase + o, stride, 0.07, 0.05, 0.55) for o in (0, 0.5))
    swing = 0.26 * style.amplitude * np.cos(2 * np.pi * phase)
    return Pose(
        root=vector(2 * stride / 0.55 * phase, 0, 0),
        pelvis=vector(0, 0, 0.94 + 0.02 * np.cos(4 * np.pi * (phase - 0.25))),
        lean=0.06,
        twist=0.12 * np.cos(2 * np.pi * phase),
        left_foot=vector(left, 0.09, 0.08 + left_up),
        right_foot=vector(right, -0.09, 0.08 + right_up),
        left_hand=vector(0.05 - swing, 0.26, -0.53 + 0.12 * abs(swing)),
        right_hand=vector(0.05 + swing, -0.26, -0.53 + 0.12 * abs(swing)),
    )


def run(phase: float, style: Style) -> Pose:
    """Run: bent elbows, high knees, both feet off the ground between steps."""
    stride = 0.52 * style.amplitude
    (left, left_up), (right, right_up) = (_step(phase + o, stride, 0.22, 0.3, 0.36) for o in (0, 0.5))
    swing = 0.3 * style.amplitude * np.cos(2 * np.pi * phase)
    return Pose(
        root=vector(2 * stride / 0.36 * phase, 0, 0),
        pelvis=vector(0, 0, 0.9 + 0.06 * np.cos(4 * np.pi * (phase - 0.18 - 0.25))),
        lean=0.24,
        twist=0.3 * np.cos(2 * np.pi * phase),
        nod=-0.15,
        left_foot=vector(left, 0.07, 0.09 + left_up),
        right_foot=vector(right, -0.07, 0.09 + right_up),
        left_hand=vector(0.14 - swing, 0.22, -0.3 - 0.35 * swing),
        right_hand=vector(0.14 + swing, -0.22, -0.3 + 0.35 * swing),
        left_elbow=vector(-1, 0.4, -0.4),
        right_elbow=vector(-1, -0.4, -0.4),
    )


def jump(phase: float, style: Style) -> Pose:
    """Crouch, swing the arms, fly and land, on the spot or forwards."""
    height, length = 0.5 * style.amplitude, 1.5 * style.variant
    crouch = Pose(pelvis=vector(-0.15, 0, 0.58), lean=0.85, nod=-0.5)
    crouch = replace(crouch, left_hand=vector(-0.4, 0.25, -0.35), right_hand=vector(-0.4, -0.25, -0.35))
    launch = Pose(pelvis=vector(0.1, 0, 1.02), lean=0.1)
    launch = replace(launch, left_hand=vector(0.2, 0.24, 0.5), right_hand=vector(0.2, -0.24, 0.5))
    tuck = replace(
        launch,
        pelvis=vector(0, 0, 0.96),
        root=vector(length / 2, 0, height),
        lean=0.25,
        left_foot=vector(-0.05 - 0.25 * style.variant, 0.12, 0.42),
        right_foot=vector(0.15, -0.12, 0.36),
    )
    landing = replace(crouch, root=vector(length, 0, 0), pelvis=vector(-0.1, 0, 0.66), lean=0.6)
    landing = replace(landing, left_hand=vector(0.4, 0.25, -0.2), right_hand=vector(0.4, -0.25, -0.2))
    end = Pose(root=vector(length, 0, 0))
    keys = [(0.0, Pose()), (0.25, crouch), (0.38, launch), (0.55, tuck), (0.74, landing), (1.0, end)]
    return between(keys, phase)


_SEAT_M = 0.46


def sit(phase: float, style: Style) -> Pose:
    """Go down onto a seat."""
    low = vector(-0.42, 0, _SEAT_M + 0.1)
    bent = Pose(pelvis=vector(-0.3, 0, 0.72), lean=0.75 * style.amplitude, nod=-0.3)
    bent = replace(bent, left_hand=vector(0.35, 0.2, -0.38), right_hand=vector(0.35, -0.2, -0.38))
    seated = Pose(
        pelvis=low, lean=-0.05, left_hand=vector(0.36, 0.2, -0.38), right_hand=vector(0.36, -0.2, -0.38)
    )
    return between([(0.0, Pose()), (0.55, bent), (1.0, seated)], phase)


def stand(phase: float, style: Style) -> Pose:
    """Get up from a seat."""
    return sit(1 - phase, style)


def seat(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return a chair, or a bench without a back, behind the figure's knees."""
    del joints, phase
    at, colour = vector(-0.47, 0, 0), style.prop_colour
    things = box(at + vector(0, 0, _SEAT_M - 0.04), vector(0.44, 0.46, 0.06), colour, layer=-1)
    if style.variant < 0.7:
        things += box(at + vector(-0.22, 0, _SEAT_M + 0.26), vector(0.05, 0.46, 0.5), colour, layer=-1)
    legs = [at + vector(x, y, 0) for x in (-0.19, 0.19) for y in (-0.2, 0.2)]
    return things + [
        Hull(np.stack([leg, leg + vector(0, 0, _SEAT_M - 0.06)]), np.full(2, 0.02), style.second_colour, -1)
        for leg in legs
    ]


_BOX_M = vector(0.7, 0.8, 1.05)


def push(phase: float, style: Style) -> Pose:
    """Lean into a load and drive it forward with short steps."""
    stride = 0.22 * style.amplitude
    (left, left_up), (right, right_up) = (_step(phase + o, stride, 0.06, 0.03, 0.6) for o in (0, 0.5))
    hands = vector(0.42, 0, 0.2)
    return Pose(
        root=vector(2 * stride / 0.6 * phase, 0, 0),
        pelvis=vector(-0.1, 0, 0.83 + 0.015 * np.cos(4 * np.pi * phase)),
        lean=0.62,
        nod=-0.35,
        left_foot=vector(left - 0.45, 0.11, 0.08 + left_up),
        right_foot=vector(right - 0.45, -0.11, 0.08 + right_up),
        left_hand=hands + vector(0, 0.19, -0.16),
        right_hand=hands + vector(0, -0.19, -0.16),
        left_elbow=vector(-0.2, 1, -0.6),
        right_elbow=vector(-0.2, -1, -0.6),
    )


def load(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return what is pushed: a crate, or a cart with a handle, before the hands."""
    del phase
    hands = (joints["left_hand"] + joints["right_hand"]) / 2
    if style.variant < 0.6:
        return box(vector(hands[0] + 0.06 + _BOX_M[0] / 2, 0, _BOX_M[2] / 2), _BOX_M, style.prop_colour)
    body = box(vector(hands[0] + 0.75, 0, 0.62), vector(0.8, 0.55, 0.5), style.prop_colour)
    wheels = [
        ball(vector(hands[0] + x, y, 0.12), 0.12, (30, 30, 30)) for x in (0.5, 1.0) for y in (-0.25, 0.25)
    ]
    rails = [
        limb(hands + vector(0, y, 0), vector(hands[0] + 0.4, y, 0.75), 0.02, style.second_colour)
        for y in (-0.2, 0.2)
    ]
    return [*wheels, *body, *rails]


def pick(phase: float, style: Style) -> Pose:
    """Bend down, take something from the ground, come back up with it."""
    down = Pose(
        pelvis=vector(-0.18, 0, 0.66),
        lean=1.15,
        nod=0.1,
        right_hand=vector(0.1, -0.12, -0.62),
        left_hand=vector(-0.02, 0.3, -0.35),
    )
    held = Pose(right_hand=vector(0.34, -0.12, -0.24 + 0.1 * style.variant), nod=0.25)
    return between([(0.0, Pose(nod=0.2)), (0.48, down), (0.58, down), (1.0, held)], phase)


def picked(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the thing on the ground, then in the hand."""
    down = pick(0.55, style)
    ground = neck_base(down.pelvis, down.lean) + vector(0.1, -0.12, 0)
    place = joints["right_hand"] if phase > 0.55 else vector(ground[0], ground[1], 0.1)
    return [ball(place, 0.09, style.prop_colour)]


_BAR_M = 2.35


def pullup(phase: float, style: Style) -> Pose:
    """Hang from a bar and pull the chin over it; one cycle is up and down."""
    effort = (0.5 - 0.5 * np.cos(2 * np.pi * phase)) ** 0.8 * min(style.amplitude, 1.0)
    pelvis = vector(0.02, 0, 1.26 + 0.5 * effort)
    neck = neck_base(pelvis, -0.05)
    legs = 0.12 + 0.3 * style.variant
    grip = 0.27 + 0.12 * style.variant
    return Pose(
        pelvis=pelvis,
        lean=-0.05,
        nod=-0.2,
        left_hand=vector(0.08, grip, _BAR_M) - neck,
        right_hand=vector(0.08, -grip, _BAR_M) - neck,
        left_elbow=vector(0.2, 1, -0.6),
        right_elbow=vector(0.2, -1, -0.6),
        left_foot=pelvis + vector(-legs, 0.08, -0.86 + legs / 3),
        right_foot=pelvis + vector(-legs - 0.05, -0.08, -0.84 + legs / 3),
    )


def bar(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the bar, with posts or without."""
    del joints, phase
    left, right = vector(0.08, 0.9, _BAR_M), vector(0.08, -0.9, _BAR_M)
    things = [limb(left, right, 0.025, style.second_colour)]
    if style.variant > 0.4:
        things += [limb(end, end - vector(0, 0, _BAR_M), 0.035, style.second_colour) for end in (left, right)]
    return things


_TREAD_M, _RISE_M, _NUM_STEPS = 0.3, 0.19, 14


def climb_stairs(phase: float, style: Style) -> Pose:
    """Climb; one cycle is two steps of a flight of stairs."""

    def foot(offset: float, side: float) -> Vector:
        whole, part = divmod(phase + offset, 1.0)
        swing = float(np.clip((part - 0.5) / 0.5, 0, 1))
        swing = swing * swing * (3 - 2 * swing)
        step = 2 * (whole + swing - offset)
        arc = 0.2 * np.sin(np.pi * swing)
        return vector(_TREAD_M * (step + 0.35), 0.1 * side, _RISE_M * (step + 1) + 0.08 + arc)

    forward = vector(_TREAD_M * (2 * phase + 0.1), 0, _RISE_M * (2 * phase + 0.35))
    swing = 0.22 * style.amplitude * np.sin(2 * np.pi * phase)
    return Pose(
        root=forward,
        pelvis=vector(0, 0, 0.98),
        lean=0.22,
        left_foot=foot(0.0, 1.0) - forward,
        right_foot=foot(0.5, -1.0) - forward,
        left_hand=vector(0.1 + swing, 0.25, -0.5),
        right_hand=vector(0.1 - swing, -0.25, -0.5),
    )


def stairs(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the flight of stairs, and sometimes its railing."""
    del joints, phase
    things: list[Hull] = []
    for step in range(-3, _NUM_STEPS):
        top = _RISE_M * max(step + 1, 0)
        centre = vector(_TREAD_M * (step + 0.5), 0, top - _RISE_M / 2)
        things += box(centre, vector(_TREAD_M, 1.5, _RISE_M), style.prop_colour, layer=-1)
    if style.variant > 0.5:
        low, high = vector(-0.3, 0.7, 0.75), vector(_TREAD_M * 12, 0.7, 0.95 + _RISE_M * 12)
        things.append(limb(low, high, 0.025, style.second_colour))
    return things
