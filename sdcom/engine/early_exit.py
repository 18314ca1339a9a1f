"""Early exit: frames are fed one by one, and a video whose prediction is confident enough is fed no more.

Frames come coarse to fine, so the first few already cover the whole video. The gate is causal, so each frame
gets the width that it would get among all of them.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from sdcom.budget import Allowance, Currency, WidthPlan
from sdcom.engine.backend import Backend, UInt8Array
from sdcom.engine.composed import Composed
from sdcom.engine.ledger import Ledger, Part
from sdcom.engine.repeats import Pictures
from sdcom.engine.stream import CausalStream, StreamStep
from sdcom.errors import DeadlineExceededError
from sdcom.recognition import softmax


def compose_until_confident(
    backend: Backend,
    frames: Iterable[UInt8Array],
    *,
    confidence: float,
    pictures_T: Pictures | None = None,
    lam: float = 0.0,
    allowance: Allowance | None = None,
    deadline: float | None = None,
    in_turn: Callable[[Callable[[], StreamStep]], StreamStep] = lambda step: step(),
) -> Composed:
    """Run one video's frames through the composition until the prediction is confident enough.

    Args:
        backend: of the model.
        frames: a clip's resized, cropped RGB frames [H, W, 3] in feeding order; only those needed are taken.
        confidence: probability of the best class at which the video ends.
        pictures_T: what each frame shows; None: each another picture.
        lam: the price at which the gate chooses.
        allowance: what the dynamic network may spend on the video; None is no limit.
        deadline: `time.monotonic()` value after which no further frame is begun.
        in_turn: runs each frame's step where and when the networks may be called.

    Raises:
        DeadlineExceededError: the deadline passed first.
    """
    macs = backend.info.macs
    allowance = allowance or Allowance(Currency.of_macs(macs.dynamic_by_choice))
    stream, steps, queue_s = CausalStream(backend, lam), list[StreamStep](), 0.0
    coming, num_frames = iter(frames), backend.info.config.clip.num_frames
    for position in range(num_frames):
        if deadline is not None and time.monotonic() > deadline:
            raise DeadlineExceededError(
                f"the deadline passed after {len(steps)} frames; allow a larger deadline_ms"
            )
        picture = position if pictures_T is None else pictures_T[position]
        push = partial(stream.push, next(coming), allowance, picture)
        asked = time.perf_counter()
        steps.append(in_turn(push))
        queue_s += time.perf_counter() - asked - sum(steps[-1].stage_s.values())
        allowance = allowance.after(steps[-1].plan)
        if softmax(steps[-1].logits_L).max() >= confidence:
            break
    return _composed(steps, macs.baseline(num_frames), queue_s)


def _composed(steps: list[StreamStep], baseline_macs: int, queue_s: float) -> Composed:
    """Return a video's steps as one whole; its price is the highest that a frame was planned at."""
    choices = tuple(step.plan.choices[0] for step in steps)
    lam = max(step.plan.lam for step in steps)
    ledger = Ledger(baseline_macs=baseline_macs, lam=lam)
    stage_s = dict.fromkeys(Part, 0.0)
    for step in steps:
        ledger.macs.update(step.ledger.macs)
        ledger.width_counts.update(step.ledger.width_counts)
        for part, seconds in step.stage_s.items():
            stage_s[part] += seconds
    plan = WidthPlan(choices, lam, sum(step.plan.macs for step in steps))
    return Composed(np.stack([step.logits_L for step in steps]), plan, ledger, stage_s, queue_s)
