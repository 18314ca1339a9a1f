"""An articulated human figure: a pose in body terms, and the joints that it puts where.

Axes of the figure: x forward (where it looks), y to its left, z up from the ground. Metres, of a person
who is 1.75 tall.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Joints = dict[str, Vector]

_SPINE, _NECK_TO_HEAD = 0.50, 0.23
_THIGH, _SHIN, _FOOT = 0.46, 0.45, 0.17
_UPPER_ARM, _FOREARM = 0.30, 0.29
_HALF_SHOULDERS, _HALF_HIPS = 0.19, 0.10


def vector(x: float, y: float, z: float) -> Vector:
    """Return the three numbers as an array, shape (3,)."""
    return np.array([x, y, z], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Pose:
    """One posture. Distances in metres, angles in radians.

    Attributes:
        root: shift of the whole figure in its world.
        pelvis: position of the pelvis.
        lean: the torso bent forward.
        twist: the shoulders turned to the left.
        tilt: the torso bent to the right.
        nod: the head bent forward, relative to the torso.
        turn: the head turned to the left, relative to the torso.
        left_hand: where the hand wants to be, from the base of the neck; nearer if the arm is too short.
        right_hand: the same.
        left_elbow: which way the elbow points.
        right_elbow: the same.
        left_foot: the ankle's place.
        right_foot: the same.
    """

    root: Vector = field(default_factory=lambda: vector(0, 0, 0))
    pelvis: Vector = field(default_factory=lambda: vector(0, 0, 0.96))
    lean: float = 0.04
    twist: float = 0.0
    tilt: float = 0.0
    nod: float = 0.0
    turn: float = 0.0
    left_hand: Vector = field(default_factory=lambda: vector(0.06, 0.26, -0.54))
    right_hand: Vector = field(default_factory=lambda: vector(0.06, -0.26, -0.54))
    left_elbow: Vector = field(default_factory=lambda: vector(-0.6, 0.5, -0.6))
    right_elbow: Vector = field(default_factory=lambda: vector(-0.6, -0.5, -0.6))
    left_foot: Vector = field(default_factory=lambda: vector(0, 0.12, 0.08))
    right_foot: Vector = field(default_factory=lambda: vector(0, -0.12, 0.08))


def between(keys: Sequence[tuple[float, Pose]], phase: float) -> Pose:
    """Return the pose at `phase` of a movement given by key poses, eased in and out of each.

    Args:
        keys: (phase, pose) pairs in ascending order of phase.
        phase: held at the first and last pose outside their range.
    """
    times = np.array([time for time, _ in keys])
    after = int(np.clip(np.searchsorted(times, phase), 1, len(keys) - 1))
    share = float(np.clip((phase - times[after - 1]) / (times[after] - times[after - 1]), 0, 1))
    share = share * share * (3 - 2 * share)
    old, new = keys[after - 1][1], keys[after][1]
    return Pose(
        **{f.name: (1 - share) * getattr(old, f.name) + share * getattr(new, f.name) for f in fields(Pose)}
    )


def neck_base(pelvis: Vector, lean: float) -> Vector:
    """Return where the neck begins above a pelvis, for an untwisted torso; shape (3,)."""
    return pelvis + _SPINE * vector(np.sin(lean), 0, np.cos(lean))


def _rotation(lean: float, twist: float, tilt: float) -> npt.NDArray[np.float64]:
    """Return the matrix that turns upright directions into the torso's: tilt, then lean, then twist."""
    (sl, st, si), (cl, ct, ci) = np.sin([lean, twist, tilt]), np.cos([lean, twist, tilt])
    about_y = np.array([[cl, 0, sl], [0, 1, 0], [-sl, 0, cl]])
    about_z = np.array([[ct, -st, 0], [st, ct, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, ci, si], [0, -si, ci]])
    rotation: npt.NDArray[np.float64] = about_z @ about_y @ about_x
    return rotation


def _bend(start: Vector, target: Vector, upper: float, lower: float, pole: Vector) -> tuple[Vector, Vector]:
    """Return the middle joint and the end of a two-bone limb that reaches from `start` towards `target`."""
    reach = target - start
    distance = float(np.clip(np.linalg.norm(reach), abs(upper - lower) + 0.05, 0.999 * (upper + lower)))
    along = reach / max(float(np.linalg.norm(reach)), 1e-6)
    sideways = pole - (pole @ along) * along
    sideways /= max(float(np.linalg.norm(sideways)), 1e-6)
    foot_of_height = (upper**2 - lower**2 + distance**2) / (2 * distance)
    height = np.sqrt(max(upper**2 - foot_of_height**2, 0.0))
    return start + foot_of_height * along + height * sideways, start + distance * along


def joints(pose: Pose) -> Joints:
    """Return every joint's place by name, each of shape (3,), for a person 1.75 m tall."""
    torso = _rotation(pose.lean, pose.twist, pose.tilt)
    hips = _rotation(0.0, 0.35 * pose.twist, 0.0)
    neck = pose.pelvis + _SPINE * torso[:, 2]
    head_frame = torso @ _rotation(pose.nod, pose.turn, 0.0)
    head = neck + _NECK_TO_HEAD * head_frame[:, 2]
    placed = {"pelvis": pose.pelvis, "neck": neck, "head": head}
    placed |= {"face": head + 0.05 * head_frame[:, 0], "crown": head - 0.035 * head_frame[:, 0]}
    placed["crown"] = placed["crown"] + 0.035 * head_frame[:, 2]
    for side, sign in (("left", 1.0), ("right", -1.0)):
        placed[f"{side}_eye"] = head + 0.12 * head_frame[:, 0] + sign * 0.05 * head_frame[:, 1]
    placed["nape"] = head - 0.06 * head_frame[:, 0] - 0.12 * head_frame[:, 2]
    for side, sign in (("left", 1.0), ("right", -1.0)):
        shoulder = neck - 0.04 * torso[:, 2] + sign * _HALF_SHOULDERS * torso[:, 1]
        hip = pose.pelvis + sign * _HALF_HIPS * hips[:, 1]
        hand_target = neck + getattr(pose, f"{side}_hand")
        elbow, hand = _bend(shoulder, hand_target, _UPPER_ARM, _FOREARM, getattr(pose, f"{side}_elbow"))
        ankle_target = getattr(pose, f"{side}_foot")
        knee, ankle = _bend(hip, ankle_target, _THIGH, _SHIN, hips @ vector(1, 0.15 * sign, 0.1))
        shin = (ankle - knee) / _SHIN
        forward = hips[:, 0] - (hips[:, 0] @ shin) * shin * 0.8
        toe = ankle + _FOOT * forward / max(float(np.linalg.norm(forward)), 1e-6) - vector(0, 0, 0.03)
        placed |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_hand": hand}
        placed |= {f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle, f"{side}_toe": toe}
    return {name: place + pose.root for name, place in placed.items()}
