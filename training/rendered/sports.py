"""Movements of ball games: each gives a pose at a phase, and the things around the figure."""

from dataclasses import replace

import numpy as np

from training.rendered.figure import Joints, Pose, between, vector
from training.rendered.shapes import Hull, ball, box, curve, limb
from training.rendered.style import Style


def golf(phase: float, style: Style) -> Pose:
    """Take a club back over the right shoulder and swing it through a ball to the left."""
    angle, _ = _golf_angles(phase)
    # The hands ride a circle in a plane that leans forward, around a point between the shoulders.
    sweep = vector(
        0.38 * np.cos(angle) + 0.06, 0.5 * np.sin(angle) * style.amplitude, -0.5 * np.cos(angle) - 0.02
    )
    through = float(np.clip(angle / 2.2, 0, 1))
    return Pose(
        pelvis=vector(-0.08, 0.08 * through, 0.9 + 0.05 * through),
        lean=0.5 - 0.45 * through,
        twist=0.42 * angle,
        nod=0.25 * (1 - through),
        left_hand=sweep,
        right_hand=sweep + vector(0.03, -0.03, -0.06),
        left_foot=vector(0, 0.2, 0.08),
        right_foot=vector(0, -0.2, 0.08 + 0.1 * through),
    )


def _golf_angles(phase: float) -> tuple[float, float]:
    """Return the arms' angle (0 hangs down, positive to the left) and the wrists' extra angle, radians."""
    times = [0.0, 0.12, 0.45, 0.52, 0.66, 0.72, 0.9, 1.0]
    arms = [0.0, 0.0, -2.1, -2.1, -0.1, 0.7, 2.2, 2.3]
    wrists = [0.0, 0.0, -1.3, -1.5, -0.1, 0.3, 1.4, 1.6]
    return float(np.interp(phase, times, arms)), float(np.interp(phase, times, wrists))


