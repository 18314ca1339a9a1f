"""After training: what the policy costs and how often it is right, at a grid of prices.

Shapes: T frames in feeding order, K widths, L labels, D features.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcom.budget import WidthPlan, choose_widths
from sdcom.checkpoint import CalibrationPoint
from sdcom.cost import model_macs
from sdcom.models.composition import SDCOM
from sdcom.preprocess import normalize
from sdcom.recognition import GIGA
from training.batches import evaluation_clip
from training.data.sources import ClipSource
from training.policy import every_width

PRICES = (0.0, *np.geomspace(0.05, 50, 25).round(4).tolist())


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the networks can say of one clip, at every width, so that any plan is a lookup."""

    static_TD: Tensor
    supplements_KTD: Tensor
    gate_logits_TK: npt.NDArray[np.float32]
    static_logits_L: Tensor
    full_width_logits_L: Tensor
    label: int


@torch.inference_mode()
def gather_evidence(networks: SDCOM, source: ClipSource) -> Iterator[Evidence]:
    """Run every network at every width on each clip's evaluation frames."""
    networks.eval()
    for clip_index, labelled in enumerate(source.clips):
        clip = networks.config.clip
        frames_TCHW = normalize(evaluation_clip(source, clip_index, clip), clip)
        view = networks.look(frames_TCHW)
        supplements_KTD, logits_KTL = every_width(networks, frames_TCHW)
        gate_logits_BTK, _ = networks.gate.decide(networks.gate.embed(view.map_NCHW)[None])
        yield Evidence(
            static_TD=view.features_ND,
            supplements_KTD=supplements_KTD,
            gate_logits_TK=gate_logits_BTK[0].cpu().numpy(),
            static_logits_L=networks.static.classify(view.features_ND).mean(dim=0),
            full_width_logits_L=logits_KTL[-1].mean(dim=0),
            label=labelled.label,
        )


@torch.inference_mode()
def planned_logits(networks: SDCOM, evidence: Evidence, plan: WidthPlan) -> Tensor:
    """Return the video's logits [L] under a plan."""
    frames = range(len(plan.choices))
    dynamic_TD = torch.stack([evidence.supplements_KTD[plan.choices[t], t] for t in frames])
    logits_BTL: Tensor = networks.fusion(evidence.static_TD[None], dynamic_TD[None])
    return logits_BTL[0, -1]


def calibrate(
    networks: SDCOM, evidence: Sequence[Evidence], prices: Sequence[float] = PRICES
) -> tuple[CalibrationPoint, ...]:
    """Return cost, accuracy and width shares at each price, over clips that were best not trained on."""
    macs = model_macs(networks.config)
    num_frames, num_widths = networks.config.clip.num_frames, networks.config.num_widths
    points = []
    for lam in prices:
        plans = [choose_widths(clip.gate_logits_TK, macs.dynamic_by_choice, lam) for clip in evidence]
        right = [
            int(planned_logits(networks, clip, plan).argmax()) == clip.label
            for clip, plan in zip(evidence, plans, strict=True)
        ]
        mean_macs = macs.floor(num_frames) + float(np.mean([plan.macs for plan in plans]))
        counts = np.bincount(np.concatenate([plan.choices for plan in plans]), minlength=num_widths)
        points.append(
            CalibrationPoint(
                lam=lam,
                gmacs=mean_macs / GIGA,
                share=mean_macs / macs.baseline(num_frames),
                top1=float(np.mean(right)),
                width_shares=tuple((counts / counts.sum()).tolist()),
            )
        )
    return tuple(points)


def default_budget(points: Sequence[CalibrationPoint], tolerance: float = 0.01) -> float:
    """Return the smallest calibrated share, at most 1, as accurate to `tolerance` as the trained policy."""
    good_enough = [point for point in points if point.top1 >= points[0].top1 - tolerance]
    share = min(point.share for point in good_enough)
    rounded = math.ceil(share * 10_000) / 10_000  # up: rounded down, the floor itself would be refused
    return min(rounded, 1.0)  # an untrained policy may cost more than the baseline
