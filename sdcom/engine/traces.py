"""Arrivals of videos, made up or read from a file, for the simulation of the scheduler."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True, slots=True)
class Arrival:
    """One video.

    Attributes:
        at_s: when it comes.
        widths: what the gate will say of each of its frames.
        deadline_s: seconds after it comes at which its answer is no longer wanted; infinite for none.
    """

    at_s: float
    widths: tuple[float, ...]
    deadline_s: float = math.inf


def poisson_trace(
    num_videos: int,
    *,
    videos_per_s: float,
    mix: Mapping[float, float],
    num_frames: int = 16,
    deadline_s: float = math.inf,
    seed: int = 0,
) -> list[Arrival]:
    """Return videos that come at random, independently of one another.

    Args:
        num_videos: to make.
        videos_per_s: mean rate; infinite for all at once.
        mix: how often each width is chosen, in any unit.
        num_frames: T, of each.
        deadline_s: of each.
        seed: the same seed gives the same trace.
    """
    random, at_s, arrivals = Random(seed), 0.0, []  # noqa: S311  # no secret
    for _ in range(num_videos):
        at_s += random.expovariate(videos_per_s) if math.isfinite(videos_per_s) else 0.0
        widths = random.choices(list(mix), weights=list(mix.values()), k=num_frames)
        arrivals.append(Arrival(at_s, tuple(widths), deadline_s))
    return arrivals


def read_trace(path: Path) -> list[Arrival]:
    """Read a trace, one JSON object a line: `at_s`, `widths`, and if there is one `deadline_s`; sort by time.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not such an object; the message names it.
    """
    arrivals = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            widths = tuple(float(width) for width in row["widths"])
            arrivals.append(Arrival(float(row["at_s"]), widths, float(row.get("deadline_s", math.inf))))
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ValueError(
                f'{path}:{number} is not a video of a trace, like {{"at_s": 0.1, "widths": [0, 0.25]}}'
            ) from exc
        if not widths:
            raise ValueError(f"{path}:{number} is a video without frames")
    return sorted(arrivals, key=lambda arrival: arrival.at_s)
