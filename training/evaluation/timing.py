"""Measured time: of each part, and of whole videos from the file to the answer."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sdcom.engine.backend import Backend
from sdcom.engine.bench import time_parts
from sdcom.engine.composition import compose_video
from sdcom.engine.planning import video_planner
from sdcom.recognition import Budget
from sdcom.recognizer import Recognizer
from sdcom.sampling import feeding_order
from training.data import Clip
from training.evaluation.record import Method, Timing, WholeTiming

MS = 1e3


def measure(
    recognizer: Recognizer,
    clips: Sequence[Clip],
    budgets: Mapping[str, Budget | None],
    *,
    num_threads: int,
    num_repeats: int,
) -> Timing:
    """Time the parts, and whole videos under budgets and by the full-width baseline.

    Args:
        recognizer: of the model.
        clips: to time whole, one after the other; none measures the parts alone.
        budgets: by the name of their row; None is the model's default.
        num_threads: of one network call.
        num_repeats: runs of each part, whose median counts.
    """
    backend = recognizer.backend
    parts = time_parts(backend, num_repeats=num_repeats)
    runs = {name: _composition(recognizer, budget) for name, budget in budgets.items()}
    runs[Method.BASELINE] = _full_width(backend)
    whole = _time_whole(recognizer, clips, runs) if clips else ()
    return Timing(
        device=recognizer.provider.name,
        num_threads=num_threads,
        part_ms={part.name: part.ms for part in parts},
        whole=whole,
        num_videos=len(clips),
    )


_Run = Callable[[npt.NDArray[np.uint8]], object]
"""Frames [T, crop, crop, 3] in time order in; whatever it says, ready on the processor, out."""


def _composition(recognizer: Recognizer, budget: Budget | None) -> _Run:
    clip = recognizer.info.config.clip
    order_T = feeding_order(clip.num_frames, clip.order)
    planner = video_planner(recognizer.info, budget)
    return lambda frames_THWC: compose_video(recognizer.backend, frames_THWC[order_T], planner)


def _full_width(backend: Backend) -> _Run:
    """Run the dynamic network on every frame; the product with its classifier's weights is left out."""
    shifts = backend.info.config.temporal_shift

    def run(frames_THWC: npt.NDArray[np.uint8]) -> object:
        before_T = np.arange(len(frames_THWC)) - 1 if shifts else None
        return backend.fill(frames_THWC, 1.0, before_T).mean(axis=0)

    return run


def _time_whole(
    recognizer: Recognizer, clips: Sequence[Clip], runs: Mapping[str, _Run]
) -> tuple[WholeTiming, ...]:
    """Take turns on every clip, so that a busy moment spoils no single way; the first clip warms up."""
    total_s: dict[str, list[float]] = {name: [] for name in runs}
    decode_s: dict[str, list[float]] = {name: [] for name in runs}
    for clip in (clips[0], *clips):
        for name, run in runs.items():
            started = time.perf_counter()
            decoded = recognizer.decoders.decode(clip.path)
            decode_s[name].append(time.perf_counter() - started)
            run(decoded.frames_THWC)
            total_s[name].append(time.perf_counter() - started)
    return tuple(
        WholeTiming(
            name=name,
            total_ms=statistics.median(total_s[name][1:]) * MS,
            decode_ms=statistics.median(decode_s[name][1:]) * MS,
        )
        for name in runs
    )
