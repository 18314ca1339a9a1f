"""What the networks say of clips at every width: gathered once, so that any plan is a lookup.

With temporal shift it is not: what a frame gives depends on which others share its width. The frames are then
kept, and a plan is run to be judged.

Shapes: B videos, T frames in feeding order, N frames of any videos, K widths, F fused features, L labels.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcom.budget import choose_widths, fit_widths
from sdcom.models.composition import SDCOM
from sdcom.models.fusion import running_maximum
from sdcom.models.temporal_shift import earlier_rows, rows_before
from sdcom.preprocess import normalize
from sdcom.sampling import Int64Array
from training.batches import evaluation_clip
from training.data.prefetch import map_ahead
from training.data.sources import ClipSource
from training.data.tracking import Track, not_shown
from training.views import every_width

FRAMES_AT_ONCE = {"cpu": 64, "cuda": 128}  # MobileNetV2s at 224 px hold some 17 MB a frame in float32
LOOKED_UP_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class ShiftedFrames:
    """What running a plan needs of a model with temporal shift.

    Attributes:
        frames_BTHWC: uint8, on the processor.
        static_BTD: the static network's features of them.
    """

    frames_BTHWC: Tensor
    static_BTD: Tensor


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the networks can say of some clips.

    Attributes:
        projected: what the fusion head makes of each frame were it given each width, [K, B, T, F]; with
            temporal shift, what it takes to find out.
        gate_logits_BTK: the gate's.
        static_logits_BTL: the static network's own classifier's.
        dynamic_logits_KBTL: the dynamic network's own classifier's, zeros at width 0.
        labels: class indices of each clip.
    """

    projected: Tensor | ShiftedFrames
    gate_logits_BTK: npt.NDArray[np.float32]
    static_logits_BTL: Tensor
    dynamic_logits_KBTL: Tensor
    labels: tuple[tuple[int, ...], ...]

    @property
    def first_labels(self) -> Int64Array:
        """The classes [B] that single-label scores are about."""
        return np.array([labels[0] for labels in self.labels], dtype=np.int64)


def gather_evidence(networks: SDCOM, source: ClipSource, track: Track = not_shown) -> Evidence:
    """Run every network at every width on each clip's evaluation frames.

    Args:
        networks: in any mode, on any device.
        source: of the clips, at least one.
        track: shows how far it is, in batches of clips.

    Raises:
        DataError: a clip cannot be read.
    """
    num_parts = math.ceil(len(source.clips) / clips_at_once(networks))
    return joined(track(gathered_evidence(networks, source), num_parts))


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
        _joined_projections([part.projected for part in parts]),
        np.concatenate([part.gate_logits_BTK for part in parts]),
        torch.cat([part.static_logits_BTL for part in parts]),
        torch.cat([part.dynamic_logits_KBTL for part in parts], dim=1),
        tuple(labels for part in parts for labels in part.labels),
    )


def _joined_projections(parts: Sequence[Tensor | ShiftedFrames]) -> Tensor | ShiftedFrames:
    shifted = [part for part in parts if isinstance(part, ShiftedFrames)]
    if not shifted:
        return torch.cat([part for part in parts if isinstance(part, Tensor)], dim=1)
    return ShiftedFrames(
        torch.cat([part.frames_BTHWC for part in shifted]), torch.cat([part.static_BTD for part in shifted])
    )


@torch.inference_mode()
def _observed(networks: SDCOM, frames_NHWC: Tensor, labels: tuple[tuple[int, ...], ...]) -> Evidence:
    shape_BT = (len(labels), networks.config.clip.num_frames)
    frames_NCHW = normalize(frames_NHWC, networks.config.clip)
    view = networks.look(frames_NCHW)
    gate_logits_BTK, _ = networks.gate.decide(networks.gate.embed(view.map_NCHW).unflatten(0, shape_BT))
    projected: Tensor | ShiftedFrames
    if networks.config.temporal_shift:
        dynamic_logits_KNL = _every_shifted_width(networks, frames_NCHW, shape_BT)
        kept_BTHWC = frames_NHWC.unflatten(0, shape_BT).cpu()
        projected = ShiftedFrames(kept_BTHWC, view.features_ND.unflatten(0, shape_BT))
    else:
        supplements_KND, dynamic_logits_KNL = every_width(networks, frames_NCHW)
        projections = [networks.fusion.project(view.features_ND, filled_ND) for filled_ND in supplements_KND]
        projected = torch.stack(projections).unflatten(1, shape_BT)
    return Evidence(
        projected=projected,
        gate_logits_BTK=gate_logits_BTK.float().cpu().numpy(),
        static_logits_BTL=networks.static.classify(view.features_ND).unflatten(0, shape_BT),
        dynamic_logits_KBTL=dynamic_logits_KNL.unflatten(1, shape_BT),
        labels=labels,
    )


