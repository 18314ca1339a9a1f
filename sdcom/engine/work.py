"""The scheduler's own ledger: everything executed, also what no video's ledger holds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sdcom.cost import ModelMacs
from sdcom.engine.costs import Lane, Stage
from sdcom.engine.ledger import Part
from sdcom.engine.queues import Batch

PART_TIMED: Mapping[Stage, Part] = {
    Stage.LOOK: Part.STATIC,
    Stage.DECIDE: Part.GATE,
    Stage.FILL: Part.DYNAMIC,
    Stage.FUSE: Part.FUSION,
}
"""The part to which a stage's time is counted."""


@dataclass(slots=True)
class Work:
    """What a scheduler has executed since it began, all videos together.

    All executed MACs are `macs`, `padded_macs` and `failed_macs` together. Of `macs`, the ledgers of the
    videos answered hold all but `abandoned_macs` and what videos still in flight have cost so far.

    Attributes:
        macs: of batches that ran, padding left out.
        padded_macs: of the rows added to fill a bucket.
        failed_macs: of batches that raised, padding included, as if each had run to its end.
        abandoned_macs: of `macs`, those of videos that failed, were cancelled or expired.
        num_batches: batches that ran, by stage.
        num_units: frames, or whole videos, in them, by stage.
        num_padding: rows added to them, by stage.
    """

    macs: Counter[Part] = field(default_factory=Counter)
    padded_macs: Counter[Part] = field(default_factory=Counter)
    failed_macs: Counter[Part] = field(default_factory=Counter)
    abandoned_macs: Counter[Part] = field(default_factory=Counter)
    num_batches: Counter[Stage] = field(default_factory=Counter)
    num_units: Counter[Stage] = field(default_factory=Counter)
    num_padding: Counter[Stage] = field(default_factory=Counter)

    def ran(self, batch: Batch, macs: ModelMacs) -> None:
        """Count a batch that ran."""
        self.macs.update(lane_macs(batch.lane, batch.num_units, macs))
        self.padded_macs.update(lane_macs(batch.lane, batch.num_padding, macs))
        self.num_batches[batch.lane.stage] += 1
        self.num_units[batch.lane.stage] += batch.num_units
        self.num_padding[batch.lane.stage] += batch.num_padding

    def failed(self, batch: Batch, macs: ModelMacs) -> None:
        """Count a batch that raised."""
        self.failed_macs.update(lane_macs(batch.lane, batch.size, macs))


def lane_macs(lane: Lane, num_units: int, macs: ModelMacs) -> Counter[Part]:
    """Return what so many frames, or whole videos, of a lane execute.

    The gate's embedding runs with the static network, but is the gate's.
    """
    match lane.stage:
        case Stage.LOOK:
            each = {Part.STATIC: macs.static, Part.GATE: macs.gate - macs.gate_step}
        case Stage.DECIDE:
            each = {Part.GATE: macs.gate_step * lane.num_frames}
        case Stage.FILL:
            each = {Part.DYNAMIC: macs.dynamic[lane.width]}
        case Stage.FUSE:
            each = {Part.FUSION: macs.fusion * lane.num_frames}
    return Counter({part: num_units * count for part, count in each.items()})
