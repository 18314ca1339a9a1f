"""What the composition says of one video, and who chooses its widths. No torch: every engine answers so.

Shapes: T frames in feeding order, L labels, K widths.
"""

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
        stage_s: wall-clock seconds of each part; of a batch with others, the video's share.
    """

    logits_TL: npt.NDArray[np.float32]
    plan: WidthPlan
    ledger: Ledger
    stage_s: dict[Part, float] = field(default_factory=dict)
