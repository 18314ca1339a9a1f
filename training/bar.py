"""What a run shows to who started it: a bar of what is going on, and a line an epoch."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from training.data.tracking import ItemT, Track
from training.records import EpochStart, StepRecord


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar of the epoch at hand: its loss, videos per second, and the share of time waiting for data.

    Work that comes before or between epochs has its own (`tracked`). Where the console is no terminal, such
    as a file, there are no bars, but a line when such work begins.

    Args:
        console: to draw on.
        shown: false draws nothing.
    """

    def __init__(self, console: Console, *, shown: bool = True) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._shown = shown
        self._stage = ""
        self._epoch: tuple[EpochStart, TaskID] | None = None

    def __enter__(self) -> "ProgressBar":
        """Draw."""
        self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Leave the console as it was."""
        self._progress.stop()

    def tracked(self, description: str) -> Track:
        """Return what shows how far work is that goes through so many items."""

        def shown(items: Iterable[ItemT], total: int) -> Iterable[ItemT]:
            self._begin(f"{description}: {total}")
            task = self._progress.add_task(description, total=total, figures="")
            try:
                for item in items:
                    yield item
                    self._progress.advance(task)
            finally:
                self._progress.remove_task(task)

        return shown

    def on_start(self, start: EpochStart) -> None:
        """Begin the epoch's bar."""
        if start.stage != self._stage:
            self._begin(f"{start}; steps: {start.num_steps}")
            self._stage = start.stage
        self._end_epoch()
        task = self._progress.add_task(str(start), total=start.num_steps, completed=start.step, figures="")
        self._epoch = (start, task)

    def on_step(self, record: StepRecord) -> None:
        """Move the bar."""
        _, task = self._epoch_at_hand()
        first = next(iter(record.losses.values()))
        self._progress.update(
            task,
            completed=record.step + 1,
            refresh=True,
            figures=f"loss {first:.3f}, {record.videos_per_second:.1f} videos/s, "
            f"{record.data_wait_share:.0%} waiting for data",
        )

    def on_epoch(self, _stage: str, _epoch: int, losses: Mapping[str, float]) -> None:
        """Print the means, and end the bar."""
        start, _ = self._epoch_at_hand()
        terms = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        self._console.print(f"{start}: {terms}", highlight=False, soft_wrap=True)
        self._end_epoch()

    def _begin(self, text: str) -> None:
        """Say what begins where no bar can show it."""
        if self._shown and not self._console.is_terminal:
            self._console.print(text, highlight=False, soft_wrap=True)

    def _epoch_at_hand(self) -> tuple[EpochStart, TaskID]:
        assert self._epoch is not None, "an epoch begins before its steps"
        return self._epoch

    def _end_epoch(self) -> None:
        if self._epoch is not None:
            self._progress.remove_task(self._epoch[1])
            self._epoch = None
