"""What the composition is held against: the same networks without a gate, and the baselines.

Nothing here pays for a gate. Shapes: B clips, T frames in feeding order, L labels.
"""

from collections.abc import Mapping

import numpy as np

from sdcom.sampling import Int64Array
from training.evaluation.case import (
    DYNAMIC_CLASSIFIER,
    STATIC_CLASSIFIER,
    Case,
    dynamic_at,
    frame_counts,
    running_mean,
)
from training.evaluation.metrics import mean_accuracy
from training.evaluation.record import Method, Row


def control_rows(
    case: Case, plans: Mapping[float, Int64Array], rng: np.random.Generator, *, num_repeats: int
) -> list[Row]:
    """Return rows of every control.

    Args:
        case: what to score.
        plans: the composition's at several prices, whose mix of widths the random ones share.
        rng: draws those.
        num_repeats: draws of each mix; their mean is the row.
    """
    return [
        *(_random_row(case, lam, choices_BT, rng, num_repeats) for lam, choices_BT in plans.items()),
        *_one_width_rows(case),
        *_fewer_frames_rows(case),
        *_own_classifier_rows(case),
    ]


def _random_row(
    case: Case, lam: float, choices_BT: Int64Array, rng: np.random.Generator, num_repeats: int
) -> Row:
    """Deal the very widths that the gate chose to frames of any clip: the same mix, and so the same cost."""
    scores = []
    for _ in range(num_repeats):
        dealt_BT = rng.permutation(choices_BT.ravel()).reshape(choices_BT.shape)
        scores.append(case.score(case.logits(dealt_BT)[:, -1]))
    spread = float(np.std([scored.top1 for scored in scores], ddof=1)) if num_repeats > 1 else 0.0
    frames = case.composed_frames(choices_BT, gated=False)
    return case.row(Method.RANDOM, lam, mean_accuracy(scores), frames, top1_spread=spread)


def _one_width_rows(case: Case) -> list[Row]:
    shape_BT = (len(case.evidence.labels), case.num_frames)
    rows = []
    for choice, width in enumerate(case.model.info.config.widths):
        choices_BT = np.full(shape_BT, choice)
        scored = case.score(case.logits(choices_BT)[:, -1])
        frames = case.composed_frames(choices_BT, gated=False)
        rows.append(case.row(Method.ONE_WIDTH, width, scored, frames))
        if width > 0:
            mean_BL = case.evidence.dynamic_logits_KBTL[choice].mean(dim=1).float().cpu().numpy()
            rows.append(
                case.row(Method.ONE_WIDTH_TSN, width, case.score(mean_BL), _tsn(case.num_frames, width))
            )
    full_width = [row for row in rows if row.method is Method.ONE_WIDTH][-1]
    return [*rows, full_width.model_copy(update={"method": Method.BASELINE_FUSION, "setting": None})]


def _fewer_frames_rows(case: Case) -> list[Row]:
    """Return rows of the first frames in coarse-to-fine order, at full width, by both heads."""
    num_widths = case.model.info.config.num_widths
    choices_BT = np.full((len(case.evidence.labels), case.num_frames), num_widths - 1)
    fused_BTL = case.logits(choices_BT)
    tsn_BTL = running_mean(case.evidence.dynamic_logits_KBTL[-1].float().cpu().numpy())
    rows = []
    for count in frame_counts(case.num_frames):
        frames = case.composed_frames(choices_BT, np.full(len(choices_BT), count), gated=False)
        rows.append(case.row(Method.FEWER, count, case.score(fused_BTL[:, count - 1]), frames))
        scored = case.score(tsn_BTL[:, count - 1])
        rows.append(case.row(Method.FEWER_TSN, count, scored, _tsn(count, 1.0)))
    return [*rows, rows[-1].model_copy(update={"method": Method.BASELINE, "setting": None})]


def _own_classifier_rows(case: Case) -> list[Row]:
    static_BL = case.evidence.static_logits_BTL.mean(dim=1).float().cpu().numpy()
    frames = {"static": float(case.num_frames), STATIC_CLASSIFIER: float(case.num_frames)}
    return [case.row(Method.STATIC, None, case.score(static_BL), frames)]


def _tsn(num_frames: int, width: float) -> dict[str, float]:
    return {dynamic_at(width): float(num_frames), DYNAMIC_CLASSIFIER: float(num_frames)}