def _every_shifted_width(networks: SDCOM, frames_NCHW: Tensor, shape_BT: tuple[int, int]) -> Tensor:
    """Return the dynamic network's logits [K, N, L] with every frame at the same width."""
    one_width_BT = torch.ones(shape_BT, dtype=torch.bool, device=frames_NCHW.device)
    earlier = earlier_rows(rows_before(one_width_BT))
    logits = [
        networks.dynamic.classify(networks.fill(frames_NCHW, width, earlier)) * (width > 0)
        for width in networks.config.widths
    ]
    return torch.stack(logits)


@torch.inference_mode()
def planned_logits(networks: SDCOM, evidence: Evidence, choices_BT: Int64Array) -> Tensor:
    """Return the anytime logits [B, T, L] under a plan: what serving would say after each frame.

    Args:
        networks: in inference mode.
        evidence: of B clips.
        choices_BT: indices into the model's widths.
    """
    choices = torch.from_numpy(choices_BT)
    shifted = isinstance(evidence.projected, ShiftedFrames)
    size = clips_at_once(networks) if shifted else LOOKED_UP_AT_ONCE
    logits = []
    for rows in torch.arange(len(choices_BT)).split(size):
        z_BTF = _fused(networks, evidence.projected, choices[rows], rows)
        logits.append(networks.fusion.classify(running_maximum(z_BTF)))
    return torch.cat(logits)


def _fused(networks: SDCOM, projected: Tensor | ShiftedFrames, choices_BT: Tensor, clips_B: Tensor) -> Tensor:
    """Return what the fusion head makes of some clips' frames at these widths, [B, T, F]."""
    if isinstance(projected, Tensor):
        return projected[choices_BT, clips_B[:, None], torch.arange(choices_BT.shape[1])[None]]
    device = projected.static_BTD.device
    frames_NCHW = normalize(projected.frames_BTHWC[clips_B].flatten(0, 1).to(device), networks.config.clip)
    choices_BT = choices_BT.to(device)
    dynamic_ND = frames_NCHW.new_zeros(len(frames_NCHW), networks.dynamic.num_features)
    for choice, width in enumerate(networks.config.widths):
        chosen_BT = choices_BT == choice
        rows_N = chosen_BT.flatten().nonzero()[:, 0]
        if width > 0 and len(rows_N):
            before_N = rows_before(chosen_BT)[rows_N]
            position_N = chosen_BT.flatten().cumsum(0) - 1  # of a frame among those of this width
            among_N = torch.where(before_N >= 0, position_N[before_N], -1)
            dynamic_ND[rows_N] = networks.fill(frames_NCHW[rows_N], width, earlier_rows(among_N))
    static_ND = projected.static_BTD[clips_B].flatten(0, 1)
    z_NF = networks.fusion.project(static_ND, dynamic_ND)
    return z_NF.view(*choices_BT.shape, -1)


def priced_choices(evidence: Evidence, macs_K: Sequence[int], lam: float) -> Int64Array:
    """Return the gate's choices [B, T] at one price for all clips; at 0, the trained policy's."""
    plans = [choose_widths(logits_TK, macs_K, lam) for logits_TK in evidence.gate_logits_BTK]
    return np.array([plan.choices for plan in plans])


def fitted_choices(evidence: Evidence, macs_K: Sequence[int], max_macs: int) -> Int64Array:
    """Return the gate's choices [B, T] when the dynamic network may spend `max_macs` on each clip."""
    return np.array(
        [fit_widths(logits_TK, macs_K, max_macs).choices for logits_TK in evidence.gate_logits_BTK]
    )
