"""Frames one by one: the same composition, causal, over a sliding window of the last T frames.

Each frame is looked at once, gets its width when it arrives, and is never computed again. Up to T frames
the answers equal the composition's on those frames in time order; from then on the window slides: the gate
decides from a GRU run over the window alone, and the running maximum is the window's.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from sdcom.budget import Allowance, Currency, WidthPlan
from sdcom.engine.backend import Backend, Float32Array, Looked, UInt8Array
from sdcom.engine.composed import timed
from sdcom.engine.ledger import Ledger, Part


@dataclass(frozen=True, slots=True)
class StreamStep:
    """What one more frame said.

    Attributes:
        logits_L: the running answer.
        plan: its width and price.
        width: the plan's one width.
        ledger: what the frame alone cost.
        stage_s: wall-clock seconds of each part.
    """

    logits_L: Float32Array
    plan: WidthPlan
    width: float
    ledger: Ledger
    stage_s: dict[Part, float]


@dataclass(slots=True)
class _Seen:
    """What the networks made of a picture: by the static one, and by the dynamic one at each width."""

    looked: Looked | None = None
    supplements_D: dict[float, Float32Array] = field(default_factory=dict)


class CausalStream:
    """The state of one stream.

    Args:
        backend: of the model.
        lam: the price at which the gate chooses.
    """

    def __init__(self, backend: Backend, lam: float) -> None:
        self._backend = backend
        self._filler = backend.open_stream()
        self._lam = lam
        self._unlimited = Allowance(Currency.of_macs(backend.info.macs.dynamic_by_choice))
        self._num_frames = num_frames = backend.info.config.clip.num_frames
        self._embeddings_E: deque[Float32Array] = deque(maxlen=num_frames)
        self._fused_F: deque[Float32Array] = deque(maxlen=num_frames)
        self._state_BH: Float32Array | None = None
        self._seen: dict[Hashable, _Seen] = {}

    def push(
        self, frame_HWC: UInt8Array, allowance: Allowance | None = None, picture: Hashable = None
    ) -> StreamStep:
        """Feed one resized, cropped RGB frame.

        Args:
            frame_HWC: that.
            allowance: what the dynamic network may spend on it; None is no limit, in MACs.
            picture: what it shows; each of the last T pictures is computed once. None is another one.
        """
        backend, config, macs = self._backend, self._backend.info.config, self._backend.info.macs
        seen = self._recall(picture)
        ledger, stage_s = Ledger(baseline_macs=macs.baseline(1)), dict[Part, float]()
        with timed(stage_s, Part.STATIC):
            if seen.looked is None:
                seen.looked = backend.look(frame_HWC[None])
                ledger.macs.update({Part.STATIC: macs.static, Part.GATE: macs.gate_embedding})
            looked = seen.looked
        with timed(stage_s, Part.GATE):
            gate_logits_K, num_steps = self._decide(looked.embeddings_NE[0])
            plan = (allowance or self._unlimited).plan(gate_logits_K[None], self._lam)
        width = config.widths[plan.choices[0]]
        with timed(stage_s, Part.DYNAMIC):
            supplement_D = seen.supplements_D.get(width)
            if supplement_D is None or config.temporal_shift:  # which makes it of the frame before, too
                supplement_D = seen.supplements_D[width] = self._filler.fill(frame_HWC, width)
                ledger.macs[Part.DYNAMIC] += plan.macs
        with timed(stage_s, Part.FUSION):
            self._fused_F.append(backend.fuse(looked.features_ND, supplement_D[None])[0])
            running_F = np.max(self._fused_F, axis=0)
            logits_BTL = backend.classify(running_F[None, None], first=len(self._fused_F) - 1)

        ledger.lam = plan.lam
        ledger.macs.update({Part.GATE: num_steps * macs.gate_step, Part.FUSION: macs.fusion})
        ledger.width_counts[width] += 1
        return StreamStep(logits_BTL[0, 0], plan, width, ledger, stage_s)

    def _recall(self, picture: Hashable) -> _Seen:
        """Return what is known of a picture."""
        if picture is None:
            return _Seen()
        seen = self._seen.setdefault(picture, _Seen())
        if len(self._seen) > self._num_frames:
            del self._seen[next(iter(self._seen))]  # the oldest
        return seen

    def _decide(self, embedding_E: Float32Array) -> tuple[Float32Array, int]:
        """Return the newest frame's gate logits [K] and the number of GRU steps that they took."""
        sliding = len(self._embeddings_E) == self._embeddings_E.maxlen
        self._embeddings_E.append(embedding_E)
        if not sliding:
            logits_BTK, self._state_BH = self._backend.decide(embedding_E[None, None], self._state_BH)
            return logits_BTK[0, -1], 1
        window_BTE = np.stack(self._embeddings_E)[None]
        logits_BTK, _ = self._backend.decide(window_BTE)
        return logits_BTK[0, -1], window_BTE.shape[1]
