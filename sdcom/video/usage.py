"""What the kernel says that a process takes, and how much more it lets it take (proc(5), prlimit(2))."""

import math
import os
import resource
from contextlib import suppress
from pathlib import Path


def allow_processor_time(pid: int, seconds: float) -> None:
    """Let a process take so much more processor time than it has; one that is gone needs none.

    Its hard limit stays.
    """
    with suppress(ProcessLookupError, FileNotFoundError):
        used_s = _used_ticks(pid) / os.sysconf("SC_CLK_TCK")
        _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
        soft = math.ceil(used_s + seconds)
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
        resource.prlimit(pid, resource.RLIMIT_CPU, (soft, hard))


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has; 0 if it is gone."""
    try:
        statm = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(statm.split()[1]) * resource.getpagesize()


def _used_ticks(pid: int) -> int:
    """Return the processor time that a process has used, in clock ticks (utime and stime)."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    fields_after_name = stat.rpartition(")")[2].split()
    return int(fields_after_name[11]) + int(fields_after_name[12])
