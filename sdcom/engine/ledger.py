"""The FLOPs ledger: what was executed, by part, counted where it is executed.

The unit is the multiply-accumulate (MAC) of convolutions, linear layers and GRUs; the literature's
"GFLOPs" are 1e9 of them.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Part(StrEnum):
    """The parts of the composition, in the order in which a frame meets them."""

    STATIC = "static"
    GATE = "gate"
    DYNAMIC = "dynamic"
    FUSION = "fusion"


@dataclass(slots=True)
class Ledger:
    """Executed work of one video (or stream), summed as exact integers.

    Attributes:
        baseline_macs: the full-width dynamic network on every frame of the same video.
        macs: executed MACs of each part.
        width_counts: frames that took each width, those that repeat a picture included.
        lam: the price at which the widths were chosen; 0 is the trained policy.
        max_budget: share of the baseline's MACs that a busy service let the video cost; 1 is no limit.
    """

    baseline_macs: int = 0
    macs: Counter[Part] = field(default_factory=Counter)
    width_counts: Counter[float] = field(default_factory=Counter)
    lam: float = 0.0
    max_budget: float = 1.0

    def add(self, other: "Ledger") -> None:
        """Add another one's work to this; the prices stay."""
        self.baseline_macs += other.baseline_macs
        self.macs.update(other.macs)
        self.width_counts.update(other.width_counts)

    @property
    def total_macs(self) -> int:
        """All parts together."""
        return self.macs.total()

    @property
    def saved(self) -> float:
        """Share of the baseline's MACs that were not executed; negative where more were."""
        return 1 - self.total_macs / self.baseline_macs if self.baseline_macs else 0.0
