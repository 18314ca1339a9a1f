"""What a video gets alone, computed in the plainest way: the answer that every batch must give."""

from typing import Any, NamedTuple

import numpy as np

from sdcom.budget import WidthPlan
from sdcom.engine.backend import Parts, UInt8Array
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.costs import Lane
from sdcom.engine.ledger import Ledger, Part
from sdcom.engine.limits import Limits
from sdcom.engine.on_host import HostRoom
from sdcom.engine.scheduler import Scheduler
from tests.sdcom.engine.numpy_backend import (
    CONFIG,
    MACS,
    NumpyBackend,
)

BACKEND = NumpyBackend()
NUM_WIDTHS = CONFIG.num_widths
WAIT_S = 60
"""Longer than anything here takes: a test that gets there has failed."""


class InFlight(NamedTuple):
    num_frames: int
    num_videos: int
    num_waiting: dict[Lane, int]


def in_flight(scheduler: Scheduler) -> InFlight:
    """Return what a scheduler has admitted and not answered, and what waits of it, by lane."""
    with scheduler._changed:
        policy = scheduler._flight.policy
        return InFlight(policy.num_frames_in_flight, policy.num_videos_in_flight, policy.num_waiting())


def planned(*choices: int) -> Planner:
    plan = WidthPlan(choices, 0.0, sum(MACS.dynamic_by_choice[choice] for choice in choices))
    return lambda _: plan


def alone(frames_THWC: UInt8Array, planner: Planner) -> Composed:
    """Compose in the plainest way: the backend's functions, frame by frame."""
    backend, num_frames = BACKEND, len(frames_THWC)
    looks = [backend.look(frame_NHWC) for frame_NHWC in frames_THWC[:, None]]
    logits_BTK, _ = backend.decide(np.stack([look.embeddings_NE for look in looks], axis=1))
    plan = planner(logits_BTK[0])
    z_TF = np.zeros((num_frames, CONFIG.fusion_features), dtype=np.float32)
    for position, choice in enumerate(plan.choices):
        filled_ND = np.zeros((1, 1280), dtype=np.float32)
        if choice > 0:
            filled_ND = backend.fill(frames_THWC[position : position + 1], CONFIG.widths[choice])
        z_TF[position] = backend.fuse(looks[position].features_ND, filled_ND)[0]
    logits_TL = backend.classify(np.maximum.accumulate(z_TF)[None])[0]
    ledger = Ledger(MACS.baseline(num_frames), lam=plan.lam)
    ledger.width_counts.update(CONFIG.widths[choice] for choice in plan.choices)
    ledger.macs.update(
        {
            Part.STATIC: num_frames * MACS.static,
            Part.GATE: num_frames * MACS.gate,
            Part.DYNAMIC: plan.macs,
            Part.FUSION: num_frames * MACS.fusion,
        }
    )
    return Composed(logits_TL, plan, ledger)


def assert_same(composed: Composed, expected: Composed) -> None:
    np.testing.assert_allclose(composed.logits_TL, expected.logits_TL, rtol=1e-4, atol=1e-5)
    assert composed.plan.choices == expected.plan.choices
    assert composed.ledger == expected.ledger


def scheduling(backend: Parts = BACKEND, limits: Limits | None = None, **options: Any) -> Scheduler:
    """Return a scheduler over a small backend, in the processor's memory."""
    return Scheduler(HostRoom(backend, CONFIG), CONFIG, limits, **options)
