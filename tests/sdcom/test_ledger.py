"""The ledger says what was executed: torch's own counter over the real call agrees to the last MAC."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from sdcom.engine.ledger import Ledger, Part
from sdcom.engine.reference import compose
from sdcom.engine.stream import CausalStream
from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import Model
from tests.conftest import TINY_CONFIG
from tests.sdcom.conftest import always, patterned_frames

T = TINY_CONFIG.clip.num_frames


@pytest.mark.parametrize(
    "choices", [(0, 0, 0, 0), (4, 4, 4, 4), (0, 1, 2, 3), (3, 0, 3, 1), (4, 0, 0, 0)], ids=str
)
def test_the_ledger_is_what_torch_counted(tiny_model: Model, choices: tuple[int, ...]) -> None:
    frames_THWC, planner = patterned_frames(T, 0), always(tiny_model, choices)
    with FlopCounterMode(display=False) as counter:
        ledger = compose(tiny_model, frames_THWC, planner).ledger
    assert counter.get_total_flops() == 2 * ledger.total_macs
    assert ledger.macs[Part.DYNAMIC] == planner(None).macs  # type: ignore[arg-type]  # ignores its argument
    widths = TINY_CONFIG.widths
    assert ledger.width_counts == Counter(widths[choice] for choice in choices)
    assert ledger.total_macs == tiny_model.info.macs.total([widths[choice] for choice in choices])


def test_a_streams_ledger_is_what_torch_counted_also_when_it_slides(tiny_model: Model) -> None:
    macs, stream = tiny_model.info.macs, CausalStream(TorchBackend(tiny_model), lam=0.5)
    for index, frame_HWC in enumerate(patterned_frames(2 * T, 4)):
        with FlopCounterMode(display=False) as counter:
            ledger = stream.push(frame_HWC).ledger
        assert counter.get_total_flops() == 2 * ledger.total_macs
        num_steps = 1 if index < T else T
        assert ledger.macs[Part.GATE] == macs.gate + (num_steps - 1) * macs.gate_step
        assert ledger.baseline_macs == macs.baseline_frame
        assert ledger.width_counts.total() == 1


@given(
    st.lists(
        st.tuples(st.integers(1, 10**13), st.dictionaries(st.sampled_from(Part), st.integers(0, 10**13)))
    )
)
def test_the_saving_of_many_is_of_their_sums_never_a_mean_of_ratios(
    videos: list[tuple[int, dict[Part, int]]],
) -> None:
    total = Ledger()
    for baseline_macs, macs in videos:
        total.baseline_macs += baseline_macs
        total.macs.update(macs)
    executed = sum(sum(macs.values()) for _, macs in videos)
    baseline = sum(baseline_macs for baseline_macs, _ in videos)
    assert total.total_macs == executed
    assert total.saved == (1 - executed / baseline if videos else 0)


def test_more_work_than_the_baselines_is_a_negative_saving() -> None:
    assert Ledger(100, Counter({Part.STATIC: 30, Part.DYNAMIC: 100})).saved == pytest.approx(-0.3)
