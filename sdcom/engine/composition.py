"""One video through a backend: static network, gate, plan, one dynamic batch for each width, fusion.

Shapes: T frames in feeding order, H W pixels, D features, K widths, F fused features, L labels.
"""

import numpy as np

from sdcom.architecture import feature_channels
from sdcom.budget import WidthPlan
from sdcom.engine.backend import Backend, Float32Array, UInt8Array
from sdcom.engine.composed import Composed, Planner, timed
from sdcom.engine.ledger import Ledger, Part


def compose_video(backend: Backend, frames_THWC: UInt8Array, choose: Planner) -> Composed:
    """Run one video through the composition.

    The static network's time is that of the gate's embedding too, which runs with it.

    Args:
        backend: of the model.
        frames_THWC: the resized, cropped RGB frames in feeding order.
        choose: turns the gate's logits into a width for every frame.
    """
    info, macs, num_frames = backend.info, backend.info.macs, len(frames_THWC)
    stage_s: dict[Part, float] = {}
    with timed(stage_s, Part.STATIC):
        looked = backend.look(frames_THWC)
    with timed(stage_s, Part.GATE):
        gate_logits_BTK, _ = backend.decide(looked.embeddings_NE[None])
        plan = choose(gate_logits_BTK[0])
    with timed(stage_s, Part.DYNAMIC):
        supplements_TD = _fill_by_width(backend, frames_THWC, plan)
    with timed(stage_s, Part.FUSION):
        logits_TL = backend.conclude(looked.features_ND[None], supplements_TD[None])[0]
    ledger = Ledger(baseline_macs=macs.baseline(num_frames), lam=plan.lam)
    ledger.macs.update(
        {
            Part.STATIC: macs.static * num_frames,
            Part.GATE: macs.gate * num_frames,
            Part.DYNAMIC: plan.macs,
            Part.FUSION: macs.fusion * num_frames,
        }
    )
    ledger.width_counts.update(info.config.widths[choice] for choice in plan.choices)
    return Composed(logits_TL, plan, ledger, stage_s)


def _fill_by_width(backend: Backend, frames_THWC: UInt8Array, plan: WidthPlan) -> Float32Array:
    """Run the dynamic network once per width chosen, on all of that width's frames; return [T, Dd]."""
    config = backend.info.config
    choices_T = np.array(plan.choices)
    supplements_TD = np.zeros((len(frames_THWC), feature_channels(config.dynamic)), dtype=np.float32)
    for choice in np.unique(choices_T).tolist():
        width = config.widths[choice]
        if width > 0:
            rows = np.flatnonzero(choices_T == choice)
            before = np.arange(len(rows)) - 1 if config.temporal_shift else None
            supplements_TD[rows] = backend.fill(frames_THWC[rows], width, before)
    return supplements_TD
