"""What batches cost on this machine: the scheduler's cost table, measured on its own backend."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from sdcom.config import ModelConfig
from sdcom.engine.backend import Gathered, Held, Picked, Room, to_the_end
from sdcom.engine.costs import BatchCost, CostTable, Lane, Stage
from sdcom.engine.limits import BatchSizes, Limits
from sdcom.engine.memory import ran_out_of_memory


def measure_costs(
    room: Room,
    config: ModelConfig,
    limits: Limits,
    *,
    num_repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> CostTable:
    """Time every stage and width at the smallest and the largest batch, and draw a line through both.

    Where the backend computes only some sizes, each of them is timed, and all warm up with it. A largest
    batch that does not fit into memory is halved until it does.

    Args:
        room: where the backend computes, with nobody in it and for as many videos as are in flight at most;
            called from the thread that will call it later. If this fails, it is of no use any more.
        config: of the model.
        limits: the scheduler's: largest batches and buckets.
        num_repeats: runs of each size after one that warms up; the median counts.
        clock: seconds.
    """
    sizes = BatchSizes(limits, CostTable())
    length, crop = config.clip.num_frames, config.clip.crop
    lanes = [Lane(Stage.LOOK), Lane(Stage.DECIDE, num_frames=length), Lane(Stage.FUSE, num_frames=length)]
    lanes += [Lane(Stage.FILL, width) for width in config.widths if width > 0]
    black_THWC = np.zeros((length, crop, crop, 3), dtype=np.uint8)
    most_videos = max(math.ceil(sizes.most(lane) * lane.num_frames / length) for lane in lanes)
    videos = [room.hold(black_THWC) for _ in range(most_videos)]
    costs = {}
    for lane in lanes:
        runs_of = _runs_of(room, videos, lane, length)
        time_batch = partial(_time_batch, runs_of, num_repeats, clock)
        large, large_s = _largest_that_fits(time_batch, sizes.most(lane))
        smaller = [size for size in limits.buckets or (1,) if size < large]
        seconds = {size * lane.num_frames: time_batch(size) for size in smaller}
        seconds[large * lane.num_frames] = large_s
        costs[lane.stage, lane.width] = _cost(seconds, every_size=bool(limits.buckets))
    if length > 1:
        _warm_up_repeats(room, videos[0], lanes[-1].width, limits.buckets)
    for video in videos:
        room.release(video)
    return CostTable(costs)


def _warm_up_repeats(room: Room, video: Held, width: float, buckets: Sequence[int]) -> None:
    """Have so many frames repeat others, which no batch above does."""
    for size in buckets:
        picked = Picked([(video, (0,))], buckets[0], [(video, [(0, 1)] * size)])
        to_the_end(room.look, picked)
        to_the_end(room.fill, picked, width)


def _cost(seconds: Mapping[int, float], *, every_size: bool) -> BatchCost:
    """Return the line through the least and the most frames; all is per frame where one size is all there is.

    Args:
        seconds: of batches, by their frames.
        every_size: these are all sizes that are computed; what they took is kept.
    """
    known_s = seconds if every_size else {}
    small, large = min(seconds), max(seconds)
    if small == large:
        return BatchCost(0.0, seconds[large] / large, known_s)
    frame_s = max(0.0, (seconds[large] - seconds[small]) / (large - small))
    return BatchCost(max(0.0, seconds[large] - frame_s * large), frame_s, known_s)


def _largest_that_fits(time_batch: Callable[[int], float], size: int) -> tuple[int, float]:
    while True:
        try:
            return size, time_batch(size)
        except Exception as exc:
            if size == 1 or not ran_out_of_memory(exc):
                raise
            size //= 2


def _time_batch(
    runs_of: Callable[[int], Callable[[], object]], num_repeats: int, clock: Callable[[], float], size: int
) -> float:
    run = runs_of(size)
    run()
    runs_s = []
    for _ in range(num_repeats):
        started_s = clock()
        run()
        runs_s.append(clock() - started_s)
    return statistics.median(runs_s)


def _runs_of(
    room: Room, videos: Sequence[Held], lane: Lane, length: int
) -> Callable[[int], Callable[[], object]]:
    """Return a function of a batch size that returns the call of such a batch, of videos of some length."""

    def picked(size: int) -> Picked:
        counts = [min(length, size - start) for start in range(0, size, length)]
        return Picked(list(zip(videos, map(range, counts), strict=False)), size)

    def gathered(size: int) -> Gathered:
        return Gathered(videos[:size], length, size)

    def call(size: int) -> Callable[[], object]:
        match lane.stage:
            case Stage.LOOK:
                return partial(to_the_end, room.look, picked(size))
            case Stage.DECIDE:
                return partial(to_the_end, room.decide, gathered(size))
            case Stage.FILL:
                return partial(to_the_end, room.fill, picked(size), lane.width)
            case Stage.FUSE:
                return partial(to_the_end, room.conclude, gathered(size))

    return call
