"""A bad video costs its own request and nobody else anything; nothing is left behind."""

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sdcom.config import ClipConfig
from sdcom.errors import (
    DeadlineExceededError,
    DecoderKilledError,
    InvalidParameterError,
    OverloadedError,
    UndecodableVideoError,
    VideoLimitError,
)
from sdcom.video import DecodeLimits, DecoderPool
from sdcom.video.process import WorkerStartError
from tests.sdcom.video.rogue_worker import ROGUE_COMMAND, misdeed_file
from tests.sdcom.video.videos import encode, read_number

REPOSITORY = Path(__file__).resolve().parents[3]
IMPATIENT = DecodeLimits(wall_clock_s=4.0, cpu_s=1.0, memory_bytes=256 << 20, growth_bytes=64 << 20)


def children() -> set[int]:
    """Return the processes that this one started and that still exist, dead or alive."""
    listed = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    if not listed.exists():
        pytest.skip("the kernel does not list children")
    while True:
        tasks = Path("/proc/self/task").iterdir()
        try:
            return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
        except FileNotFoundError:  # a thread ended meanwhile, and its children went to another: look again
            continue


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.mp4"
    path.write_bytes(encode(num_frames=16))
    return path


@pytest.fixture
def restarts() -> list[str]:
    return []


@pytest.fixture
def rogues(restarts: list[str]) -> Iterator[DecoderPool]:
    with rogue_pool(restarts, IMPATIENT) as pool:
        yield pool


def rogue_pool(restarts: list[str], limits: DecodeLimits) -> DecoderPool:
    return DecoderPool(
        ClipConfig(), limits, num_workers=2, on_restart=restarts.append, worker_command=ROGUE_COMMAND
    )


def rogue_file(tmp_path: Path, word: bytes) -> Path:
    path = tmp_path / word.decode()
    path.write_bytes(misdeed_file(word))
    return path


SMALLER = "shorter video or a lower resolution"
DEEDS = {
    b"SPIN": ("cpu", SMALLER),
    b"SLEEP": ("timeout", SMALLER),
    b"SEGFAULT": ("crash", "encode it again"),
    b"ABORT": ("crash", "encode it again"),
    b"EAT": ("memory", "lower resolution"),
    b"LIE": ("crash", "encode it again"),
    b"HANGUP": ("crash", "encode it again"),
}


@pytest.mark.parametrize(
    "word", [pytest.param(word, marks=[pytest.mark.alone] if word == b"EAT" else []) for word in DEEDS]
)
def test_a_killed_worker_costs_only_its_own_request(
    restarts: list[str], good: Path, tmp_path: Path, word: bytes
) -> None:
    reason, advice = DEEDS[word]
    patience_s = IMPATIENT.wall_clock_s if reason == "timeout" else 60.0  # a busy machine's cpu_s is long
    limits = dataclasses.replace(IMPATIENT, wall_clock_s=patience_s)
    with rogue_pool(restarts, limits) as rogues, ThreadPoolExecutor(4) as threads:
        bad = threads.submit(rogues.decode, rogue_file(tmp_path, word))
        fine = [threads.submit(rogues.decode, good) for _ in range(20)]
        for clip in fine:
            assert [read_number(frame) for frame in clip.result().frames_THWC] == list(range(16))
        with pytest.raises(DecoderKilledError, match=advice) as caught:
            bad.result()
        assert rogues.decode(good).num_frames == 16
    assert caught.value.reason == reason
    assert restarts == [reason]


def test_a_worker_that_grew_is_replaced(
    rogues: DecoderPool, restarts: list[str], good: Path, tmp_path: Path
) -> None:
    for _ in range(6):
        with pytest.raises(UndecodableVideoError):
            rogues.decode(rogue_file(tmp_path, b"LEAK"))
    assert "recycled" in restarts
    assert rogues.decode(good).num_frames == 16


def test_a_worker_is_replaced_after_its_share_of_videos(good: Path, restarts: list[str]) -> None:
    limits = DecodeLimits(videos_per_worker=2)
    with DecoderPool(ClipConfig(), limits, num_workers=1, on_restart=restarts.append) as pool:
        for _ in range(5):
            pool.decode(good)
    assert restarts == ["recycled", "recycled"]


