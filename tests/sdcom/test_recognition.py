"""What an answer says, and that its figures are exact."""

import json
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sdcom.engine.ledger import Ledger, Part
from sdcom.errors import InvalidParameterError
from sdcom.recognition import (
    GIGA,
    Budget,
    FrameResult,
    Prediction,
    Recognition,
    VideoFacts,
    compute_dict,
    leaders,
    softmax,
    top_predictions,
)

whole_macs = st.integers(0, 10**13)
logits = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30)


@given(whole_macs, st.integers(1, 10**13))
@example(4_109_464_577, 65_431_000_003)
def test_the_figures_of_an_answer_buy_the_same_answer_again(macs: int, baseline_macs: int) -> None:
    assert Budget(gflops=macs / GIGA).macs(baseline_macs) == macs
    if macs <= baseline_macs:
        assert Budget(share=macs / baseline_macs).macs(baseline_macs) == macs


@given(st.floats(0, 1e4), st.integers(1, 10**13))
@example(1.7e308, 1)
def test_a_budgets_macs_are_never_above_it(gflops: float, baseline_macs: int) -> None:
    assert Budget(gflops=gflops).macs(baseline_macs) / GIGA <= gflops


@given(st.floats(0, 1), st.integers(1, 10**13))
def test_a_share_never_buys_more_than_that_share(share: float, baseline_macs: int) -> None:
    macs = Budget(share=share).macs(baseline_macs)
    assert 0 <= macs <= baseline_macs
    assert macs / baseline_macs <= share


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10**13))
def test_a_larger_share_never_buys_less(one: float, other: float, baseline_macs: int) -> None:
    small, large = (Budget(share=share).macs(baseline_macs) for share in sorted((one, other)))
    assert small <= large


@pytest.mark.parametrize("given_", [{}, {"share": 0.5, "gflops": 3}])
def test_a_budget_is_a_share_or_gflops_and_not_both(given_: dict[str, float]) -> None:
    with pytest.raises(InvalidParameterError, match="only one"):
        Budget(**given_)


@pytest.mark.parametrize("share", [-0.1, 1.0001, math.nan, math.inf])
def test_a_share_outside_of_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(InvalidParameterError, match=f"between 0 and 1.*{share}"):
        Budget(share=share)


@pytest.mark.parametrize("gflops", [-1, math.nan, math.inf])
def test_gflops_that_are_no_amount_are_refused(gflops: float) -> None:
    with pytest.raises(InvalidParameterError, match=f"finite number, at least 0, got {gflops}"):
        Budget(gflops=gflops)


@given(whole_macs, st.dictionaries(st.sampled_from(Part), whole_macs))
def test_gflops_give_the_whole_macs_back(baseline_macs: int, macs: dict[Part, int]) -> None:
    ledger = Ledger(baseline_macs, Counter(macs))
    compute = json.loads(json.dumps(compute_dict(ledger)))
    assert round(compute["baseline_gflops"] * 1e9) == baseline_macs
    assert round(compute["gflops"] * 1e9) == ledger.total_macs
    parts = {part: round(compute[f"{part}_gflops"] * 1e9) for part in Part}
    assert parts == {part: macs.get(part, 0) for part in Part}
    assert sum(parts.values()) == ledger.total_macs


def test_widths_are_written_as_people_write_them_in_rising_order() -> None:
    ledger = Ledger(100, Counter(), Counter({1.0: 2, 0.25: 3, 0.0: 11}), lam=0.5)
    compute = compute_dict(ledger)
    assert list(compute["widths"].items()) == [("0", 11), ("0.25", 3), ("1", 2)]
    assert compute["lam"] == 0.5
    assert compute["saved"] == 1


def test_an_answer_is_json_from_end_to_end() -> None:
    recognition = Recognition(
        model="tiny@0",
        predictions=(Prediction("wave", 2, 0.75),),
        frames=(FrameResult(0.5, 0.25, "wave", 1 / 3),),
        ledger=Ledger(2 * GIGA, Counter({Part.STATIC: 500_000_000}), Counter({0.25: 1})),
        timing_ms={"decode": 1.5},
        video=VideoFacts(1.5, 320, 240, "mp4", "h264", "decord", 0, 0),
    )
    document = json.loads(json.dumps(recognition.to_dict(), allow_nan=False))
    assert document["predictions"] == [{"label": "wave", "index": 2, "score": 0.75}]
    assert document["frames"] == [{"time_s": 0.5, "width": 0.25, "label": "wave", "score": 1 / 3}]
    assert document["compute"]["saved"] == 0.75
    assert document["video"]["codec"] == "h264"
    assert document["timing_ms"] == {"decode": 1.5}


@given(logits)
def test_scores_are_probabilities(logits_L: list[float]) -> None:
    scores_L = softmax(np.array(logits_L, dtype=np.float32))
    assert (scores_L >= 0).all()
    assert scores_L.sum() == pytest.approx(1)


def test_scores_are_those_of_the_formula() -> None:
    np.testing.assert_allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]])


@given(logits, st.integers(1, 40))
@example([0.0, 4.2e-45], 1)  # different logits whose scores are rounded to the same number
def test_predictions_are_best_first_and_never_more_than_there_are(logits_L: list[float], count: int) -> None:
    labels = [f"label {index}" for index in range(len(logits_L))]
    best = top_predictions(np.array(logits_L), labels, count)
    assert len(best) == min(count, len(labels))
    assert all(one.score >= other.score for one, other in pairwise(best))
    assert all(prediction.label == labels[prediction.index] for prediction in best)
    assert best[0].index == int(np.argmax(logits_L))


def test_equal_scores_are_in_the_order_of_the_classes() -> None:
    best = top_predictions(np.zeros(4), ("a", "b", "c", "d"), 3)
    assert [prediction.label for prediction in best] == ["a", "b", "c"]


@given(
    arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-30, 30, width=32))
)
def test_the_leader_of_each_row_is_the_first_of_its_predictions(logits_TL: npt.NDArray[np.float32]) -> None:
    labels = [f"label {index}" for index in range(logits_TL.shape[1])]
    for leader, logits_L in zip(leaders(logits_TL, labels), logits_TL, strict=True):
        (first,) = top_predictions(logits_L, labels, 1)
        assert (leader.index, leader.label) == (first.index, first.label)
        assert leader.score == pytest.approx(first.score, rel=1e-12)
