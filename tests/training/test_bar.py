"""What a run shows while it is going on, on a terminal and in a file."""

import io

import pytest
from rich.console import Console

from training.bar import ProgressBar
from training.records import EpochReport, EpochStart, Journal, StepRecord


def _console(*, is_terminal: bool) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, force_terminal=is_terminal, width=150), screen


def _start(epoch: int = 0, step: int = 0) -> EpochStart:
    return EpochStart("policy", epoch, num_epochs=6, step=step, num_steps=2)


def _record(step: int) -> StepRecord:
    return StepRecord(
        stage="policy",
        epoch=0,
        step=step,
        num_steps=2,
        losses={"loss": 1.5 + step},
        gradient_norm=2.0,
        learning_rate=0.1,
        videos_per_second=7.25,
        data_wait_share=0.25,
    )


def test_the_bar_shows_throughput_and_waiting_and_prints_each_epoch() -> None:
    console, screen = _console(is_terminal=True)
    told: list[tuple[str, int, dict[str, float]]] = []
    with ProgressBar(console) as bar:
        journal = Journal([bar, EpochReport(lambda *figures: told.append(figures))])
        journal.start(_start())
        journal.step(_record(1))
        journal.epoch("policy", 0, {"loss": 2.0})
    assert "loss 2.500, 7.2 videos/s, 25% waiting for data" in screen.getvalue()
    assert "policy, epoch 1 of 6: loss 2.0000" in screen.getvalue()
    assert told == [("policy", 0, {"loss": 2.0})]


def test_an_epoch_is_shown_before_its_first_step_and_from_where_it_is_resumed() -> None:
    console, screen = _console(is_terminal=True)
    with ProgressBar(console) as bar:
        bar.on_start(_start(epoch=2, step=1))
    assert "policy, epoch 3 of 6" in screen.getvalue()
    assert "1/2" in screen.getvalue()


def test_work_before_the_first_step_is_shown_item_by_item() -> None:
    console, screen = _console(is_terminal=True)
    with ProgressBar(console) as bar:
        assert list(bar.tracked("decoding clips")("abc", 3)) == ["a", "b", "c"]
    assert "decoding clips" in screen.getvalue()


def test_a_file_gets_a_line_when_work_or_a_stage_begins_and_no_bars() -> None:
    console, screen = _console(is_terminal=False)
    with ProgressBar(console) as bar:
        assert list(bar.tracked("decoding clips")("abc", 3)) == ["a", "b", "c"]
        for epoch in (2, 3):
            bar.on_start(_start(epoch=epoch))
            bar.on_step(_record(1))
            bar.on_epoch("policy", epoch, {"loss": 2.0})
    assert screen.getvalue().splitlines() == [
        "decoding clips: 3",
        "policy, epoch 3 of 6; steps: 2",
        "policy, epoch 3 of 6: loss 2.0000",
        "policy, epoch 4 of 6: loss 2.0000",
    ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_processes_but_the_first_show_nothing(is_terminal: bool) -> None:
    console, screen = _console(is_terminal=is_terminal)
    with ProgressBar(console, shown=False) as bar:
        assert list(bar.tracked("decoding clips")("abc", 3)) == ["a", "b", "c"]
        bar.on_start(_start())
    assert screen.getvalue() == ""
