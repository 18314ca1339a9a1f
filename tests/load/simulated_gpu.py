"""The scheduler's share of a GPU's throughput, where there is no GPU: how much Python lets the device do.

    python -m tests.load.simulated_gpu --videos 1024 --in-hand 12

The room is a GPU's own (`DenseRoom`), its networks only take time. The clock is the processor time of this
process and what it waits for the device beyond that, so other work on the machine is hardly in it.
"""

import gc
import statistics
import threading
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from sdcom.budget import Allowance, Currency
from sdcom.config import ClipConfig, ModelConfig
from sdcom.cost import model_macs
from sdcom.engine.backend import Begun, Float32Array
from sdcom.engine.dense_room import DenseRoom
from sdcom.engine.limits import Limits
from sdcom.engine.measure import measure_costs
from sdcom.engine.places import Places
from sdcom.engine.saturation import AtHand, answer_all, drive, full_width_plans
from sdcom.engine.scheduler import Scheduler

CONFIG = ModelConfig(clip=ClipConfig(num_frames=16, short_side=32, crop=32), labels=("a", "b"))
T, K = CONFIG.clip.num_frames, CONFIG.num_widths
BATCH = 256
BATCH_US, WAKING_US = 30.0, 50.0
FRAME_US = {"_FillIn": 43.7, "_DecideOn": 0.25, "_ConcludeOn": 0.25, "_Repeat": 0.25}
"""Of batches of 256, as CUDA graphs of compiled networks took on an H100; smaller ones are half as fast."""


class Device:
    """Computes nothing, one batch after the other.

    Args:
        look_us: of the static network, a frame.
    """

    def __init__(self, look_us: float) -> None:
        self._frame_us = {**FRAME_US, "_LookAt": look_us}
        self._idle_from_s = self._skipped_s = self._watching_s = 0.0
        one_at_full_TK = np.full((T, K), -9, dtype=np.float32)
        one_at_full_TK[0, -1] = one_at_full_TK[1:, 0] = 9
        self._logits_TK = one_at_full_TK

    def computed_s(self) -> float:
        return time.process_time() - self._watching_s

    def now_s(self) -> float:
        return self.computed_s() + self._skipped_s

    def begin(self, part: nn.Module, numbers_N: Tensor) -> Begun[tuple[Float32Array, ...]]:
        kind, num_rows = type(part).__name__, len(numbers_N)
        num_units = num_rows * T if kind in ("_DecideOn", "_ConcludeOn") else num_rows
        slower = 1.0 if num_rows == BATCH else min(2.0, BATCH / num_rows)
        seconds = (BATCH_US + self._frame_us[kind] * num_units * slower) / 1e6
        self._idle_from_s = end_s = max(self.now_s(), self._idle_from_s) + seconds

        def end() -> tuple[Float32Array, ...]:
            self._wait(end_s)
            return (self._logits_TK[None].repeat(num_rows, axis=0),) if num_units > num_rows else ()

        return end

    def _wait(self, end_s: float) -> None:
        """Let others run until then, or skip the time once nobody does; only one thread waits here."""
        started_s, watched_s, before_s, num_quiet = time.thread_time(), self._watching_s, 0.0, 0
        while (now_s := self.now_s()) < end_s:
            time.sleep(1e-4)
            num_quiet = 0 if now_s - before_s > 1e-5 or _others_run() else num_quiet + 1
            before_s = now_s
            self._watching_s = watched_s + time.thread_time() - started_s
            if num_quiet >= 2:
                self._skipped_s += max(0.0, end_s + WAKING_US / 1e6 - self.now_s())


def _others_run() -> bool:
    """Return whether another thread of this process runs, or would if it got a processor (Linux)."""
    own = str(threading.get_native_id())
    tasks = (task for task in Path("/proc/self/task").iterdir() if task.name != own)
    return any((task / "stat").read_text().rpartition(")")[2].split()[0] == "R" for task in tasks)


def _room(device: Device, num_videos: int) -> DenseRoom:
    networks = {width: nn.Identity() for width in CONFIG.widths if width > 0}
    return DenseRoom(
        CONFIG,
        num_videos,
        look=nn.Identity(),  # type: ignore[arg-type]
        fill=networks,  # type: ignore[arg-type]
        decide=nn.Identity(),  # type: ignore[arg-type]
        conclude=lambda _: nn.Identity(),  # type: ignore[arg-type, return-value]
        device="cpu",
        begin=device.begin,
        upload=lambda *_: None,
    )


def shares(look_us: float, *, num_videos: int, num_in_hand: int, num_rounds: int, num_turns: int) -> None:
    """Print the throughput scheduled, and of that of the stages driven directly, by turns."""
    device = Device(look_us)
    room = _room(device, 2 * num_videos)
    limits = Limits(BATCH, min(BATCH, num_videos), num_videos * T, tuple(2**n for n in range(9)))
    costs = measure_costs(room, CONFIG, limits, clock=device.now_s)
    macs_K = model_macs(CONFIG).dynamic_by_choice
    budget = Allowance(Currency.of_macs(macs_K), macs_K[-1])
    plans = full_width_plans(CONFIG, 1, num_videos)
    clip_THWC = np.zeros((T, CONFIG.clip.crop, CONFIG.clip.crop, 3), dtype=np.uint8)
    held = [room.hold(clip_THWC) for _ in range(num_videos)]

    def timed(work: Callable[[], object]) -> float:
        started_s = device.now_s()
        work()
        return device.now_s() - started_s

    at_hand = AtHand(room, held)
    with Scheduler(
        at_hand, CONFIG, limits, costs=costs, clock=device.now_s, num_in_hand=num_in_hand
    ) as scheduler:
        places, submit = Places(num_videos), partial(scheduler.submit, clip_THWC, budget)

        def schedule() -> None:
            answer_all(lambda _: places.submit(submit), range(num_rounds * num_videos))

        turns = []
        for _ in range(1 + num_turns):
            direct_s = timed(lambda: drive(room, CONFIG, limits, held, plans)) / num_videos
            before_s = device.computed_s()
            scheduled_s = timed(schedule) / num_rounds / num_videos
            computed_us = (device.computed_s() - before_s) / num_rounds / num_videos * 1e6
            turns.append((1 / scheduled_s, direct_s / scheduled_s, computed_us))
    rate, share, computed_us = (statistics.median(each) for each in zip(*turns[1:], strict=True))
    Console().print(
        f"look {look_us} us: {rate:,.0f} videos/s, {share:.0%} of direct, {computed_us:.0f} us of processor"
    )


def main() -> None:
    """Run it."""
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--videos", type=int, default=1024, help="in flight at once")
    parser.add_argument("--in-hand", type=int, default=12, help="batches begun at once")
    parser.add_argument("--rounds", type=int, default=4, help="a turn, of as many as are in flight")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--look-us", type=float, nargs="+", default=[4.2, 3.1], help="the look, a frame")
    given = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # as the service does
    for look_us in given.look_us:
        shares(
            look_us,
            num_videos=given.videos,
            num_in_hand=given.in_hand,
            num_rounds=given.rounds,
            num_turns=given.turns,
        )


if __name__ == "__main__":
    main()
