"""How many processors this process may use."""

import math
import os
from pathlib import Path

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def num_processors(quota_file: Path = _CPU_QUOTA) -> int:
    """Return the processors that this process may keep busy, at least 1.

    A container often has fewer than its host: by affinity (`--cpuset-cpus`), or by a quota of time (`--cpus`,
    Kubernetes' limits).

    Args:
        quota_file: the control group's `cpu.max`: microseconds allowed, or "max", and the period's.
    """
    allowed = len(os.sched_getaffinity(0))
    try:
        quota_us, period_us = quota_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no control groups of version 2 here
        return allowed
    return allowed if quota_us == "max" else min(allowed, math.ceil(int(quota_us) / int(period_us)))
