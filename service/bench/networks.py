"""The whole composition against the full-width baseline, both on one backend, for real mixes of widths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sdcom.budget import WidthPlan, fit_widths
from sdcom.engine.backend import Backend
from sdcom.engine.composed import Planner
from sdcom.engine.composition import compose_video
from service.bench.turns import medians_ms

BASELINE = "full width on every frame"


@dataclass(frozen=True, slots=True)
class Mix:
    """How many of a clip's T frames take each of the K widths, and where that comes from."""

    name: str
    counts_K: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Whole:
    """One mix, or the baseline: its cost and its time, and both as shares of the baseline's.

    Attributes:
        name: of the mix.
        gmacs: of a clip, all parts.
        ms: median milliseconds of a clip.
        ideal_speedup: the baseline's MACs over these.
        speedup: the baseline's time over this.
    """

    name: str
    gmacs: float
    ms: float
    ideal_speedup: float
    speedup: float

    @property
    def efficiency(self) -> float:
        """Share of the ideal speed-up that was reached."""
        return self.speedup / self.ideal_speedup


SHARES = (1.0, 0.5, 0.25, 0.15, 0.1)
"""Budgets of `planned_mixes`, as shares of the baseline's FLOPs."""


def planned_mixes(backend: Backend, shares: Sequence[float] = SHARES) -> list[Mix]:
    """Return the mixes of widths that the planner finds within budgets, for a gate that knows nothing.

    Args:
        backend: of a model that was never calibrated.
        shares: of the baseline's FLOPs; those below the floor are left out.
    """
    info, macs = backend.info, backend.info.macs
    num_frames, num_widths = info.config.clip.num_frames, info.config.num_widths
    logits_TK = np.random.default_rng(0).normal(size=(num_frames, num_widths)).astype(np.float32)
    mixes = []
    for share in shares:
        left = round(share * macs.baseline(num_frames)) - macs.floor(num_frames)
        if left >= 0:
            choices = fit_widths(logits_TK, macs.dynamic_by_choice, left).choices
            counts_K = np.bincount(choices, minlength=num_widths).tolist()
            mixes.append(Mix(f"budget {share:g}", tuple(counts_K)))
    return mixes


def calibrated_mixes(backend: Backend, most: int = 6) -> list[Mix]:
    """Return the mixes of widths that the model's calibration found, from dear to cheap, evenly chosen."""
    info = backend.info
    num_frames = info.config.clip.num_frames
    mixes: dict[tuple[int, ...], Mix] = {}
    for point in info.calibration:
        counts_K = _whole_counts(point.width_shares, num_frames)
        mixes.setdefault(counts_K, Mix(f"lambda {point.lam:g}", counts_K))
    found = list(mixes.values())
    chosen = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[index] for index in chosen]


def _whole_counts(shares_K: Sequence[float], total: int) -> tuple[int, ...]:
    """Return whole numbers nearest to shares of a total, largest remainders first."""
    exact_K = np.array(shares_K) * total
    counts_K = np.floor(exact_K).astype(int)
    for index in np.argsort(counts_K - exact_K, kind="stable")[: total - counts_K.sum()]:
        counts_K[index] += 1
    return tuple(counts_K.tolist())


def _always(plan: WidthPlan) -> Planner:
    return lambda _: plan


def time_whole(backend: Backend, mixes: Sequence[Mix], *, num_repeats: int) -> list[Whole]:
    """Time clips of each mix, and the baseline, taking turns; the baseline comes first.

    The baseline is the dynamic network alone, at full width on every frame: no gate, no static network.

    Args:
        backend: of the model; called from this thread.
        mixes: to time.
        num_repeats: turns that count.
    """
    backend.prepare_thread()
    info, macs = backend.info, backend.info.macs
    num_frames, crop = info.config.clip.num_frames, info.config.clip.crop
    frames_THWC = np.random.default_rng(0).integers(256, size=(num_frames, crop, crop, 3), dtype=np.uint8)
    before_T = np.arange(num_frames) - 1 if info.config.temporal_shift else None
    gmacs = {BASELINE: macs.baseline(num_frames) / 1e9}
    ways: dict[str, Callable[[], object]] = {BASELINE: partial(backend.fill, frames_THWC, 1.0, before_T)}
    for mix in mixes:
        choices = tuple(np.repeat(np.arange(len(mix.counts_K)), mix.counts_K).tolist())
        plan = WidthPlan(choices, 0.0, sum(macs.dynamic_by_choice[choice] for choice in choices))
        gmacs[mix.name] = (macs.floor(num_frames) + plan.macs) / 1e9
        ways[mix.name] = partial(compose_video, backend, frames_THWC, _always(plan))
    ms = medians_ms(ways, num_repeats=num_repeats)
    return [
        Whole(name, gmacs[name], ms[name], gmacs[BASELINE] / gmacs[name], ms[BASELINE] / ms[name])
        for name in ways
    ]
