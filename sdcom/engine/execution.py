"""A batch of many videos' frames, computed in the room where the videos are.

Shapes: B videos, T frames of each in feeding order, K widths, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sdcom.budget import WidthPlan
from sdcom.config import ModelConfig
from sdcom.engine.backend import Begun, Float32Array, Gathered, Held, Picked, Room
from sdcom.engine.composed import Composed
from sdcom.engine.costs import Stage
from sdcom.engine.ledger import Ledger, Part
from sdcom.engine.queues import Batch
from sdcom.engine.repeats import Repeats, first_positions, repeats_of

_UNTIMED: dict[Part, float] = dict.fromkeys(Part, 0.0)


@dataclass(slots=True)
class VideoWork:
    """What is known of one video in flight, besides what its room keeps.

    Attributes:
        held: the video in its room.
        num_frames: that it has.
        ledger: what it has cost so far.
        repeats: frames that show another one's picture; once there is a plan, at the same width, too.
        plan: the widths chosen; None before DECIDE.
        stage_s: its share of the time of every batch that it was in.
        came_s: when it was admitted.
        begun_s: when its first frame went into a batch; None before.
        num_batches: in hand that have frames of it.
    """

    held: Held
    num_frames: int
    ledger: Ledger
    repeats: Repeats = ()
    plan: WidthPlan | None = None
    stage_s: dict[Part, float] = field(default_factory=_UNTIMED.copy)
    came_s: float = 0.0
    begun_s: float | None = None
    num_batches: int = 0

    def repeats_among(self, positions: Sequence[int]) -> list[tuple[int, int]]:
        """Return the repeats of what frames at these positions show."""
        return [pair for pair in self.repeats if pair[0] in positions] if self.repeats else []

    def enter_plan(self, plan: WidthPlan | Exception, config: ModelConfig) -> list[float]:
        """Take the plan made of the gate's logits; return the width at which to fill each frame.

        That is 0 where the dynamic network is not to be run: at width 0, and for repeats.

        Raises:
            Exception: what the planner raised instead of one.
            ValueError: the plan does not fit the video or the model.
        """
        if isinstance(plan, Exception):
            raise plan
        widths, choices = config.widths, plan.choices
        if len(choices) != self.num_frames or not 0 <= min(choices) <= max(choices) < len(widths):
            raise ValueError(
                f"a plan needs {self.num_frames} choices out of {len(widths)} widths, got {choices}"
            )
        chosen = [widths[choice] for choice in choices]
        self.plan = plan
        self.ledger.lam = plan.lam
        self.ledger.width_counts.update(chosen)
        if not self.repeats:
            return chosen
        first_T = first_positions(self.num_frames, self.repeats)
        self.repeats = repeats_of(zip(first_T, chosen, strict=True))
        again = {position for _, position in self.repeats}
        return [0.0 if position in again else width for position, width in enumerate(chosen)]

    def composed(self, logits_TL: Float32Array) -> Composed:
        """Return the answer, once all stages ran and the last one gave its logits."""
        assert self.plan is not None
        assert self.begun_s is not None
        queue_s = self.begun_s - self.came_s
        return Composed(logits_TL, self.plan, self.ledger, self.stage_s, queue_s)


def begin_batch(room: Room, batch: Batch, videos: Sequence[VideoWork]) -> Begun[Float32Array | None]:
    """Begin a batch in the room where its videos are.

    Args:
        room: where they are.
        batch: as the policy made it.
        videos: those of its shares, in their order.

    Returns:
        What waits for its end: for DECIDE it returns gate logits [B, T, K], for FUSE logits [B, T, L]. A
        second run replaces what a first one left in the room.

    Raises:
        Exception: whatever the room raises; what is returned does so, too.
    """
    match batch.lane.stage:
        case Stage.LOOK:
            return room.look(_picked(batch, videos))
        case Stage.DECIDE:
            return room.decide(_gathered(batch, videos))
        case Stage.FILL:
            return room.fill(_picked(batch, videos), batch.lane.width)
        case Stage.FUSE:
            return room.conclude(_gathered(batch, videos))


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
