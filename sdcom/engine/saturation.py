"""Many videos at once: through the scheduler, by its own stages driven directly, and at full width.

Direct and scheduled differ by what scheduling costs; either and the full width by what the composition gains.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

import numpy as np

from sdcom.architecture import feature_channels
from sdcom.budget import WidthPlan
from sdcom.checkpoint import ModelInfo
from sdcom.config import ModelConfig
from sdcom.cost import model_macs
from sdcom.engine.backend import Float32Array, Parts, UInt8Array
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

    The baseline is the dynamic network alone, at full width on every frame: no gate, no static network.

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
    if initializer is not None:
        initializer()
    with Scheduler(
        backend, config, limits, costs=costs, num_in_hand=num_in_hand, initializer=initializer
    ) as scheduler:
        ways: list[Callable[[], object]] = [
            lambda: drive_full_width(backend, limits, frames_BTHWC),
            lambda: drive(backend, config, limits, frames_BTHWC, plans),
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


def drive_full_width(backend: Parts, limits: Limits, frames_BTHWC: UInt8Array) -> None:
    """Run the dynamic network at full width on every frame, in full batches."""
    frames_NHWC = frames_BTHWC.reshape(-1, *frames_BTHWC.shape[2:])
    for rows in _slices(len(frames_NHWC), limits.max_batch_frames):
        backend.fill(frames_NHWC[rows], 1.0)


def drive(
    backend: Parts,
    config: ModelConfig,
    limits: Limits,
    frames_BTHWC: UInt8Array,
    plans: Sequence[WidthPlan],
) -> Float32Array:
    """Run whole videos of one length stage by stage, each in full batches but its last; return [B, T, L].

    Args:
        backend: of the model.
        config: of the model.
        limits: the largest batches.
        frames_BTHWC: of each video.
        plans: of each video.
    """
    num_videos, num_frames, most = len(plans), frames_BTHWC.shape[1], limits.max_batch_frames
    frames_NHWC = frames_BTHWC.reshape(-1, *frames_BTHWC.shape[2:])
    looks = [backend.look(frames_NHWC[rows]) for rows in _slices(len(frames_NHWC), most)]
    features_ND = np.concatenate([look.features_ND for look in looks])
    embeddings_NE = np.concatenate([look.embeddings_NE for look in looks])
    embeddings_BTE = embeddings_NE.reshape(num_videos, num_frames, -1)
    for videos in _slices(num_videos, limits.max_batch_videos):
        backend.decide(embeddings_BTE[videos])
    choices_N = np.concatenate([plan.choices for plan in plans])
    supplements_ND = np.zeros((len(frames_NHWC), feature_channels(config.dynamic)), dtype=np.float32)
    for choice in sorted({int(choice) for choice in choices_N} - {config.widths.index(0.0)}):
        rows_of_width = np.flatnonzero(choices_N == choice)
        for rows in _slices(len(rows_of_width), most):
            batch = rows_of_width[rows]
            supplements_ND[batch] = backend.fill(frames_NHWC[batch], config.widths[choice])
    features_BTD, supplements_BTD = (
        rows.reshape(num_videos, num_frames, -1) for rows in (features_ND, supplements_ND)
    )
    return np.concatenate(
        [
            backend.conclude(features_BTD[videos], supplements_BTD[videos])
            for videos in _slices(num_videos, limits.max_batch_videos)
        ]
    )


def _slices(count: int, most: int) -> list[slice]:
    return [slice(start, start + most) for start in range(0, count, most)]


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
    futures = [scheduler.submit_in_line(*video) for video in zip(clips, planners, strict=True)]
    for future in futures:
        future.result()


def _timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
