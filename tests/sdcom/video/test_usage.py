"""What a worker takes is read from the kernel, and it may take so much more; a dead one needs nothing."""

import mmap
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from sdcom.video.usage import _used_ticks, allow_processor_time, resident_bytes

BUSY_S = 0.2
SCRIPT = f"""
import time
open("/proc/self/comm", "w").write(") 0 (x")  # a name that looks like the fields around it
while time.process_time() < {BUSY_S}: pass
print(flush=True)
input()
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that has used BUSY_S of processor time, and rests."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_process_may_take_so_much_more_than_it_has(busy: subprocess.Popen[bytes]) -> None:
    allow_processor_time(busy.pid, 100 - BUSY_S)
    soft, hard = resource.prlimit(busy.pid, resource.RLIMIT_CPU)
    assert 100 <= soft < 110
    assert hard == resource.getrlimit(resource.RLIMIT_CPU)[1]


def test_the_processor_time_of_a_process_is_what_it_says_itself(busy: subprocess.Popen[bytes]) -> None:
    assert BUSY_S <= _used_ticks(busy.pid) / os.sysconf("SC_CLK_TCK") + 0.05 < BUSY_S + 5
    while time.process_time() < 0.5:
        pass
    ours = os.times()
    assert _used_ticks(os.getpid()) / os.sysconf("SC_CLK_TCK") == pytest.approx(
        ours.user + ours.system, abs=0.2
    )


def test_a_hard_limit_stays(busy: subprocess.Popen[bytes]) -> None:
    resource.prlimit(busy.pid, resource.RLIMIT_CPU, (50, 60))
    allow_processor_time(busy.pid, 100)
    assert resource.prlimit(busy.pid, resource.RLIMIT_CPU) == (60, 60)


def test_memory_is_what_is_resident() -> None:
    before = resident_bytes(os.getpid())
    with mmap.mmap(-1, 64 << 20) as held:  # new to the process, as what it frees and takes again is not
        held.write(b"x" * len(held))
        assert resident_bytes(os.getpid()) >= before + len(held) // 2


def test_a_process_that_is_gone_has_no_memory_and_needs_no_time(busy: subprocess.Popen[bytes]) -> None:
    busy.kill()
    busy.wait()
    allow_processor_time(busy.pid, 100)
    assert resident_bytes(busy.pid) == 0
