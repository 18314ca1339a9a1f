"""How long each part takes on this machine, beside what it costs in MACs."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from sdcom.model import Model
from sdcom.models.temporal_shift import earlier_rows


@dataclass(frozen=True, slots=True)
class PartTiming:
    """One part: MACs and median milliseconds, both per frame."""

    name: str
    macs: int
    ms: float


@torch.inference_mode()
def time_parts(model: Model, *, num_threads: int, num_repeats: int) -> list[PartTiming]:
    """Time the static network, gate, fusion head, and the dynamic network at each width, widest last.

    One clip of T frames a run; the parts take turns, so that a busy moment spoils no single one.

    Args:
        model: in inference mode, on any device.
        num_threads: threads of one network call on a processor; restored afterwards.
        num_repeats: runs of each part; the median counts.
    """
    config, macs, networks = model.info.config, model.info.macs, model.networks
    num_frames, device = config.clip.num_frames, next(networks.parameters()).device
    frames_TCHW = torch.rand(num_frames, 3, config.clip.crop, config.clip.crop, device=device)
    view = networks.look(frames_TCHW)
    supplement_BTD = torch.rand(1, num_frames, networks.dynamic.num_features, device=device)
    parts: list[tuple[str, int, Callable[[], object]]] = [
        ("static", macs.static, lambda: networks.look(frames_TCHW)),
        ("gate", macs.gate, lambda: networks.gate.decide(networks.gate.embed(view.map_NCHW)[None])),
        ("fusion", macs.fusion, lambda: networks.fusion(view.features_ND[None], supplement_BTD)),
    ]
    one_before_another = earlier_rows(torch.arange(num_frames, device=device) - 1)
    for width in config.widths[1:]:
        fill = partial(networks.fill, frames_TCHW, width, one_before_another)
        parts.append((f"dynamic at {width:g}", macs.dynamic[width], fill))
    threads_before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    seconds: list[list[float]] = [[] for _ in parts]
    for repeat in range(num_repeats + 1):
        for runs, (_, _, run) in zip(seconds, parts, strict=True):
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat:  # the first turn warms up
                runs.append(time.perf_counter() - started)
    torch.set_num_threads(threads_before)
    return [
        PartTiming(name, count, statistics.median(runs) * 1e3 / num_frames)
        for (name, count, _), runs in zip(parts, seconds, strict=True)
    ]
