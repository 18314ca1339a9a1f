"""What a batch costs in device time: the scheduler's and the simulator's idea of the machine.

A batch takes a fixed time plus one per frame, or what was measured at its size. The fixed part is what
batching saves: large against a frame's on a GPU (launches, underfilled cores), next to nothing on a
processor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class Stage(IntEnum):
    """The stages of a frame, in order; each calls one or two of the backend's functions."""

    LOOK = 0
    DECIDE = 1
    FILL = 2
    FUSE = 3

    @property
    def label(self) -> str:
        """Its name in metrics and tables."""
        return self.name.lower()


class Lane(NamedTuple):
    """What can share a batch: work of one stage; for FILL, of one width.

    LOOK and FILL take single frames. DECIDE and FUSE take whole videos, and those of one length, so that no
    row is padded: `num_frames` is the length, and 1 for single frames.
    """

    stage: Stage
    width: float = 0.0
    num_frames: int = 1


@dataclass(frozen=True, slots=True)
class BatchCost:
    """Seconds of a batch, by its frames, those of whole videos included: a line, unless it is known better.

    Attributes:
        fixed_s: of every batch.
        frame_s: for each frame.
        known_s: of some numbers of frames, where a machine keeps to no line: a kernel made for one size is
            faster there than for half of it.
    """

    fixed_s: float
    frame_s: float
    known_s: Mapping[int, float] = field(default_factory=dict)

    def seconds(self, num_frames: int) -> float:
        """Return what a batch of this many frames takes."""
        known_s = self.known_s.get(num_frames)
        return self.fixed_s + self.frame_s * num_frames if known_s is None else known_s


_FREE = BatchCost(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class CostTable:
    """The cost of every stage and width; what is not listed counts as free.

    The empty table knows nothing: no batch is then fuller than another, no deadline out of reach, and
    videos are served in the order in which they are due.
    """

    costs: Mapping[tuple[Stage, float], BatchCost] = field(default_factory=dict)

    def cost_s(self, lane: Lane, num_units: int) -> float:
        """Return the seconds of a batch of this many frames, or whole videos where the lane takes those."""
        cost = self.costs.get((lane.stage, lane.width), _FREE)
        return cost.seconds(num_units * lane.num_frames)

    def to_rows(self) -> list[dict[str, float | str]]:
        """Return JSON-ready rows of the lines, in milliseconds."""
        return [
            {
                "stage": stage.label,
                "width": width,
                "fixed_ms": cost.fixed_s * 1e3,
                "frame_ms": cost.frame_s * 1e3,
            }
            for (stage, width), cost in sorted(self.costs.items())
        ]

    @classmethod
    def from_rows(cls, rows: list[dict[str, float | str]]) -> "CostTable":
        """Read what `to_rows` returned.

        Raises:
            KeyError: a row lacks a field, or names no stage.
            ValueError: a figure is none, or is negative.
        """
        return cls(dict(_read_row(row) for row in rows))


def _read_row(row: Mapping[str, float | str]) -> tuple[tuple[Stage, float], BatchCost]:
    cost = BatchCost(float(row["fixed_ms"]) / 1e3, float(row["frame_ms"]) / 1e3)
    if not (cost.fixed_s >= 0 and cost.frame_s >= 0):
        raise ValueError(f"times must be at least 0, got {dict(row)}")
    return (Stage[str(row["stage"]).upper()], float(row["width"])), cost


def affine_table(
    fixed_ms: float, frame_ms: Mapping[Stage, float], fill_ms: Mapping[float, float]
) -> CostTable:
    """Return a table of one fixed time for every batch, and a time per frame by stage and by width."""
    costs = {(stage, 0.0): BatchCost(fixed_ms / 1e3, ms / 1e3) for stage, ms in frame_ms.items()}
    costs |= {(Stage.FILL, width): BatchCost(fixed_ms / 1e3, ms / 1e3) for width, ms in fill_ms.items()}
    return CostTable(costs)


MACHINES: Mapping[str, CostTable] = {
    "h200": affine_table(
        0.5,
        {Stage.LOOK: 1 / 121, Stage.DECIDE: 0.002, Stage.FUSE: 0.002},
        {0.25: 1 / 72.9, 0.5: 0.0187, 0.75: 0.0253, 1.0: 1 / 27.2},
    ),
    "cpu": affine_table(
        0.05,
        {Stage.LOOK: 5.5, Stage.DECIDE: 0.9, Stage.FUSE: 0.5},
        {0.25: 2.7, 0.5: 10.8, 0.75: 21.8, 1.0: 40.4},
    ),
}
"""Costs of known machines.

`h200`: bfloat16, compiled, CUDA graphs, frames a second at batch 256: MobileNetV4-conv-small 121,000,
ResNet-50 at width 0.25 72,900 and at full width 27,200. The widths between are interpolated by their MACs;
the fixed 0.5 ms, gate and fusion are assumed.

`cpu`: MobileNetV2 and ResNet-50 in ONNX Runtime on two threads with AVX-512, float32, batch 16. Batches of 1
and of 16 took the same time per frame, so next to nothing is fixed. The GRU took 14 ms a video; fusion is
assumed.
"""
