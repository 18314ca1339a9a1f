"""What the networks say of clips at every width: gathered once, so that any plan is a lookup.

Shapes: B videos, T frames in feeding order, N frames of any videos, K widths, F fused features, L labels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcom.budget import choose_widths, fit_widths
from sdcom.models.composition import SDCOM
from sdcom.models.fusion import FusionHead, running_maximum
from sdcom.preprocess import normalize
from sdcom.sampling import Int64Array
from training.batches import evaluation_clip
from training.data.prefetch import map_ahead
from training.data.sources import ClipSource
from training.policy import every_width

FRAMES_AT_ONCE = {"cpu": 64, "cuda": 512}
LOOKED_UP_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the networks can say of some clips.

    Attributes:
        projections_KBTF: what the fusion head makes of each frame, were it given that width.
        gate_logits_BTK: the gate's.
        static_logits_BTL: the static network's own classifier's.
        dynamic_logits_KBTL: the dynamic network's own classifier's, zeros at width 0.
        labels: class indices of each clip.
    """

    projections_KBTF: Tensor
    gate_logits_BTK: npt.NDArray[np.float32]
    static_logits_BTL: Tensor
    dynamic_logits_KBTL: Tensor
    labels: tuple[tuple[int, ...], ...]

    @property
    def first_labels(self) -> Int64Array:
        """The classes [B] that single-label scores are about."""
        return np.array([labels[0] for labels in self.labels], dtype=np.int64)


def gather_evidence(networks: SDCOM, source: ClipSource) -> Evidence:
    """Run every network at every width on each clip's evaluation frames.

    Raises:
        DataError: a clip cannot be read.
    """
    return joined(gathered_evidence(networks, source))


def gathered_evidence(networks: SDCOM, source: ClipSource) -> Iterator[Evidence]:
    """Yield the evidence of some clips at a time, as many as make a good batch, reading ahead.

    Raises:
        DataError: a clip cannot be read.
    """
    networks.eval()
    clip, device, size = networks.config.clip, next(networks.parameters()).device, clips_at_once(networks)
    chunks = [range(len(source.clips))[start : start + size] for start in range(0, len(source.clips), size)]
    read = map_ahead(
        lambda clip_index: evaluation_clip(source, clip_index, clip), chunks, num_threads=source.num_readers
    )
    for chunk, clips in zip(chunks, read, strict=True):
        frames_NHWC = torch.cat(list(clips)).to(device)
        yield _observed(networks, frames_NHWC, tuple(source.clips[i].labels for i in chunk))


def clips_at_once(networks: SDCOM) -> int:
    """Return how many clips make a good batch where the networks are."""
    frames = FRAMES_AT_ONCE[next(networks.parameters()).device.type]
    return max(1, frames // networks.config.clip.num_frames)


def joined(parts: Iterable[Evidence]) -> Evidence:
    """Return the evidence of all clips together.

    Raises:
        ValueError: there is none.
    """
    parts = list(parts)
    if not parts:
        raise ValueError("there is no evidence: no clip was given")
    return Evidence(
        torch.cat([part.projections_KBTF for part in parts], dim=1),
        np.concatenate([part.gate_logits_BTK for part in parts]),
        torch.cat([part.static_logits_BTL for part in parts]),
        torch.cat([part.dynamic_logits_KBTL for part in parts], dim=1),
        tuple(labels for part in parts for labels in part.labels),
    )


@torch.inference_mode()
def _observed(networks: SDCOM, frames_NHWC: Tensor, labels: tuple[tuple[int, ...], ...]) -> Evidence:
    shape_BT = (len(labels), -1)
    frames_NCHW = normalize(frames_NHWC, networks.config.clip)
    view = networks.look(frames_NCHW)
    supplements_KND, dynamic_logits_KNL = every_width(networks, frames_NCHW)
    gate_logits_BTK, _ = networks.gate.decide(networks.gate.embed(view.map_NCHW).unflatten(0, shape_BT))
    projections_KNF = torch.stack(
        [networks.fusion.project(view.features_ND, supplement_ND) for supplement_ND in supplements_KND]
    )
    return Evidence(
        projections_KBTF=projections_KNF.unflatten(1, shape_BT),
        gate_logits_BTK=gate_logits_BTK.float().cpu().numpy(),
        static_logits_BTL=networks.static.classify(view.features_ND).unflatten(0, shape_BT),
        dynamic_logits_KBTL=dynamic_logits_KNL.unflatten(1, shape_BT),
        labels=labels,
    )


@torch.inference_mode()
def planned_logits(fusion: FusionHead, evidence: Evidence, choices_BT: Int64Array) -> Tensor:
    """Return the anytime logits [B, T, L] under a plan: what serving would say after each frame.

    Args:
        fusion: the model's, in inference mode.
        evidence: of B clips.
        choices_BT: indices into the model's widths.
    """
    videos_B, frames_T = torch.arange(len(choices_BT)), torch.arange(choices_BT.shape[1])
    choices = torch.from_numpy(choices_BT)
    logits = []
    for rows in videos_B.split(LOOKED_UP_AT_ONCE):
        z_BTF = evidence.projections_KBTF[choices[rows], rows[:, None], frames_T[None]]
        logits.append(fusion.classify(running_maximum(z_BTF)))
    return torch.cat(logits)


def priced_choices(evidence: Evidence, macs_K: Sequence[int], lam: float) -> Int64Array:
    """Return the gate's choices [B, T] at one price for all clips; at 0, the trained policy's."""
    plans = [choose_widths(logits_TK, macs_K, lam) for logits_TK in evidence.gate_logits_BTK]
    return np.array([plan.choices for plan in plans])


def fitted_choices(evidence: Evidence, macs_K: Sequence[int], max_macs: int) -> Int64Array:
    """Return the gate's choices [B, T] when the dynamic network may spend `max_macs` on each clip."""
    return np.array(
        [fit_widths(logits_TK, macs_K, max_macs).choices for logits_TK in evidence.gate_logits_BTK]
    )
