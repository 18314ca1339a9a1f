"""The measured cost table is the machine's; and memory that runs out is told from other failures."""

import numpy as np
import pytest
import torch

from sdcom.engine.backend import Float32Array, UInt8Array
from sdcom.engine.costs import MACHINES, Lane, Stage
from sdcom.engine.limits import BatchSizes, Limits
from sdcom.engine.measure import measure_costs
from sdcom.engine.memory import ran_out_of_memory
from sdcom.engine.on_host import HostRoom
from tests.sdcom.engine.numpy_backend import CONFIG, NumpyBackend, T, Watched

LIMITS = Limits(max_batch_frames=24, max_batch_videos=4)


class FakeMachine:
    """A clock that stands still but while a stage is computed."""

    def __init__(self, memory: int) -> None:
        self.now_s = 0.0
        self.memory = memory

    def before(self, stage: Stage, rows: Float32Array | UInt8Array) -> None:
        if len(rows) > self.memory:
            raise MemoryError
        whole = stage in (Stage.DECIDE, Stage.FUSE)
        lane = Lane(stage, 0.25 if stage is Stage.FILL else 0.0, T if whole else 1)
        self.now_s += MACHINES["cpu"].cost_s(lane, len(rows))


@pytest.mark.parametrize("memory", [1000, 7])
@pytest.mark.parametrize("buckets", [(), (2, 4, 8)])
def test_fixed_and_per_frame_time_are_told_apart(buckets: tuple[int, ...], memory: int) -> None:
    machine = FakeMachine(memory)
    backend = Watched(NumpyBackend(), machine.before)
    limits = Limits(max_batch_frames=24, max_batch_videos=4, buckets=buckets)
    table = measure_costs(HostRoom(backend, CONFIG), CONFIG, limits, clock=lambda: machine.now_s)
    for stage in (Stage.LOOK, Stage.DECIDE, Stage.FUSE):
        measured, true = table.costs[stage, 0.0], MACHINES["cpu"].costs[stage, 0.0]
        assert measured.fixed_s == pytest.approx(true.fixed_s)
        assert measured.frame_s == pytest.approx(true.frame_s)
    assert {width for stage, width in table.costs if stage is Stage.FILL} == set(CONFIG.widths[1:])


def test_one_size_for_all_batches_gives_its_time_per_frame() -> None:
    machine = FakeMachine(1000)
    limits = Limits(max_batch_frames=8, max_batch_videos=8, buckets=(8,))
    backend = Watched(NumpyBackend(), machine.before)
    look = measure_costs(HostRoom(backend, CONFIG), CONFIG, limits, clock=lambda: machine.now_s).costs[
        Stage.LOOK, 0.0
    ]
    assert look.fixed_s == 0
    assert look.frame_s == pytest.approx(MACHINES["cpu"].cost_s(Lane(Stage.LOOK), 8) / 8)


def test_where_only_some_sizes_are_computed_each_costs_what_it_took_there() -> None:
    """As on a GPU, where kernels are made for the largest batch alone: half of it takes as long."""
    now_s = [0.0]

    def before(_stage: Stage, rows: Float32Array | UInt8Array) -> None:
        now_s[0] += 8 if len(rows) == 8 else 2 * len(rows)

    limits = Limits(max_batch_frames=8, max_batch_videos=8, buckets=(1, 4, 8))
    room = HostRoom(Watched(NumpyBackend(), before), CONFIG)
    table = measure_costs(room, CONFIG, limits, clock=lambda: now_s[0])
    for lane in (Lane(Stage.LOOK), Lane(Stage.DECIDE, num_frames=T)):
        assert [table.cost_s(lane, size) for size in limits.buckets] == [2, 8, 8]
    assert BatchSizes(limits, table).best(Lane(Stage.LOOK), 4) == (4, 0.5)


def test_a_backend_that_fails_is_heard() -> None:
    class Broken(NumpyBackend):
        def fill(self, frames_NHWC: UInt8Array, width: float) -> Float32Array:
            raise RuntimeError("no kernel for this device")

    with pytest.raises(RuntimeError, match="no kernel"):
        measure_costs(HostRoom(Broken(), CONFIG), CONFIG, LIMITS)


def test_torch_and_numpy_and_onnx_runtime_run_out_of_memory_in_their_own_words() -> None:
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**60)
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**57)
    onnx = RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 4096")
    for exc in (torchs.value, numpys.value, torch.cuda.OutOfMemoryError("CUDA"), onnx):
        assert ran_out_of_memory(exc)
    assert not ran_out_of_memory(RuntimeError("shapes do not match"))
    assert not ran_out_of_memory(ValueError("memory"))
