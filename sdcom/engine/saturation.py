"""Many videos at once: through the scheduler, by its own stages driven directly, and at full width.

Direct and scheduled differ by what scheduling costs; either and the full width by what the composition gains.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby
from operator import itemgetter
from queue import SimpleQueue
from random import Random
from typing import NamedTuple

import numpy as np

from sdcom.budget import WidthPlan
from sdcom.checkpoint import ModelInfo
from sdcom.config import ModelConfig
from sdcom.cost import model_macs
from sdcom.engine.backend import (
    PATIENCE_S,
    Answer,
    Begun,
    Float32Array,
    Gathered,
    Held,
    Picked,
    Room,
    UInt8Array,
)
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.costs import CostTable
from sdcom.engine.limits import Limits
from sdcom.engine.places import Places
from sdcom.engine.planning import video_planner
from sdcom.engine.scheduler import Scheduler
from sdcom.errors import InvalidParameterError
from sdcom.recognition import Budget

NUM_ROUNDS = 4
"""How often the scheduler gets all videos in a turn, so that filling up and emptying count for little."""


class Turn(NamedTuple):
    """Seconds of the same videos, in four ways.

    Attributes:
        baseline_s: full width on every frame, frames at hand.
        direct_s: the stages in full batches, frames at hand.
        scheduled_s: the scheduler, frames at hand.
        uploaded_s: the scheduler, and the frames' upload.
    """

    baseline_s: float
    direct_s: float
    scheduled_s: float
    uploaded_s: float


def time_saturation(
    room: Room,
    config: ModelConfig,
    limits: Limits,
    costs: CostTable,
    *,
    plans: Sequence[WidthPlan],
    num_turns: int = 5,
    num_in_hand: int = 1,
    num_uploading: int = 1,
    initializer: Callable[[], object] = lambda: None,
) -> list[Turn]:
    """Time videos in all ways, in turns, after one turn that warms up.

    The baseline is the dynamic network alone, at full width on every frame: no gate, no static network.

    Args:
        room: where the backend computes, for twice as many videos.
        config: of the model.
        limits: of the scheduler; its largest batches are the full ones.
        costs: of the scheduler.
        plans: the widths of each video's frames; as many videos are in flight at once.
        num_turns: that count.
        num_in_hand: of the scheduler.
        num_uploading: threads that submit videos, where their frames are not at hand.
        initializer: run once on each thread that calls the backend, this one too.
    """
    frames_BTHWC = _shades(config, len(plans))
    videos = [room.hold(frames_THWC) for frames_THWC in frames_BTHWC]
    initializer()
    scheduler = partial(
        Scheduler, config=config, limits=limits, costs=costs, num_in_hand=num_in_hand, initializer=initializer
    )
    with scheduler(AtHand(room, videos)) as at_hand, scheduler(room) as bringing:
        ways: list[Callable[[], object]] = [
            lambda: drive_full_width(room, config, limits, videos),
            lambda: drive(room, config, limits, videos, plans),
            lambda: _schedule(at_hand, frames_BTHWC, plans, num_threads=1),
            lambda: _schedule(bringing, frames_BTHWC, plans, num_threads=num_uploading),
        ]
        num_rounds = (1, 1, NUM_ROUNDS, NUM_ROUNDS)
        turns = [
            Turn(*(_timed(way) / rounds for way, rounds in zip(ways, num_rounds, strict=True)))
            for _ in range(num_turns + 1)
        ]
    return turns[1:]


class AtHand:
    """A room in which the videos are already: who comes gets one that is free."""

    def __init__(self, room: Room, videos: Sequence[Held]) -> None:
        self._free: SimpleQueue[Held] = SimpleQueue()
        for video in videos:
            self._free.put(video)
        self.runs_ahead = room.runs_ahead
        self.look, self.decide, self.fill, self.conclude = room.look, room.decide, room.fill, room.conclude

    def hold(self, _frames_THWC: UInt8Array, _patience_s: float = PATIENCE_S) -> Held:
        """Return a video that is there."""
        return self._free.get()

    def release(self, held: Held) -> None:
        """Let the next one have it."""
        self._free.put(held)


def _shades(config: ModelConfig, num_videos: int) -> UInt8Array:
    """Return videos of one grey each, [B, T, H, W, C]."""
    clip = config.clip
    frames_BTHWC = np.empty((num_videos, clip.num_frames, clip.crop, clip.crop, 3), dtype=np.uint8)
    frames_BTHWC[:] = (np.arange(num_videos) % 256).astype(np.uint8)[:, None, None, None, None]
    return frames_BTHWC


def drive_full_width(room: Room, config: ModelConfig, limits: Limits, videos: Sequence[Held]) -> None:
    """Run the dynamic network at full width on every frame of videos, in full batches."""
    every = _ranges(len(videos) * config.clip.num_frames, limits.max_batch_frames)
    _ended([room.fill(_picked(videos, config, rows), 1.0) for rows in every])


def drive(
    room: Room, config: ModelConfig, limits: Limits, videos: Sequence[Held], plans: Sequence[WidthPlan]
) -> Float32Array:
    """Run whole videos stage by stage, each in full batches but its last; return [B, T, L].

    Args:
        room: where the videos are.
        config: of the model.
        limits: the largest batches.
        videos: what `room.hold` returned for each, of T frames.
        plans: of each video; frames of width 0 must not have been filled before.
    """
    num_frames, most = config.clip.num_frames, limits.max_batch_frames
    gathered = [
        Gathered(videos[rows.start : rows.stop], num_frames, len(rows))
        for rows in _ranges(len(videos), limits.max_batch_videos)
    ]
    _ended([room.look(_picked(videos, config, rows)) for rows in _ranges(len(videos) * num_frames, most)])
    _ended([room.decide(batch) for batch in gathered])
    choices_N = np.concatenate([plan.choices for plan in plans])
    for choice in sorted({int(choice) for choice in choices_N} - {config.widths.index(0.0)}):
        of_width = np.flatnonzero(choices_N == choice).tolist()
        batches = [of_width[start : start + most] for start in range(0, len(of_width), most)]
        _ended([room.fill(_picked(videos, config, rows), config.widths[choice]) for rows in batches])
    return np.concatenate(_ended([room.conclude(batch) for batch in gathered]))


def _ended(batches: Sequence[Begun[Answer]]) -> list[Answer]:
    """Wait for batches that have begun, one after the other; return what came of them."""
    return [end() for end in batches]


def _picked(videos: Sequence[Held], config: ModelConfig, rows: Sequence[int]) -> Picked:
    """Return the frames at some rows of all videos' frames, ascending."""
    positions = [divmod(row, config.clip.num_frames) for row in rows]
    shares = [
        (videos[video], [position for _, position in group])
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


def full_width_plans(config: ModelConfig, num_full: int, num_videos: int) -> list[WidthPlan]:
    """Return plans of so many frames at full width and none at others: what trained gates make of a little.

    Raises:
        InvalidParameterError: a video has fewer frames.
    """
    num_frames, macs = config.clip.num_frames, model_macs(config).dynamic_by_choice
    if not 0 <= num_full <= num_frames:
        raise InvalidParameterError(f"a video has {num_frames} frames, got {num_full} of them at full width")
    widths, full = config.widths, config.widths.index(1.0)
    choices = (full,) * num_full + (widths.index(0.0),) * (num_frames - num_full)
    return [WidthPlan(choices, 0.0, num_full * macs[full])] * num_videos


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


def _schedule(
    scheduler: Scheduler, clips: UInt8Array, plans: Sequence[WidthPlan], *, num_threads: int
) -> None:
    """Run all videos `NUM_ROUNDS` times, as many in flight as there are, the next where one was answered."""
    planners: list[Planner] = [lambda _, plan=plan: plan for plan in plans]  # type: ignore[misc]
    places = Places(len(plans))

    def submit(turn: int) -> Future[Composed]:
        video = turn % len(plans)
        return places.submit(lambda: scheduler.submit(clips[video], planners[video]))

    def submit_every(first: int) -> None:
        answer_all(submit, range(first, NUM_ROUNDS * len(plans), num_threads))

    with ThreadPoolExecutor(num_threads) as threads:
        list(threads.map(submit_every, range(num_threads)))


def answer_all(submit: Callable[[int], Future[Composed]], turns: Iterable[int]) -> None:
    """Submit a video for each turn and wait for all answers.

    An answer is let go as it would be by a service: the garbage collector walks whatever is kept, and stops
    all threads meanwhile.

    Args:
        submit: waits until one more may be in flight, and returns its future.
        turns: what `submit` is called with.

    Raises:
        Exception: that of a video.
    """
    in_flight = deque[Future[Composed]]()
    for turn in turns:
        in_flight.append(submit(turn))
        while in_flight and in_flight[0].done():
            in_flight.popleft().result()
    for future in in_flight:
        future.result()


def _timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
