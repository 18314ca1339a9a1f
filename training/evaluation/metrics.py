"""How often scores are right. Shapes: B clips, L classes, N scores of one class."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sdcom.recognition import softmax


class Accuracy(BaseModel):
    """How often a model is right, each in [0, 1].

    Attributes:
        top1: share of clips whose best class is their first label.
        top5: share whose first label is among the best five classes.
        map_first: mean average precision over classes, a clip being of its first label alone, as the
            literature scores ActivityNet.
        map_all: likewise, a clip being of all its labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top1: float
    top5: float
    map_first: float
    map_all: float


def accuracy(logits_BL: npt.NDArray[np.float32], labels: Sequence[tuple[int, ...]]) -> Accuracy:
    """Score logits.

    Args:
        logits_BL: one row a clip.
        labels: each clip's class indices, the first of which is the one that single-label scores are about.
    """
    first_B = np.array([of_clip[0] for of_clip in labels])
    first_BL, all_BL = np.zeros(logits_BL.shape, dtype=bool), np.zeros(logits_BL.shape, dtype=bool)
    first_BL[np.arange(len(labels)), first_B] = True
    for row_L, of_clip in zip(all_BL, labels, strict=True):
        row_L[list(of_clip)] = True
    probabilities_BL = softmax(logits_BL)
    best_BL = np.argsort(-logits_BL, axis=1, kind="stable")
    return Accuracy(
        top1=float(np.mean(best_BL[:, 0] == first_B)),
        top5=float(np.mean((best_BL[:, :5] == first_B[:, None]).any(axis=1))),
        map_first=mean_average_precision(probabilities_BL, first_BL),
        map_all=mean_average_precision(probabilities_BL, all_BL),
    )


def mean_accuracy(accuracies: Sequence[Accuracy]) -> Accuracy:
    """Return the mean of every score."""
    names = Accuracy.model_fields
    return Accuracy(**{name: float(np.mean([getattr(row, name) for row in accuracies])) for name in names})


def mean_average_precision(scores_BL: npt.NDArray[np.float64], relevant_BL: npt.NDArray[np.bool_]) -> float:
    """Return the mean, over the classes that any clip is of, of their average precisions."""
    present = np.flatnonzero(relevant_BL.any(axis=0))
    return float(np.mean([average_precision(scores_BL[:, i], relevant_BL[:, i]) for i in present]))


def average_precision(scores_N: npt.NDArray[np.float64], relevant_N: npt.NDArray[np.bool_]) -> float:
    """Return the area under the precision-recall staircase, as scikit-learn's average_precision_score does.

    Clips of equal score are retrieved together, so that their order does not matter.

    Raises:
        ValueError: nothing is relevant.
    """
    num_relevant = int(relevant_N.sum())
    if num_relevant == 0:
        raise ValueError("average precision needs at least one relevant clip")
    order_N = np.argsort(-scores_N, kind="stable")
    found_N = np.cumsum(relevant_N[order_N])
    last_of_ties = np.flatnonzero(np.append(np.diff(scores_N[order_N]) != 0, [True]))
    found = found_N[last_of_ties]
    gained = np.diff(found, prepend=0) / num_relevant
    return float(np.sum(gained * found / (last_of_ties + 1)))
