"""How long each part takes on this machine, beside what it costs in MACs."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sdcom.engine.backend import Backend


@dataclass(frozen=True, slots=True)
class PartTiming:
    """One part: MACs and median milliseconds, both per frame."""

    name: str
    macs: int
    ms: float


def time_parts(backend: Backend, *, num_repeats: int) -> list[PartTiming]:
    """Time the static network, gate, fusion head, and the dynamic network at each width, widest last.

    One clip of T frames a run; the parts take turns, so that a busy moment spoils no single one. What the
    gate's embedding takes is in the static network's time, as the two run together; its MACs are the gate's.

    Args:
        backend: of the model; called from this thread.
        num_repeats: runs of each part; the median counts.
    """
    backend.prepare_thread()
    config, macs = backend.info.config, backend.info.macs
    num_frames, crop = config.clip.num_frames, config.clip.crop
    rng = np.random.default_rng(0)
    frames_THWC = rng.integers(256, size=(num_frames, crop, crop, 3), dtype=np.uint8)
    before_T = np.arange(num_frames) - 1 if config.temporal_shift else None
    looked = backend.look(frames_THWC)
    supplements_TD = backend.fill(frames_THWC, 1.0, before_T)

    def fuse_and_classify() -> object:
        fused_TF = backend.fuse(looked.features_ND, supplements_TD)
        return backend.classify(np.maximum.accumulate(fused_TF)[None])

    parts: list[tuple[str, int, Callable[[], object]]] = [
        ("static", macs.static, lambda: backend.look(frames_THWC)),
        ("gate", macs.gate, lambda: backend.decide(looked.embeddings_NE[None])),
        ("fusion", macs.fusion, fuse_and_classify),
        *(
            (
                f"dynamic at {width:g}",
                macs.dynamic[width],
                partial(backend.fill, frames_THWC, width, before_T),
            )
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
