"""The loop: parts of a batch, figures that are no numbers, waiting for data, and where the state is kept."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sdcom.config import ClipConfig
from sdcom.errors import InvalidParameterError
from tests.training.conftest import batches_of, patterned_store
from training.batches import Batch
from training.checkpoints import Checkpoints, Identity, Position, Stateful
from training.loop import Backward, LoopOptions, fit
from training.meter import NotFiniteError
from training.optimize import Part
from training.recipes import Optimization
from training.records import EpochStart, Journal, StepRecord

CLIP = ClipConfig(num_frames=1, short_side=32, crop=32)
QUICK = Optimization(learning_rate=0.1, epochs=2, batch_size=4, warmup_epochs=0, milestones=(1,))


class Brightness:
    """A stage that fits one number to the mean of its clips."""

    name = "brightness"

    def __init__(self, num_clips: int = 8, bad_clip: int | None = None, slow_s: float = 0.0) -> None:
        torch.manual_seed(0)
        self.batches = batches_of(patterned_store(num_clips), CLIP)
        self.layer = nn.Linear(1, 1)
        self.num_updates = 0
        self.noise: list[float] = []
        self._bad_clip = bad_clip
        self._slow_s = slow_s

    def parts(self) -> Sequence[Part]:
        return [(self.layer.named_parameters(), 1.0)]

    def kept(self) -> Mapping[str, Stateful]:
        return {"layer": self.layer}

    def begin_epoch(self, _epoch: int) -> None:
        pass

    def draw(self, epoch: int, start_step: int) -> Iterator[Batch]:
        for batch in self.batches.epoch(epoch, start_step):
            time.sleep(self._slow_s)
            yield batch

    def split(self, batch: Batch, num_parts: int, _epoch: int) -> Sequence[Batch]:
        return [Batch(*part) for part in zip(*(tensor.chunk(num_parts) for tensor in batch), strict=True)]

    def before_step(self, micro_batches: Sequence[Batch], optimizer: Optimizer, epoch: int) -> None:
        self.noise.append(float(torch.rand(())))

    def accumulate(self, micro_batch: Batch, _epoch: int, backward: Backward) -> dict[str, Tensor]:
        means_B1 = micro_batch.frames_BTCHW.mean((1, 2, 3, 4))[:, None]
        loss = (self.layer(means_B1) - 1).square().mean()
        if self._bad_clip in micro_batch.clip_indices_B.tolist():
            loss = loss / 0
        backward(loss)
        return {"loss": loss.detach()}

    def after_step(self) -> None:
        self.num_updates += 1


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[StepRecord] = []
        self.epochs: list[tuple[int, Mapping[str, float]]] = []
        self.starts: list[EpochStart] = []

    def on_start(self, start: EpochStart) -> None:
        self.starts.append(start)

    def on_step(self, record: StepRecord) -> None:
        self.steps.append(record)

    def on_epoch(self, _stage: str, epoch: int, losses: Mapping[str, float]) -> None:
        self.epochs.append((epoch, losses))


def _fit(stage: Brightness, options: Optimization = QUICK, **loop: object) -> Told:
    told = Told()
    fit(stage, options, LoopOptions(journal=Journal([told]), **loop))  # type: ignore[arg-type]  # named by tests
    return told


def test_every_step_and_epoch_is_told_in_order() -> None:
    told = _fit(Brightness())
    assert [(record.epoch, record.step, record.num_steps) for record in told.steps] == [
        (0, 0, 2),
        (0, 1, 2),
        (1, 0, 2),
        (1, 1, 2),
    ]
    assert told.starts == [EpochStart("brightness", epoch, 2, 0, 2) for epoch in (0, 1)]
    assert [record.learning_rate for record in told.steps] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    for epoch, losses in told.epochs:
        of_epoch = [record.losses["loss"] for record in told.steps if record.epoch == epoch]
        assert losses["loss"] == pytest.approx(sum(of_epoch) / 2)


@pytest.mark.parametrize("num_parts", [2, 4])
def test_parts_of_a_batch_add_up_to_the_whole(num_parts: int) -> None:
    whole, in_parts = Brightness(), Brightness()
    ours = _fit(whole)
    theirs = _fit(in_parts, replace(QUICK, accumulation=num_parts))
    torch.testing.assert_close(in_parts.layer.state_dict(), whole.layer.state_dict())
    for one, other in zip(ours.steps, theirs.steps, strict=True):
        assert other.losses == pytest.approx(one.losses)
        assert other.gradient_norm == pytest.approx(one.gradient_norm)
    assert in_parts.num_updates == whole.num_updates == 4


def test_a_batch_that_parts_do_not_divide_is_refused() -> None:
    with pytest.raises(
        InvalidParameterError, match="share of 4 videos a batch cannot be divided into accumu"
    ):
        _fit(Brightness(), replace(QUICK, accumulation=3))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batchs_files() -> None:
    stage = Brightness(bad_clip=5)
    bad_step = next(step for step, clips in enumerate(stage.batches.chosen(0)) if 5 in clips)
    files = ", ".join(f"{index}.mp4" for index in stage.batches.chosen(0)[bad_step])
    with pytest.raises(NotFiniteError) as caught:
        _fit(stage)
    assert f"brightness, epoch 1, step {bad_step + 1}: loss is inf, gradient_norm is" in str(caught.value)
    assert f"The batch's files: {files}. If" in str(caught.value)


def test_what_is_no_number_never_reaches_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, Identity("one", "these"))
    of_second_step = Brightness().batches.chosen(0)[1][0]
    with pytest.raises(NotFiniteError):
        _fit(Brightness(bad_clip=of_second_step), checkpoints=checkpoints, checkpoint_interval=1)
    restored = Brightness()
    parts = {**restored.kept(), "optimizer": _Ignored(), "scaler": _Ignored()}
    assert checkpoints.restore("brightness", parts) == Position("brightness", 0, 1)
    assert all(value.isfinite().all() for value in restored.layer.state_dict().values())


def test_the_state_is_kept_at_intervals_and_at_every_epochs_end(tmp_path: Path) -> None:
    seen: list[Position | None] = []
    checkpoints = Checkpoints(tmp_path, Identity("one", "these"))

    class Watching(Brightness):
        def begin_epoch(self, _epoch: int) -> None:
            seen.append(checkpoints.position())

        def before_step(self, micro_batches: Sequence[Batch], optimizer: Optimizer, epoch: int) -> None:
            seen.append(checkpoints.position())

    _fit(Watching(12), replace(QUICK, epochs=1), checkpoints=checkpoints, checkpoint_interval=2)
    within, end = Position("brightness", 0, 2), Position("brightness", 1)
    assert seen == [None, None, None, within]
    assert checkpoints.position() == end


def test_what_torch_draws_in_a_step_depends_on_its_place_alone(tmp_path: Path) -> None:
    whole = Brightness()
    _fit(whole)
    first, second = Brightness(), Brightness()
    checkpoints = Checkpoints(tmp_path, Identity("one", "these"))
    _fit(first, replace(QUICK, epochs=1), checkpoints=checkpoints)
    torch.rand(5)
    _fit(second, checkpoints=checkpoints)
    assert first.noise + second.noise == whole.noise
    assert len(set(whole.noise)) == 4
    assert torch.equal(second.layer.weight, whole.layer.weight)


def test_the_callers_random_state_is_left_as_it_was() -> None:
    stage = Brightness()
    torch.manual_seed(3)
    expected = float(torch.rand(()))
    torch.manual_seed(3)
    _fit(stage)
    assert float(torch.rand(())) == expected


def test_waiting_for_data_shows_in_the_records() -> None:
    waiting = _fit(Brightness(slow_s=0.05), log_interval=1).steps
    assert min(record.data_wait_share for record in waiting) > 0.5
    assert max(record.videos_per_second for record in waiting) < 4 / 0.05


class _Ignored:
    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        pass
