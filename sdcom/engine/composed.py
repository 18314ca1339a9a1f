"""What the composition says of one video, and how its widths are chosen."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sdcom.budget import WidthPlan
from sdcom.engine.ledger import Ledger, Part

Planner = Callable[[npt.NDArray[np.float32]], WidthPlan]
"""Gate logits [T, K] in, the widths to run out."""


@dataclass(slots=True)
class Composed:
    """What the composition says of one video.

    Attributes:
        logits_TL: anytime logits after each frame fed; the last row is the video's.
        plan: the widths that were run.
        ledger: what that cost.
        stage_s: wall-clock seconds of each part.
    """

    logits_TL: npt.NDArray[np.float32]
    plan: WidthPlan
    ledger: Ledger
    stage_s: dict[Part, float] = field(default_factory=dict)
