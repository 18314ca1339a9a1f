"""One video through a backend: static network, gate, plan, one dynamic batch for each width, fusion.

Shapes: T frames in feeding order, H W pixels, D features, K widths, F fused features, L labels.
"""

from collections.abc import Sequence

import numpy as np

from sdcom.architecture import feature_channels
from sdcom.budget import WidthPlan
from sdcom.engine.backend import Backend, Float32Array, Int64Array, UInt8Array
from sdcom.engine.composed import Composed, Planner, timed
from sdcom.engine.ledger import Ledger, Part
from sdcom.engine.repeats import Pictures, first_positions, repeats_of


def compose_video(
    backend: Backend, frames_THWC: UInt8Array, choose: Planner, pictures_T: Pictures | None = None
) -> Composed:
    """Run one video through the composition.

    The static network's time is that of the gate's embedding too, which runs with it. Widths are chosen as if
    all pictures differed, so the ledger's dynamic work is the plan's or less.

    Args:
        backend: of the model.
        frames_THWC: the resized, cropped RGB frames in feeding order.
        choose: turns the gate's logits into a width for every frame.
        pictures_T: what each frame shows; None: each another picture.
    """
    info, macs, num_frames = backend.info, backend.info.macs, len(frames_THWC)
    first_T = first_positions(num_frames, repeats_of(pictures_T or ()))
    stage_s: dict[Part, float] = {}
    with timed(stage_s, Part.STATIC):
        shown, row_T = np.unique(first_T, return_inverse=True)
        looked = backend.look(_taken(frames_THWC, shown))
    with timed(stage_s, Part.GATE):
        gate_logits_BTK, _ = backend.decide(looked.embeddings_NE[row_T][None])
        plan = choose(gate_logits_BTK[0])
    with timed(stage_s, Part.DYNAMIC):
        supplements_TD, dynamic_macs = _fill_by_width(backend, frames_THWC, plan, first_T)
    with timed(stage_s, Part.FUSION):
        logits_TL = backend.conclude(looked.features_ND[row_T][None], supplements_TD[None])[0]
    ledger = Ledger(baseline_macs=macs.baseline(num_frames), lam=plan.lam)
    ledger.macs.update(
        {
            Part.STATIC: macs.static * len(shown),
            Part.GATE: macs.gate_embedding * len(shown) + macs.gate_step * num_frames,
            Part.DYNAMIC: dynamic_macs,
            Part.FUSION: macs.fusion * num_frames,
        }
    )
    ledger.width_counts.update(info.config.widths[choice] for choice in plan.choices)
    return Composed(logits_TL, plan, ledger, stage_s)


def _fill_by_width(
    backend: Backend, frames_THWC: UInt8Array, plan: WidthPlan, first_T: Sequence[int]
) -> tuple[Float32Array, int]:
    """Run the dynamic network once per width chosen, on all pictures that have it; return [T, Dd] and MACs.

    With a temporal shift a frame reads the one before it, so that a picture's features are not its own.
    """
    config, macs = backend.info.config, 0
    choices_T = np.array(plan.choices)
    supplements_TD = np.zeros((len(frames_THWC), feature_channels(config.dynamic)), dtype=np.float32)
    for choice in np.unique(choices_T).tolist():
        width = config.widths[choice]
        if width > 0:
            positions = np.flatnonzero(choices_T == choice)
            firsts = positions if config.temporal_shift else np.asarray(first_T)[positions]
            shown, rows = np.unique(firsts, return_inverse=True)
            before = np.arange(len(shown)) - 1 if config.temporal_shift else None
            supplements_TD[positions] = backend.fill(_taken(frames_THWC, shown), width, before)[rows]
            macs += backend.info.macs.dynamic[width] * len(shown)
    return supplements_TD, macs


def _taken(frames_THWC: UInt8Array, positions: Int64Array) -> UInt8Array:
    """Return frames at ascending, distinct positions: themselves where that is all of them."""
    return frames_THWC if len(positions) == len(frames_THWC) else frames_THWC[positions]
