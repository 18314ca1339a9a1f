"""Measured time: of each part, and of whole videos from the file to the answer."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from sdcom.engine.bench import time_parts
from sdcom.engine.reference import compose
from sdcom.model import Model
from sdcom.preprocess import normalize
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
    model = recognizer.model
    parts = time_parts(model, num_threads=num_threads, num_repeats=num_repeats)
    runs = {name: _composition(recognizer, budget) for name, budget in budgets.items()}
    runs[Method.BASELINE] = _full_width(model)
    with _threads(num_threads):
        whole = _time_whole(recognizer, clips, runs) if clips else ()
    return Timing(
        device=next(model.networks.parameters()).device.type,
        num_threads=num_threads,
        part_ms={part.name: part.ms for part in parts},
        whole=whole,
        num_videos=len(clips),
    )


_Run = Callable[[npt.NDArray[np.uint8]], object]
"""Frames [T, crop, crop, 3] in time order in; whatever it says, ready on the processor, out."""


def _composition(recognizer: Recognizer, budget: Budget | None) -> _Run:
    clip = recognizer.model.info.config.clip
    order_T = feeding_order(clip.num_frames, clip.order)
    planner = recognizer.planner(budget)
    return lambda frames_THWC: compose(recognizer.model, frames_THWC[order_T], planner)


def _full_width(model: Model) -> _Run:
    device = next(model.networks.parameters()).device

    @torch.inference_mode()
    def run(frames_THWC: npt.NDArray[np.uint8]) -> object:
        frames_NCHW = normalize(torch.from_numpy(frames_THWC).to(device), model.info.config.clip)
        return model.networks.dynamic(frames_NCHW, 1.0).mean(dim=0).cpu()

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


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
