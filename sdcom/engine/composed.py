"""What the composition says of one video, and how its widths are chosen."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        logits_TL: anytime logits after each frame fed; the last row is the video's. Fewer rows than the
            clip has frames where a confident prediction ended it early.
        plan: the widths that were run.
        ledger: what that cost.
        stage_s: wall-clock seconds of each part; of a batch with others, the video's share.
        queue_s: seconds from when the networks took the frames in to when they began on them.
    """

    logits_TL: npt.NDArray[np.float32]
    plan: WidthPlan
    ledger: Ledger
    stage_s: dict[Part, float] = field(default_factory=dict)
    queue_s: float = 0.0


@contextmanager
def timed(stage_s: dict[Part, float], part: Part) -> Iterator[None]:
    """Add to a part's wall-clock seconds what the block takes."""
    started = time.perf_counter()
    yield
    stage_s[part] = stage_s.get(part, 0.0) + time.perf_counter() - started
