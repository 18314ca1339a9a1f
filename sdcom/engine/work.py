"""What batches execute, and whose time theirs is, by part."""

from collections import Counter
from collections.abc import Mapping

from sdcom.cost import ModelMacs
from sdcom.engine.costs import Lane, Stage
from sdcom.engine.ledger import Part

PART_TIMED: Mapping[Stage, Part] = {
    Stage.LOOK: Part.STATIC,
    Stage.DECIDE: Part.GATE,
    Stage.FILL: Part.DYNAMIC,
    Stage.FUSE: Part.FUSION,
}
"""The part to which a stage's time is counted."""


def lane_macs(lane: Lane, num_units: int, macs: ModelMacs) -> Counter[Part]:
    """Return what so many frames, or whole videos, of a lane execute.

    The gate's embedding runs with the static network, but is the gate's.
    """
    match lane.stage:
        case Stage.LOOK:
            each = {Part.STATIC: macs.static, Part.GATE: macs.gate_embedding}
        case Stage.DECIDE:
            each = {Part.GATE: macs.gate_step * lane.num_frames}
        case Stage.FILL:
            each = {Part.DYNAMIC: macs.dynamic[lane.width]}
        case Stage.FUSE:
            each = {Part.FUSION: macs.fusion * lane.num_frames}
    return Counter({part: num_units * count for part, count in each.items()})
