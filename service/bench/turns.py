"""Taking turns: several ways of doing the same work, timed in one run so that a busy moment spoils none."""

import statistics
import time
from collections.abc import Callable, Mapping


def medians_ms(
    ways: Mapping[str, Callable[[], object]],
    *,
    num_repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median milliseconds of each way; the first turn warms up.

    Args:
        ways: what to time, by name.
        num_repeats: turns that count.
        clock: seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(num_repeats + 1):
        for name, run in ways.items():
            started = clock()
            run()
            if turn:
                seconds[name].append(clock() - started)
    return {name: statistics.median(each) * 1e3 for name, each in seconds.items()}
