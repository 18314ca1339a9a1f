"""A batch of many videos' frames, computed in the room where the videos are.

Shapes: B videos, T frames of each in feeding order, K widths, L labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from sdcom.budget import WidthPlan
from sdcom.config import ModelConfig
from sdcom.engine.backend import Answer, Begun, Float32Array, Gathered, Held, Picked, Room
from sdcom.engine.composed import Composed
from sdcom.engine.costs import Stage
from sdcom.engine.ledger import Ledger, Part
from sdcom.engine.queues import Batch
from sdcom.engine.repeats import Repeats, first_positions, repeats_of

_NOTHING: Float32Array = np.empty((0, 0), dtype=np.float32)


class Timed(Protocol):
    """Begins a batch, wherever that has to happen, and waits for its end."""

    def __call__(self, begin: Callable[[], Begun[Answer]]) -> tuple[Answer, float]:
        """Return what came of it, and the seconds that the backend took."""
        ...


@dataclass(slots=True)
class VideoWork:
    """What is known of one video in flight, besides what its room keeps.

    Attributes:
        held: the video in its room.
        num_frames: that it has.
        ledger: what it has cost so far.
        repeats: frames that show another one's picture; once there is a plan, at the same width, too.
        gate_logits_TK: the gate's answer; empty before DECIDE.
        plan: the widths chosen; None before.
        logits_TL: the answer; empty before FUSE.
        stage_s: its share of the time of every batch that it was in.
        came_s: when it was admitted.
        begun_s: when its first frame went into a batch; None before.
        num_batches: in hand that have frames of it.
    """

    held: Held
    num_frames: int
    ledger: Ledger
    repeats: Repeats = ()
    gate_logits_TK: Float32Array = field(default_factory=lambda: _NOTHING)
    plan: WidthPlan | None = None
    logits_TL: Float32Array = field(default_factory=lambda: _NOTHING)
    stage_s: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(Part, 0.0))
    came_s: float = 0.0
    begun_s: float | None = None
    num_batches: int = 0

    def repeats_among(self, positions: Sequence[int]) -> list[tuple[int, int]]:
        """Return the repeats of what frames at these positions show."""
        return [pair for pair in self.repeats if pair[0] in positions] if self.repeats else []

    def enter_plan(self, plan: WidthPlan, config: ModelConfig) -> list[float]:
        """Take the plan made of the gate's logits; return the width at which to fill each frame.

        That is 0 where the dynamic network is not to be run: at width 0, and for repeats.

        Raises:
            ValueError: the plan does not fit the video or the model.
        """
        num_frames, widths = self.num_frames, config.widths
        if len(plan.choices) != num_frames or not set(plan.choices) <= set(range(len(widths))):
            raise ValueError(
                f"a plan needs {num_frames} choices out of {len(widths)} widths, got {plan.choices}"
            )
        chosen = [widths[choice] for choice in plan.choices]
        self.plan = plan
        self.ledger.lam = plan.lam
        self.ledger.width_counts.update(chosen)
        if not self.repeats:
            return chosen
        first_T = first_positions(self.num_frames, self.repeats)
        self.repeats = repeats_of(zip(first_T, chosen, strict=True))
        again = {position for _, position in self.repeats}
        return [0.0 if position in again else width for position, width in enumerate(chosen)]

    def composed(self) -> Composed:
        """Return the answer, once all stages ran."""
        assert self.plan is not None
        assert self.begun_s is not None
        queue_s = self.begun_s - self.came_s
        return Composed(self.logits_TL, self.plan, self.ledger, self.stage_s, queue_s)


class Execution:
    """Runs batches in a room.

    Args:
        room: where the videos are.
        timed: begins them.
    """

    def __init__(self, room: Room, timed: Timed) -> None:
        self._room = room
        self._timed = timed

    def run(self, batch: Batch, videos: Sequence[VideoWork]) -> float:
        """Compute a batch and keep what it decided or answered; return the backend's seconds.

        Args:
            batch: as the policy made it.
            videos: those of its shares, in their order.

        Raises:
            Exception: whatever the room raises; nothing is kept that a second run would not replace.
        """
        match batch.lane.stage:
            case Stage.LOOK:
                picked = _picked(batch, videos)
                _, seconds = self._timed(lambda: self._room.look(picked))
            case Stage.DECIDE:
                gathered = _gathered(batch, videos)
                logits_BTK, seconds = self._timed(lambda: self._room.decide(gathered))
                for video, logits_TK in zip(videos, logits_BTK, strict=False):
                    video.gate_logits_TK = logits_TK.copy()  # not a view that keeps all of the batch
            case Stage.FILL:
                picked, width = _picked(batch, videos), batch.lane.width
                _, seconds = self._timed(lambda: self._room.fill(picked, width))
            case Stage.FUSE:
                gathered = _gathered(batch, videos)
                logits_BTL, seconds = self._timed(lambda: self._room.conclude(gathered))
                for video, logits_TL in zip(videos, logits_BTL, strict=False):
                    video.logits_TL = logits_TL.copy()
        return seconds


def _picked(batch: Batch, videos: Sequence[VideoWork]) -> Picked:
    shares = [(video.held, share.positions) for video, share in zip(videos, batch.shares, strict=True)]
    repeats = [
        (video.held, pairs)
        for video, share in zip(videos, batch.shares, strict=True)
        if (pairs := video.repeats_among(share.positions))
    ]
    return Picked(shares, batch.size, repeats)


def _gathered(batch: Batch, videos: Sequence[VideoWork]) -> Gathered:
    return Gathered([video.held for video in videos], batch.lane.num_frames, batch.size)
