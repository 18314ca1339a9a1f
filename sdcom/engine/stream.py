"""Frames one by one: the same composition, causal, over a sliding window of the last T frames.

Each frame is looked at once, gets its width when it arrives, and is never computed again. Up to T frames
the answers equal the composition's on those frames in time order; from then on the window slides: the gate
decides from a GRU run over the window alone, and the running maximum is the window's.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcom.budget import choose_widths
from sdcom.engine.ledger import Ledger, Part
from sdcom.model import Model
from sdcom.models.temporal_shift import CarriedFrame, Earlier
from sdcom.preprocess import normalize


@dataclass(frozen=True, slots=True)
class StreamStep:
    """What one more frame said: the running logits [L], its width, and what it alone cost."""

    logits_L: npt.NDArray[np.float32]
    width: float
    ledger: Ledger


class CausalStream:
    """The state of one stream.

    Args:
        model: in inference mode.
        lam: the price at which the gate chooses.
    """

    def __init__(self, model: Model, lam: float) -> None:
        self._model = model
        self._lam = lam
        num_frames = model.info.config.clip.num_frames
        self._embeddings_F: deque[Tensor] = deque(maxlen=num_frames)
        self._fused_F: deque[Tensor] = deque(maxlen=num_frames)
        self._state: Tensor | None = None
        self._num_pushed = 0
        self._carried: dict[float, tuple[int, CarriedFrame]] = {}

    @torch.inference_mode()
    def push(self, frame_HWC: npt.NDArray[np.uint8]) -> StreamStep:
        """Feed one resized, cropped RGB frame."""
        config, macs, networks = self._model.info.config, self._model.info.macs, self._model.networks
        ledger = Ledger(baseline_macs=macs.baseline(1), lam=self._lam)
        device = next(networks.parameters()).device
        frame_NCHW = normalize(torch.from_numpy(frame_HWC).to(device)[None], config.clip)

        view = networks.look(frame_NCHW)
        gate_logits_K, num_steps = self._decide(networks.gate.embed(view.map_NCHW)[0])
        plan = choose_widths(gate_logits_K[None].cpu().numpy(), macs.dynamic_by_choice, self._lam)
        width = config.widths[plan.choices[0]]
        supplement_ND = networks.fill(frame_NCHW, width, self._earlier(width))
        fused_NF = networks.fusion.project(view.features_ND, supplement_ND)
        self._fused_F.append(fused_NF[0])
        running_F = torch.stack(tuple(self._fused_F)).amax(dim=0)
        logits_L = networks.fusion.classify_at(running_F, len(self._fused_F) - 1)

        ledger.macs[Part.STATIC] += macs.static
        ledger.macs[Part.GATE] += macs.gate + (num_steps - 1) * macs.gate_step
        ledger.macs[Part.DYNAMIC] += plan.macs
        ledger.macs[Part.FUSION] += macs.fusion
        ledger.width_counts[width] += 1
        return StreamStep(logits_L.float().cpu().numpy(), width, ledger)

    def _earlier(self, width: float) -> Earlier:
        """Return what this frame reads of the last one in the window at its width."""
        position, self._num_pushed = self._num_pushed, self._num_pushed + 1
        last, carried = self._carried.get(width, (position, CarriedFrame()))
        if position - last >= self._model.info.config.clip.num_frames:
            carried = CarriedFrame()
        self._carried[width] = (position, carried)
        return carried.next_frame()

    def _decide(self, embedding_F: Tensor) -> tuple[Tensor, int]:
        """Return the newest frame's gate logits [K] and the number of GRU steps that they took."""
        gate = self._model.networks.gate
        sliding = len(self._embeddings_F) == self._embeddings_F.maxlen
        self._embeddings_F.append(embedding_F)
        if not sliding:
            logits_BTK, self._state = gate.decide(embedding_F[None, None], self._state)
            return logits_BTK[0, -1], 1
        window_BTF = torch.stack(tuple(self._embeddings_F))[None]
        logits_BTK, _ = gate.decide(window_BTF)
        return logits_BTK[0, -1], window_BTF.shape[1]