def club(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the club and the ball, which flies off once it is struck."""
    arms, wrists = _golf_angles(phase)
    angle = arms + wrists
    along = vector(0.5 * np.cos(angle), np.sin(angle), -0.86 * np.cos(angle))
    hands = (joints["left_hand"] + joints["right_hand"]) / 2
    head = hands + 0.95 * along
    head[2] = max(head[2], 0.03)
    flight = max(0.0, phase - 0.67) * 30
    golf_ball = vector(0.78, flight, 0.03 + 0.35 * flight)
    things = [limb(hands, head, 0.013, (190, 190, 195)), ball(head, 0.05, style.second_colour)]
    return [*things, ball(golf_ball, 0.035, (250, 250, 250))]


def swing_baseball(phase: float, style: Style) -> Pose:
    """Hold a bat over the right shoulder, step and swing it level across the body."""
    steps = [0.0, 0.3, 0.42, 0.5, 0.58, 0.75, 1.0]
    side = float(np.interp(phase, steps, [-0.24, -0.28, -0.12, 0.08, 0.26, 0.36, 0.32]))
    ahead = float(np.interp(phase, steps, [0.16, 0.08, 0.4, 0.52, 0.42, 0.1, 0.0]))
    height = float(np.interp(phase, steps, [0.0, 0.02, -0.2, -0.28, -0.2, 0.02, 0.1]))
    twist = float(np.interp(phase, steps, [-0.35, -0.6, -0.1, 0.4, 0.8, 1.2, 1.3])) * style.amplitude
    stride = float(np.interp(phase, steps, [0.2, 0.34, 0.42, 0.42, 0.42, 0.42, 0.42]))
    lifted = float(np.interp(phase, steps, [0, 0.12, 0, 0, 0, 0, 0]))
    hands = vector(ahead, side, height)
    return Pose(
        pelvis=vector(0, 0.1 * (stride - 0.2), 0.88),
        lean=0.16,
        twist=twist,
        turn=float(np.clip(1.0 - twist, -0.3, 1.3)),
        left_hand=hands - vector(0, 0, 0.05),
        right_hand=hands + vector(0, 0, 0.05),
        left_foot=vector(0, stride, 0.08 + lifted),
        right_foot=vector(0, -0.26, 0.08),
    )


def bat(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the bat and the ball that comes from the left."""
    steps = [0.0, 0.3, 0.42, 0.5, 0.58, 0.75, 1.0]
    sweep = float(np.interp(phase, steps, [-2.2, -2.5, -1.3, 0.0, 1.2, 2.6, 3.1]))
    raised = float(np.interp(phase, steps, [1.2, 1.1, 0.25, 0.0, 0.1, 0.4, 0.6]))
    along = vector(np.cos(sweep) * np.cos(raised), np.sin(sweep) * np.cos(raised), np.sin(raised))
    hands = (joints["left_hand"] + joints["right_hand"]) / 2
    before, after = max(0.0, 0.5 - phase) * 22, max(0.0, phase - 0.5) * 30
    pitch = vector(0.95, before + after, 1.05 + 0.02 * before + 0.25 * after)
    return [
        limb(hands - 0.08 * along, hands + 0.8 * along, 0.02, style.prop_colour, end_radius=0.045),
        ball(pitch, 0.055, (245, 245, 240)),
    ]


def throw(phase: float, style: Style) -> Pose:
    """Wind up and throw overarm."""
    size = style.amplitude
    ready = Pose(right_hand=vector(0.25, -0.1, -0.25), left_hand=vector(0.25, 0.1, -0.25))
    wound = Pose(
        pelvis=vector(-0.12, 0, 0.92),
        lean=-0.18 * size,
        twist=-0.85 * size,
        turn=0.7,
        right_hand=vector(-0.42, -0.2, 0.22),
        right_elbow=vector(-0.3, -1, -0.1),
        left_hand=vector(0.48, 0.1, 0.05),
        left_foot=vector(0.3, 0.12, 0.26),
    )
    over = replace(wound, pelvis=vector(0.1, 0, 0.92), lean=0.15, twist=0.1, turn=0.0)
    over = replace(over, right_hand=vector(0.18, -0.26, 0.5), left_hand=vector(0.1, 0.3, -0.2))
    over = replace(over, left_foot=vector(0.5, 0.12, 0.08))
    after = replace(over, pelvis=vector(0.22, 0, 0.84), lean=0.6, twist=0.75, nod=-0.4)
    after = replace(after, right_hand=vector(0.5, 0.18, -0.3), right_foot=vector(-0.3, -0.1, 0.14))
    return between([(0.0, ready), (0.38, wound), (0.56, over), (0.74, after), (1.0, after)], phase)


def thrown(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the thing in the hand, then on its way."""
    radius = 0.05 + 0.07 * style.variant
    place = joints["right_hand"] + vector(0, 0, radius)
    if phase > 0.58:
        place = vector(0.55, -0.2, 1.95) + (phase - 0.58) * vector(14, 0, 1.5)
    return [ball(place, radius, style.prop_colour)]


def catch(phase: float, style: Style) -> Pose:
    """Reach out for something that flies in, and draw it to the body."""
    height = -0.1 + 0.5 * style.variant
    up = Pose(left_hand=vector(0.5, 0.14, height), right_hand=vector(0.5, -0.14, height), lean=0.08, nod=-0.1)
    held = Pose(
        pelvis=vector(-0.04, 0, 0.9), left_hand=vector(0.28, 0.1, -0.28), right_hand=vector(0.28, -0.1, -0.28)
    )
    held = replace(held, lean=0.2 * style.amplitude, left_foot=vector(-0.2, 0.12, 0.08))
    return between([(0.0, Pose()), (0.35, up), (0.55, up), (0.8, held), (1.0, held)], phase)


def caught(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the ball on its way in, then between the hands."""
    hands = (joints["left_hand"] + joints["right_hand"]) / 2 + vector(0.08, 0, 0.02)
    left = max(0.0, 0.52 - phase)
    return [ball(hands + vector(8.5 * left, 0, 2.2 * left - 4.2 * left**2), 0.12, style.prop_colour)]


def shoot_ball(phase: float, style: Style) -> Pose:
    """Shoot at a basket: dip, rise on the toes and push the ball up off the right hand."""
    dip = Pose(pelvis=vector(-0.08, 0, 0.78), lean=0.25, nod=-0.45)
    dip = replace(dip, left_hand=vector(0.32, 0.1, -0.1), right_hand=vector(0.28, -0.08, -0.1))
    cocked = Pose(left_hand=vector(0.26, 0.12, 0.42), right_hand=vector(0.18, -0.12, 0.42), nod=-0.4)
    cocked = replace(cocked, right_elbow=vector(1, -0.4, -0.3), left_elbow=vector(0.6, 1, -0.3))
    hop = 0.26 * style.amplitude
    shot = replace(cocked, root=vector(0.05, 0, hop), right_hand=vector(0.34, -0.1, 0.66))
    shot = replace(shot, left_hand=vector(0.2, 0.2, 0.45), left_foot=vector(-0.03, 0.12, 0.02))
    shot = replace(shot, right_foot=vector(-0.03, -0.12, 0.02))
    down = replace(shot, root=vector(0.1, 0, 0), left_foot=Pose().left_foot, right_foot=Pose().right_foot)
    return between([(0.0, dip), (0.18, dip), (0.42, cocked), (0.58, shot), (0.74, shot), (1.0, down)], phase)


def basket(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the ball, and a hoop on its board in some gyms."""
    hands = (joints["left_hand"] + joints["right_hand"]) / 2 + vector(0.08, 0, 0.1)
    after = max(0.0, phase - 0.58)
    place = (
        hands if after == 0 else vector(0.45, -0.05, 2.45) + vector(6 * after, 0, 5.5 * after - 8 * after**2)
    )
    things = [ball(place, 0.125, (215, 105, 35))]
    if style.variant > 0.5:
        things += box(vector(3.6, 0, 3.2), vector(0.05, 1.6, 1.0), (235, 235, 235), layer=-1)
        rim = [vector(3.3 + 0.25 * np.cos(a), 0.25 * np.sin(a), 2.85) for a in np.linspace(0, 2 * np.pi, 9)]
        things += curve(rim, 0.02, (230, 80, 30))
    return things


def kick_ball(phase: float, style: Style) -> Pose:
    """Step up to a ball and swing the right foot through it."""
    near = vector(0.0, 0, 0)
    start = Pose(
        root=vector(-0.55, 0, 0), left_foot=vector(-0.1, 0.1, 0.1), right_foot=vector(0.2, -0.1, 0.08)
    )
    wind = Pose(
        root=near,
        lean=0.05,
        twist=-0.35,
        right_foot=vector(-0.58, -0.12, 0.5 * style.amplitude),
        left_foot=vector(0.1, 0.1, 0.08),
        left_hand=vector(0.3, 0.5, -0.15),
        right_hand=vector(-0.35, -0.3, -0.4),
    )
    hit = replace(wind, lean=0.1, twist=0.0, right_foot=vector(0.28, -0.1, 0.1), nod=0.3)
    through = replace(hit, lean=-0.12, twist=0.35, right_foot=vector(0.72, -0.02, 0.72 * style.amplitude))
    through = replace(through, left_hand=vector(-0.3, 0.4, -0.3), right_hand=vector(0.3, -0.3, -0.3))
    rest = replace(through, right_foot=vector(0.4, -0.1, 0.15), root=vector(0.15, 0, 0))
    return between([(0.0, start), (0.32, wind), (0.5, hit), (0.68, through), (1.0, rest)], phase)


def football(joints: Joints, phase: float, style: Style) -> list[Hull]:
    """Return the ball on the ground, then flying."""
    del joints
    flight = max(0.0, phase - 0.5)
    colour = (240, 240, 240) if style.variant < 0.6 else style.prop_colour
    return [ball(vector(0.42, -0.1, 0.12) + flight * vector(14, 0, 4.5), 0.12, colour)]
