"""The scheduler beside its own stages driven directly, in full batches: what scheduling itself costs."""

import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

import numpy as np

from sdcom.architecture import feature_channels
from sdcom.budget import WidthPlan
from sdcom.config import ModelConfig
from sdcom.cost import model_macs
from sdcom.engine.backend import Float32Array, Parts, UInt8Array
from sdcom.engine.composed import Planner
from sdcom.engine.costs import CostTable
from sdcom.engine.limits import Limits
from sdcom.engine.scheduler import Scheduler


class Turn(NamedTuple):
    """Seconds of the same videos, in full batches and through the scheduler."""

    direct_s: float
    scheduled_s: float


def time_saturation(
    backend: Parts,
    config: ModelConfig,
    limits: Limits,
    costs: CostTable,
    *,
    mix: Mapping[float, float],
    num_videos: int,
    num_turns: int = 5,
    num_in_hand: int = 1,
    initializer: Callable[[], object] | None = None,
) -> list[Turn]:
    """Time random videos both ways, in turns, after one turn that warms up.

    Args:
        backend: of the model.
        config: of the model.
        limits: of the scheduler; its largest batches are the full ones.
        costs: of the scheduler.
        mix: how often each of the model's widths is chosen, in any unit.
        num_videos: of each turn, all at once.
        num_turns: that count.
        num_in_hand: of the scheduler.
        initializer: run once on each thread that calls the backend, this one too.
    """
    shape = (config.clip.num_frames, config.clip.crop, config.clip.crop, 3)
    clips = [np.full(shape, shade % 256, dtype=np.uint8) for shade in range(num_videos)]
    plans = _random_plans(config, mix, num_videos)
    if initializer is not None:
        initializer()
    with Scheduler(
        backend, config, limits, costs=costs, num_in_hand=num_in_hand, initializer=initializer
    ) as scheduler:
        turns = []
        for _ in range(num_turns + 1):
            direct_s = _timed(lambda: drive(backend, config, limits, clips, plans))
            turns.append(Turn(direct_s, _timed(lambda: _schedule(scheduler, clips, plans))))
    return turns[1:]


def drive(
    backend: Parts,
    config: ModelConfig,
    limits: Limits,
    clips: Sequence[UInt8Array],
    plans: Sequence[WidthPlan],
) -> Float32Array:
    """Run whole videos of one length stage by stage, each in full batches but its last; return [B, T, L].

    Args:
        backend: of the model.
        config: of the model.
        limits: the largest batches.
        clips: frames of each video.
        plans: of each video.
    """
    num_videos, num_frames, most = len(clips), len(clips[0]), limits.max_batch_frames
    frames_NHWC = np.concatenate(clips)
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
    logits_BTL = []
    for rows in _slices(len(frames_NHWC), limits.max_batch_videos * num_frames):
        z_NF = backend.fuse(features_ND[rows], supplements_ND[rows])
        z_BTF = z_NF.reshape(-1, num_frames, z_NF.shape[1])
        logits_BTL.append(backend.classify(np.maximum.accumulate(z_BTF, axis=1)))
    return np.concatenate(logits_BTL)


def _slices(count: int, most: int) -> list[slice]:
    return [slice(start, start + most) for start in range(0, count, most)]


def _random_plans(config: ModelConfig, mix: Mapping[float, float], num_videos: int) -> list[WidthPlan]:
    random, macs_K = Random(0), model_macs(config).dynamic_by_choice  # noqa: S311  # no secret
    weights = [mix.get(width, 0.0) for width in config.widths]
    plans = []
    for _ in range(num_videos):
        choices = random.choices(range(config.num_widths), weights, k=config.clip.num_frames)
        plans.append(WidthPlan(tuple(choices), 0.0, sum(macs_K[choice] for choice in choices)))
    return plans


def _schedule(scheduler: Scheduler, clips: Sequence[UInt8Array], plans: Sequence[WidthPlan]) -> None:
    planners: list[Planner] = [lambda _, plan=plan: plan for plan in plans]  # type: ignore[misc]
    futures = [scheduler.submit_in_line(*video) for video in zip(clips, planners, strict=True)]
    for future in futures:
        future.result()


def _timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
