"""Scores are scored as the literature's tools do."""

import numpy as np
import pytest

from training.evaluation.metrics import accuracy, average_precision, mean_accuracy, mean_average_precision


@pytest.mark.parametrize(
    ("scores", "relevant", "expected"),
    [
        # The example of scikit-learn's documentation of average_precision_score, which gives 0.83.
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 1 / 2 * 1 + 1 / 2 * 2 / 3),
        ([0.9, 0.8, 0.7], [1, 1, 0], 1.0),
        ([0.9, 0.8, 0.7], [0, 0, 1], 1 / 3),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 1 / 4),  # all tied: retrieved at once
        ([0.9, 0.5, 0.5, 0.1], [0, 1, 0, 1], 1 / 2 * 1 / 3 + 1 / 2 * 2 / 4),  # a tie in the middle
    ],
)
def test_average_precision_by_hand(scores: list[float], relevant: list[int], expected: float) -> None:
    found = average_precision(np.array(scores), np.array(relevant, dtype=bool))
    assert found == pytest.approx(expected)


def test_the_order_of_tied_clips_does_not_matter() -> None:
    scores, relevant = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([0, 1, 0, 1, 1], dtype=bool)
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 3, 1, 4]):
        again = average_precision(scores[order], relevant[order])
        assert again == pytest.approx(average_precision(scores, relevant))


def test_nothing_relevant_has_no_average_precision() -> None:
    with pytest.raises(ValueError, match="at least one relevant"):
        average_precision(np.array([0.1]), np.array([False]))


def test_a_class_that_no_clip_is_of_does_not_count() -> None:
    scores_BL = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    relevant_BL = np.array([[True, False, False], [False, True, False]])
    assert mean_average_precision(scores_BL, relevant_BL) == 1.0


def test_top_one_and_five_are_about_the_first_label() -> None:
    logits_BL = np.array([[6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6]], dtype=np.float32)
    scored = accuracy(logits_BL, [(1, 0), (6,)])
    assert (scored.top1, scored.top5) == (0.5, 1.0)
    assert accuracy(logits_BL, [(5,), (1,)]).top5 == 0.0


def test_a_clip_of_two_labels_is_of_both_only_where_all_labels_are_asked_for() -> None:
    logits_BL = np.array([[3, 2, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    scored = accuracy(logits_BL, [(1, 0), (0,), (2,)])
    # Class 0 ranks the first clip above the others, which tie; class 1 the second, then the first.
    assert scored.map_first == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert scored.map_all == pytest.approx(((1 / 2 + 1 / 2 * 2 / 3) + 1 / 2 + 1) / 3)


def test_means_are_taken_score_by_score() -> None:
    logits_BL = np.eye(3, dtype=np.float32)
    right, wrong = accuracy(logits_BL, [(0,), (1,), (2,)]), accuracy(logits_BL, [(1,), (2,), (0,)])
    assert mean_accuracy([right, wrong]).top1 == 0.5
    assert mean_accuracy([right]) == right
