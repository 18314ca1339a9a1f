"""How long each part takes on this machine, beside what it costs in MACs."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sdcom.engine.backend import Backend, Gathered, Picked, to_the_end


@dataclass(frozen=True, slots=True)
class PartTiming:
    """One part: MACs and median milliseconds, both per frame."""

    name: str
    macs: int
    ms: float

    @property
    def frames_per_s(self) -> float:
        """What it gets through in a second, alone."""
        return 1e3 / self.ms


def time_parts(backend: Backend, *, num_repeats: int, num_videos: int = 1) -> list[PartTiming]:
    """Time the static network, gate, fusion head, and the dynamic network at each width, widest last.

    Whole clips of T frames a run, in the room where the backend computes; the parts take turns, so that a
    busy moment spoils no single one. What the gate's embedding takes is in the static network's time, as the
    two run together; its MACs are the gate's.

    Args:
        backend: of the model; called from this thread.
        num_repeats: runs of each part; the median counts.
        num_videos: clips of a run: a GPU is full with some hundred frames.
    """
    backend.prepare_thread()
    config, macs = backend.info.config, backend.info.macs
    length, crop = config.clip.num_frames, config.clip.crop
    num_frames = num_videos * length
    rng = np.random.default_rng(0)
    frames_NHWC = rng.integers(256, size=(num_frames, crop, crop, 3), dtype=np.uint8)
    room = backend.open_room(num_videos)
    videos = [room.hold(frames_NHWC[start : start + length]) for start in range(0, num_frames, length)]
    picked = Picked([(video, range(length)) for video in videos], num_frames)
    gathered = Gathered(videos, length, num_videos)
    rows_N = np.arange(num_frames)
    before_N = np.where(rows_N % length, rows_N - 1, -1)

    def fill_at(width: float) -> None:
        if config.temporal_shift:
            backend.fill(frames_NHWC, width, before_N)
        else:
            to_the_end(room.fill, picked, width)

    parts: list[tuple[str, int, Callable[[], object]]] = [
        ("static", macs.static, partial(to_the_end, room.look, picked)),
        ("gate", macs.gate, partial(to_the_end, room.decide, gathered)),
        ("fusion", macs.fusion, partial(to_the_end, room.conclude, gathered)),
        *(
            (f"dynamic at {width:g}", macs.dynamic[width], partial(fill_at, width))
            for width in config.widths[1:]
        ),
    ]
    seconds: list[list[float]] = [[] for _ in parts]
    for repeat in range(num_repeats + 1):
        for runs, (_, _, run) in zip(seconds, parts, strict=True):
            started = time.perf_counter()
            run()
            if repeat:  # the first turn warms up
                runs.append(time.perf_counter() - started)
    return [
        PartTiming(name, count, statistics.median(runs) * 1e3 / num_frames)
        for (name, count, _), runs in zip(parts, seconds, strict=True)
    ]
