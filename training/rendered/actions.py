"""The actions that can be performed, each with its pace, the views that show it and the things it needs."""

from collections.abc import Callable
from dataclasses import dataclass

from training.rendered import gestures, locomotion, sports
from training.rendered.figure import Joints, Pose
from training.rendered.shapes import Hull
from training.rendered.style import Style


def _nothing(joints: Joints, phase: float, style: Style) -> list[Hull]:
    del joints, phase, style
    return []


@dataclass(frozen=True, slots=True)
class Action:
    """One action.

    Attributes:
        pose: the figure at a phase.
        cycle_s: shortest and longest seconds of a cycle, or of the whole movement if it does not repeat.
        repeats: whether the phase runs on after 1; otherwise the last pose is held.
        yaw_deg: least and most degrees to the side from which it is seen; 0 is from the front.
        close_up: probability that only the upper body is in the picture.
        things: what the figure handles or stands before.
        height_m: how high the movement reaches, which the picture must show.
    """

    pose: Callable[[float, Style], Pose]
    cycle_s: tuple[float, float]
    repeats: bool
    yaw_deg: tuple[float, float]
    close_up: float = 0.0
    things: Callable[[Joints, float, Style], list[Hull]] = _nothing
    height_m: float = 1.8


ACTIONS: dict[str, Action] = {
    "brush_hair": Action(gestures.brush_hair, (0.8, 1.4), True, (0, 130), 0.75, gestures.brush),
    "catch": Action(sports.catch, (0.8, 1.3), False, (20, 90), 0.15, sports.caught),
    "clap": Action(gestures.clap, (0.28, 0.5), True, (0, 70), 0.6),
    "climb_stairs": Action(locomotion.climb_stairs, (1.0, 1.5), True, (50, 180), 0.0, locomotion.stairs, 2.3),
    "golf": Action(sports.golf, (1.0, 1.6), False, (0, 120), 0.0, sports.club, 2.0),
    "jump": Action(locomotion.jump, (0.8, 1.2), False, (20, 120), 0.0, height_m=2.3),
    "kick_ball": Action(sports.kick_ball, (0.7, 1.2), False, (30, 130), 0.0, sports.football),
    "pick": Action(locomotion.pick, (1.0, 1.6), False, (20, 120), 0.0, locomotion.picked),
    "pour": Action(gestures.pour, (1.0, 1.7), False, (0, 60), 0.7, gestures.drink),
    "pullup": Action(locomotion.pullup, (1.1, 1.9), True, (0, 65), 0.25, locomotion.bar, 2.6),
    "push": Action(locomotion.push, (0.9, 1.4), True, (40, 120), 0.0, locomotion.load),
    "run": Action(locomotion.run, (0.55, 0.75), True, (20, 120)),
    "shoot_ball": Action(sports.shoot_ball, (0.9, 1.3), False, (20, 150), 0.1, sports.basket, 2.7),
    "shoot_bow": Action(gestures.shoot_bow, (1.0, 1.7), False, (0, 70), 0.5, gestures.bow),
    "shoot_gun": Action(gestures.shoot_gun, (0.35, 0.7), True, (25, 110), 0.5, gestures.gun),
    "sit": Action(locomotion.sit, (0.8, 1.3), False, (10, 110), 0.0, locomotion.seat),
    "stand": Action(locomotion.stand, (0.8, 1.3), False, (10, 110), 0.0, locomotion.seat),
    "swing_baseball": Action(sports.swing_baseball, (0.9, 1.4), False, (0, 80), 0.0, sports.bat, 2.1),
    "throw": Action(sports.throw, (0.8, 1.2), False, (10, 130), 0.1, sports.thrown, 2.0),
    "walk": Action(locomotion.walk, (0.9, 1.3), True, (0, 180)),
    "wave": Action(gestures.wave, (0.4, 0.8), True, (0, 60), 0.6, height_m=2.1),
}
"""By JHMDB's label names."""
