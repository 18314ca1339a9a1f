"""Many videos at once: through the scheduler, by its own stages driven directly, and at full width.

Direct and scheduled differ by what scheduling costs; either and the full width by what the composition gains.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from random import Random
from typing import NamedTuple

import numpy as np

from sdcom.architecture import feature_channels
from sdcom.budget import WidthPlan
from sdcom.checkpoint import ModelInfo
from sdcom.config import ModelConfig
from sdcom.cost import model_macs
from sdcom.engine.backend import Float32Array, Held, Parts, Picked, UInt8Array
from sdcom.engine.composed import Planner
from sdcom.engine.costs import CostTable
from sdcom.engine.limits import Limits
from sdcom.engine.planning import video_planner
from sdcom.engine.scheduler import Scheduler
from sdcom.recognition import Budget


class Turn(NamedTuple):
    """Seconds of the same videos: full width on every frame, stages in full batches, the scheduler."""

    baseline_s: float
    direct_s: float
    scheduled_s: float


def time_saturation(
    backend: Parts,
    config: ModelConfig,
    limits: Limits,
    costs: CostTable,
    *,
    plans: Sequence[WidthPlan],
    num_turns: int = 5,
    num_in_hand: int = 1,
    initializer: Callable[[], object] | None = None,
) -> list[Turn]:
    """Time videos in all three ways, in turns, after one turn that warms up.

    The baseline is the dynamic network alone, at full width on every frame: no gate, no static network. It
    and the stages find their frames where the backend computes; the scheduler takes them there.

    Args:
        backend: of the model.
        config: of the model.
        limits: of the scheduler; its largest batches are the full ones.
        costs: of the scheduler.
        plans: the widths of each video's frames; all videos come at once.
        num_turns: that count.
        num_in_hand: of the scheduler.
        initializer: run once on each thread that calls the backend, this one too.
    """
    frames_BTHWC = _shades(config, len(plans))
    held = [backend.hold(frames_THWC) for frames_THWC in frames_BTHWC]
    if initializer is not None:
        initializer()
    with Scheduler(
        backend, config, limits, costs=costs, num_in_hand=num_in_hand, initializer=initializer
    ) as scheduler:
        ways: list[Callable[[], object]] = [
            lambda: drive_full_width(backend, config, limits, held),
            lambda: drive(backend, config, limits, held, plans),
            lambda: _schedule(scheduler, frames_BTHWC, plans),
        ]
        turns = [Turn(*(_timed(way) for way in ways)) for _ in range(num_turns + 1)]
    return turns[1:]


def _shades(config: ModelConfig, num_videos: int) -> UInt8Array:
    """Return videos of one grey each, [B, T, H, W, C]."""
    clip = config.clip
    frames_BTHWC = np.empty((num_videos, clip.num_frames, clip.crop, clip.crop, 3), dtype=np.uint8)
    frames_BTHWC[:] = (np.arange(num_videos) % 256).astype(np.uint8)[:, None, None, None, None]
    return frames_BTHWC


def drive_full_width(backend: Parts, config: ModelConfig, limits: Limits, held: Sequence[Held]) -> None:
    """Run the dynamic network at full width on every frame of videos, in full batches."""
    for rows in _ranges(len(held) * config.clip.num_frames, limits.max_batch_frames):
        backend.fill_picked(_picked(held, config, rows), 1.0)


def drive(
    backend: Parts, config: ModelConfig, limits: Limits, held: Sequence[Held], plans: Sequence[WidthPlan]
) -> Float32Array:
    """Run whole videos stage by stage, each in full batches but its last; return [B, T, L].

    Args:
        backend: of the model.
        config: of the model.
        limits: the largest batches.
        held: what `backend.hold` returned for each video, of T frames.
        plans: of each video.
    """
    num_frames, most = config.clip.num_frames, limits.max_batch_frames
    shape = len(plans), num_frames, -1
    frames = _ranges(len(plans) * num_frames, most)
    videos = _ranges(len(plans), limits.max_batch_videos)
    looks = [backend.look_picked(_picked(held, config, rows)) for rows in frames]
    features_BTD = np.concatenate([look.features_ND for look in looks]).reshape(shape)
    embeddings_BTE = np.concatenate([look.embeddings_NE for look in looks]).reshape(shape)
    for rows in videos:
        backend.decide(embeddings_BTE[rows])
    choices_N = np.concatenate([plan.choices for plan in plans])
    supplements_ND = np.zeros((len(choices_N), feature_channels(config.dynamic)), dtype=np.float32)
    for choice in sorted({int(choice) for choice in choices_N} - {config.widths.index(0.0)}):
        of_width = np.flatnonzero(choices_N == choice)
        for batch in (of_width[start : start + most] for start in range(0, len(of_width), most)):
            picked = _picked(held, config, batch.tolist())
            supplements_ND[batch] = backend.fill_picked(picked, config.widths[choice])
    supplements_BTD = supplements_ND.reshape(shape)
    return np.concatenate([backend.conclude(features_BTD[rows], supplements_BTD[rows]) for rows in videos])


def _picked(held: Sequence[Held], config: ModelConfig, rows: Sequence[int]) -> Picked:
    """Return the frames at some rows of all videos' frames, ascending."""
    positions = [divmod(row, config.clip.num_frames) for row in rows]
    shares = [
        (held[video], [position for _, position in group])
        for video, group in groupby(positions, key=itemgetter(0))
    ]
    return Picked(shares, len(rows))


def _ranges(count: int, most: int) -> list[range]:
    return [range(start, min(start + most, count)) for start in range(0, count, most)]


def random_plans(config: ModelConfig, mix: Mapping[float, float], num_videos: int) -> list[WidthPlan]:
    """Return plans of random widths.

    Args:
        config: of the model.
        mix: how often each of the model's widths is chosen, in any unit.
        num_videos: that need one.
    """
    random, macs_K = Random(0), model_macs(config).dynamic_by_choice  # noqa: S311  # no secret
    weights = [mix.get(width, 0.0) for width in config.widths]
    plans = []
    for _ in range(num_videos):
        choices = random.choices(range(config.num_widths), weights, k=config.clip.num_frames)
        plans.append(WidthPlan(tuple(choices), 0.0, sum(macs_K[choice] for choice in choices)))
    return plans


def budget_plans(info: ModelInfo, share: float, num_videos: int) -> list[WidthPlan]:
    """Return what the planner makes of random gate logits within a budget, for each of many videos.

    Args:
        info: the model.
        share: of the full-width baseline's FLOPs, that each video may cost with all parts.
        num_videos: that need one.

    Raises:
        FlopsBelowFloorError: the budget does not pay for the static network, gate and fusion.
    """
    planner, config = video_planner(info, Budget(share=share)), info.config
    shape = (num_videos, config.clip.num_frames, config.num_widths)
    logits_BTK = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return [planner(logits_TK) for logits_TK in logits_BTK]


def ideal_speedup(config: ModelConfig, plans: Sequence[WidthPlan]) -> float:
    """Return the baseline's MACs over those of these plans, all parts together."""
    macs, num_frames = model_macs(config), config.clip.num_frames
    spent = sum(macs.floor(num_frames) + plan.macs for plan in plans)
    return len(plans) * macs.baseline(num_frames) / spent


def _schedule(scheduler: Scheduler, clips: UInt8Array, plans: Sequence[WidthPlan]) -> None:
    planners: list[Planner] = [lambda _, plan=plan: plan for plan in plans]  # type: ignore[misc]
    futures = [scheduler.submit(*video) for video in zip(clips, planners, strict=True)]
    for future in futures:
        future.result()


def _timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
