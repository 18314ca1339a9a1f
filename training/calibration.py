"""After training: what the policy costs and how often it is right, at a grid of prices and confidences.

Shapes: B videos, T frames in feeding order, K widths, L labels.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sdcom.checkpoint import CalibrationPoint, ExitPoint, ModelInfo
from sdcom.cost import ModelMacs, model_macs
from sdcom.model import Model
from sdcom.models.composition import SDCOM
from sdcom.recognition import GIGA
from sdcom.sampling import Int64Array
from training.evidence import Evidence, planned_logits, priced_choices

PRICES = (0.0, *np.geomspace(0.05, 50, 25).round(4).tolist())
EXIT_PRICES = PRICES[::4]
TOLERANCE = 0.01
"""Of top-1, that the default budget may fall behind the trained policy."""
FEW_CLIPS = round(1 / TOLERANCE)
"""Of fewer clips, one more or less decides which budget is the default."""
HELD_OUT_GROUPS = "held-out groups"
REFIT = "refit"
"""Where a record says that its accuracies are those of another model."""
TRAINING_CLIPS = "training clips: no group could be held out"
"""What a record says that training calibrated on."""
CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def calibrated(model: Model, evidence: Evidence, *, on: str) -> ModelInfo:
    """Return a model's record with new calibration tables and the default budget that follows from them.

    Args:
        model: in inference mode.
        evidence: of real clips that it was not trained on; a rendered clip is no evidence.
        on: which clips those are, for the record.
    """
    points = calibrate(model.networks, evidence)
    provenance = {"num_calibration_clips": len(evidence.labels), "calibrated_on": on}
    return model.info.model_copy(
        update={
            "default_budget": default_budget(points),
            "calibration": points,
            "exits": calibrate_exits(model.networks, evidence),
            "provenance": {**model.info.provenance, **provenance},
        }
    )


def calibrated_as(model: Model, evidence: Evidence, first: ModelInfo) -> ModelInfo:
    """Return a model's record with its own costs, and the accuracy that another one had at those costs.

    The default budget is what the price that was chosen for the other one costs here. Early exits are the
    other one's.

    For a policy that was trained again on the very clips that the first one was calibrated on: its accuracy
    on them would tell nothing.

    Args:
        model: in inference mode.
        evidence: of clips whose labels need not be unknown to it.
        first: record of the model that was calibrated on clips that it had not seen.
    """
    by_share = sorted(first.calibration, key=lambda point: point.share)
    shares, top1 = [point.share for point in by_share], [point.top1 for point in by_share]
    points = tuple(
        point.model_copy(update={"top1": float(np.interp(point.share, shares, top1))})
        for point in calibrate(model.networks, evidence)
    )
    chosen = budgeted_point(first)
    told = {name: first.provenance[name] for name in ("num_calibration_clips", "calibrated_on")}
    return model.info.model_copy(
        update={
            "default_budget": None if chosen is None else _budget(_share_at(points, chosen.lam)),
            "calibration": points,
            "exits": first.exits,
            "provenance": {**model.info.provenance, **told, REFIT: "on all clips, after calibration"},
        }
    )


def calibrate(
    networks: SDCOM, evidence: Evidence, prices: Sequence[float] = PRICES
) -> tuple[CalibrationPoint, ...]:
    """Return cost, accuracy and width shares at each price, over clips that were best not trained on."""
    macs = model_macs(networks.config)
    num_frames, num_widths = networks.config.clip.num_frames, networks.config.num_widths
    points = []
    for lam in prices:
        choices_BT = priced_choices(evidence, macs.dynamic_by_choice, lam)
        predicted_B = planned_logits(networks, evidence, choices_BT)[:, -1].argmax(dim=-1)
        mean_macs = float(macs_after_each_frame(macs, choices_BT)[:, -1].mean())
        counts_K = np.bincount(choices_BT.ravel(), minlength=num_widths)
        points.append(
            CalibrationPoint(
                lam=lam,
                gmacs=mean_macs / GIGA,
                share=mean_macs / macs.baseline(num_frames),
                top1=float(np.mean(predicted_B.cpu().numpy() == evidence.first_labels)),
                width_shares=tuple((counts_K / counts_K.sum()).tolist()),
            )
        )
    return tuple(points)


def calibrate_exits(
    networks: SDCOM,
    evidence: Evidence,
    prices: Sequence[float] = EXIT_PRICES,
    confidences: Sequence[float] = CONFIDENCES,
) -> tuple[ExitPoint, ...]:
    """Return cost and accuracy of stopping at the first frame whose prediction is confident enough."""
    macs = model_macs(networks.config)
    baseline = macs.baseline(networks.config.clip.num_frames)
    points = []
    for lam in prices:
        choices_BT = priced_choices(evidence, macs.dynamic_by_choice, lam)
        logits_BTL = planned_logits(networks, evidence, choices_BT)
        predicted_BT = logits_BTL.argmax(dim=-1).cpu().numpy()
        macs_BT = macs_after_each_frame(macs, choices_BT)
        for confidence in confidences:
            last_B = exit_steps(logits_BTL, confidence) - 1
            videos_B = np.arange(len(last_B))
            mean_macs = float(macs_BT[videos_B, last_B].mean())
            points.append(
                ExitPoint(
                    lam=lam,
                    confidence=confidence,
                    num_frames=float(last_B.mean()) + 1,
                    gmacs=mean_macs / GIGA,
                    share=mean_macs / baseline,
                    top1=float(np.mean(predicted_BT[videos_B, last_B] == evidence.first_labels)),
                )
            )
    return tuple(points)


def exit_steps(logits_BTL: Tensor, confidence: float) -> Int64Array:
    """Return how many frames each video is fed until its prediction's probability reaches `confidence`.

    Args:
        logits_BTL: after each frame.
        confidence: in [0, 1]; a video that never reaches it is fed all T frames.
    """
    sure_BT = (logits_BTL.softmax(dim=-1).amax(dim=-1) >= confidence).cpu().numpy()
    sure_BT[:, -1] = True
    return np.asarray(sure_BT.argmax(axis=1) + 1, dtype=np.int64)


def macs_after_each_frame(macs: ModelMacs, choices_BT: Int64Array) -> npt.NDArray[np.int64]:
    """Return what each video has cost once each frame was fed, all parts together: [B, T]."""
    dynamic_BT = np.array(macs.dynamic_by_choice)[choices_BT]
    return np.asarray(np.cumsum(dynamic_BT + macs.floor(1), axis=1))


def default_point(
    points: Sequence[CalibrationPoint], tolerance: float = TOLERANCE
) -> CalibrationPoint | None:
    """Return the cheapest calibrated point that is as accurate to `tolerance` as the trained policy.

    None where every plan costs more than the baseline, so that no budget could be kept.
    """
    if min(point.share for point in points) > 1:
        return None
    good_enough = [point for point in points if point.top1 >= points[0].top1 - tolerance]
    return min(good_enough, key=lambda point: point.share)


def default_budget(points: Sequence[CalibrationPoint], tolerance: float = TOLERANCE) -> float | None:
    """Return the share of the baseline that `default_point` costs, at most 1; None where there is none."""
    point = default_point(points, tolerance)
    return None if point is None else _budget(point.share)


def budgeted_point(info: ModelInfo) -> CalibrationPoint | None:
    """Return the calibrated point that a record's default budget pays for; None where it has none."""
    budget = info.default_budget
    if budget is None:
        return None
    return min(info.calibration, key=lambda point: abs(point.share - budget))


def _budget(share: float) -> float:
    """Return the budget that pays for a share of the baseline."""
    rounded = math.ceil(share * 10_000) / 10_000  # up: rounded down, the floor itself would be refused
    return min(rounded, 1.0)  # an untrained policy may cost more than the baseline


def _share_at(points: Sequence[CalibrationPoint], lam: float) -> float:
    """Return what a price costs, by a table in rising order of price."""
    return float(np.interp(lam, [point.lam for point in points], [point.share for point in points]))


def accuracy_interval(top1: float, num_clips: int) -> tuple[float, float]:
    """Return what the accuracy over all clips may be, at 95 %, given that over a few (Wilson's interval).

    Clips that resemble each other, such as those of one group, tell less than this supposes.

    Args:
        top1: share of the clips that were recognised.
        num_clips: of which, at least 1.
    """
    z_squared = 1.96**2
    scale = 1 + z_squared / num_clips
    centre = (top1 + z_squared / (2 * num_clips)) / scale
    variance = top1 * (1 - top1) / num_clips + z_squared / (4 * num_clips**2)
    half = math.sqrt(z_squared * variance) / scale
    return max(centre - half, 0.0), min(centre + half, 1.0)