def test_a_worker_that_died_idle_is_replaced_and_nobody_notices(good: Path, restarts: list[str]) -> None:
    before = children()
    with DecoderPool(ClipConfig(), num_workers=1, on_restart=restarts.append) as pool:
        (worker,) = children() - before
        os.kill(worker, signal.SIGKILL)
        assert eventually(lambda: not is_running(worker))
        assert pool.decode(good).num_frames == 16
    assert restarts == ["crash"]


def test_a_deadline_counts_while_waiting_and_while_decoding(
    rogues: DecoderPool, restarts: list[str], good: Path, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as threads:
        sleep = rogue_file(tmp_path, b"SLEEP")
        sleepers = [threads.submit(rogues.decode, sleep) for _ in range(2)]
        assert eventually(lambda: len(rogues._busy) == 2)
        with pytest.raises(DeadlineExceededError, match="before a decoder was free"):
            rogues.decode(good, deadline=time.monotonic() + 0.2)
        for sleeper in sleepers:
            assert isinstance(sleeper.exception(), DecoderKilledError)
    assert eventually(lambda: bool(rogues._idle))
    with pytest.raises(DeadlineExceededError, match="while the video was being decoded"):
        rogues.decode(sleep, deadline=time.monotonic() + 0.5)
    assert "deadline" in restarts


def test_a_deadline_that_has_passed_costs_no_worker(
    rogues: DecoderPool, restarts: list[str], good: Path
) -> None:
    with pytest.raises(DeadlineExceededError, match="before a decoder was free"):
        rogues.decode(good, deadline=time.monotonic() - 1)
    assert rogues.decode(good).num_frames == 16
    assert restarts == []


@pytest.mark.alone
def test_an_interrupted_callers_answer_does_not_go_to_the_next(
    rogues: DecoderPool, restarts: list[str], good: Path, tmp_path: Path
) -> None:
    interrupt = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        rogues.decode(rogue_file(tmp_path, b"SLEEP"))
    assert restarts == ["abandoned"]
    for _ in range(3):
        clip = rogues.decode(good)
        assert [read_number(frame) for frame in clip.frames_THWC] == list(range(16))


def test_many_threads_share_few_workers(good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(good.read_bytes()[:200])
    with DecoderPool(ClipConfig(), num_workers=2) as pool, ThreadPoolExecutor(16) as threads:
        jobs = [threads.submit(pool.decode, bad if k % 5 == 0 else good) for k in range(60)]
        outcomes = [job.exception() or job.result().num_frames for job in jobs]
    assert [o for o in outcomes if not isinstance(o, UndecodableVideoError)] == [16] * 48


def test_a_file_object_is_read_from_its_start_and_its_offset_stays(good: Path) -> None:
    with DecoderPool(ClipConfig(), num_workers=1) as pool, tempfile.SpooledTemporaryFile() as upload:
        upload.write(good.read_bytes())
        offset = upload.tell()
        assert pool.decode(upload).num_frames == 16  # type: ignore[arg-type]  # typeshed: not quite a BinaryIO
        assert upload.tell() == offset


def test_the_frames_belong_to_the_caller(good: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(encode(num_frames=40))
    with DecoderPool(ClipConfig(), num_workers=1) as pool:
        first = pool.decode(good)
        kept = first.frames_THWC.copy()
        pool.decode(other)
        assert np.array_equal(first.frames_THWC, kept)


def test_closing_leaves_no_process_and_no_descriptor(good: Path, tmp_path: Path) -> None:
    processes, files = children(), descriptors()
    for _ in range(2):
        with DecoderPool(ClipConfig(), IMPATIENT, num_workers=2, worker_command=ROGUE_COMMAND) as pool:
            pool.decode(good)
            with pytest.raises(DecoderKilledError):
                pool.decode(rogue_file(tmp_path, b"ABORT"))
    assert children() == processes
    assert descriptors() == files


def test_closing_ends_what_is_in_flight(tmp_path: Path) -> None:
    pool = DecoderPool(ClipConfig(), num_workers=1, worker_command=ROGUE_COMMAND)
    with ThreadPoolExecutor(2) as threads:
        sleep = rogue_file(tmp_path, b"SLEEP")
        jobs = [threads.submit(pool.decode, sleep) for _ in range(2)]
        assert eventually(lambda: bool(pool._busy))
        started = time.monotonic()
        pool.close()
        assert all(isinstance(job.exception(), OverloadedError) for job in jobs)
    assert time.monotonic() - started < 5
    with pytest.raises(OverloadedError, match="shutting down"):
        pool.decode(sleep)


def test_a_worker_given_back_while_the_pool_closes_is_reaped() -> None:
    processes, files = children(), descriptors()
    pool, leave = DecoderPool(ClipConfig(), num_workers=1), threading.Event()

    def hold_a_worker() -> None:
        with pool._worker(None):
            leave.wait(20)

    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(hold_a_worker)
        assert eventually(lambda: bool(pool._busy))
        with pool._changed:  # as close() does, while the worker's holder waits for the lock to give it back
            leave.set()
            time.sleep(0.2)
            pool._closed = True
            for worker in pool._busy:
                worker.kill()
        held.result(20)
    pool.close()
    assert children() == processes
    assert descriptors() == files


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ((sys.executable, "-c", "raise SystemExit('no jail today')"), "no jail today"),
        (("/nowhere/python",), "No such file"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "ended with status 3"),
    ],
)
def test_a_worker_that_cannot_start_says_why(command: tuple[str, ...], reason: str) -> None:
    processes, files = children(), descriptors()
    with pytest.raises(WorkerStartError, match=reason):
        DecoderPool(ClipConfig(), num_workers=2, worker_command=command)
    assert children() == processes
    assert descriptors() == files


def test_a_pool_that_can_start_no_worker_any_more_refuses_and_recovers(good: Path, tmp_path: Path) -> None:
    interpreter, hidden = tmp_path / "python", tmp_path / "hidden"
    interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    interpreter.chmod(0o755)
    command = (str(interpreter), *ROGUE_COMMAND[1:])
    with DecoderPool(ClipConfig(), num_workers=1, worker_command=command) as pool:
        interpreter.rename(hidden)
        with pytest.raises(DecoderKilledError):
            pool.decode(rogue_file(tmp_path, b"ABORT"))
        with pytest.raises(OverloadedError, match="cannot be started"):
            pool.decode(good)
        hidden.rename(interpreter)
        assert eventually(lambda: decodes(pool, good))


def decodes(pool: DecoderPool, path: Path) -> bool:
    try:
        return pool.decode(path).num_frames == 16
    except OverloadedError:
        return False


def test_limits_that_nothing_fits_keep_no_worker_from_starting(good: Path) -> None:
    limits = DecodeLimits(max_dimension=16, max_frames=1, max_duration_s=0.01)
    with DecoderPool(ClipConfig(), limits, num_workers=1) as pool, pytest.raises(VideoLimitError):
        pool.decode(good)


def test_a_pool_without_workers_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="at least 1 worker, got 0"):
        DecoderPool(ClipConfig(), num_workers=0)


ORPHAN_MAKER = """
import sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from threading import Thread
from sdcom.config import ClipConfig
from sdcom.video import DecodeLimits, DecoderPool
from tests.sdcom.video.rogue_worker import ROGUE_COMMAND
pool = DecoderPool(ClipConfig(), DecodeLimits(), num_workers=2, worker_command=ROGUE_COMMAND)
Thread(target=pool.decode, args=(Path(sys.argv[1]),)).start()
print("ready", flush=True)
"""


def test_a_killed_server_leaves_no_orphan(tmp_path: Path) -> None:
    spin = rogue_file(tmp_path, b"SPIN")
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN_MAKER.format(repository=str(REPOSITORY)), str(spin)],
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        workers = [
            int(pid)
            for task in Path(f"/proc/{server.pid}/task").iterdir()
            for pid in (task / "children").read_text().split()
        ]
        assert len(workers) == 2
        server.kill()
    assert eventually(lambda: not any(is_running(pid) for pid in workers), within_s=5)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
