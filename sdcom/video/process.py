"""The pool's end of one worker: started, asked, timed, killed, and its death explained."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import sdcom
from sdcom.errors import DeadlineExceededError, DecoderKilledError, SdcomError, VideoRejectedError
from sdcom.video.limits import DecodeLimits
from sdcom.video.messages import (
    MAX_MESSAGE_BYTES,
    MORE,
    READY,
    STOP,
    BrokenAnswerError,
    DecoderName,
    Progress,
    Request,
    WorkerSettings,
    parse_answer,
)
from sdcom.video.usage import allow_processor_time, resident_bytes

if TYPE_CHECKING:
    from sdcom.config import ClipConfig
    from sdcom.sampling import Sampling
    from sdcom.video.geometry import UInt8Array

WORKER_COMMAND = (sys.executable, "-P", "-m", "sdcom.video.worker")
"""Without the working directory on its path."""

_START_TIMEOUT_S, _LAST_WORDS_TIMEOUT_S = 30.0, 1.0


class WorkerStartError(SdcomError):
    """A decode worker could not be started."""


class WorkerGoneError(Exception):
    """The worker had died before it was asked; another can be."""


class WorkerProcess:
    """One jailed process and the memory that it leaves frames in. Not thread-safe.

    Args:
        command: what to run, less its last argument.
        clip: what the frames look like.
        limits: what a video may ask for.
        sampling: which frame of each segment.
        decoder: which decoder is preferred.
    """

    def __init__(
        self,
        command: Sequence[str],
        clip: ClipConfig,
        limits: DecodeLimits,
        sampling: Sampling,
        decoder: DecoderName,
    ) -> None:
        self._limits = limits
        self._num_videos = 0
        self._request = Request("video", 0)
        self._left_s = 0.0  # of the wall clock that the request may take
        self.at_job = False
        """Whether it works on a file or waits to be asked for more of it: no other may be sent."""
        self._resident_at_start = 0
        self.fate: str | None = None
        """Why this worker must be replaced, None while it is fit: "timeout", "crash", "memory", ..."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        frames_fd = os.memfd_create("sdcom-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._stderr = os.fdopen(os.memfd_create("sdcom-worker-stderr"), "w+b")
        settings = WorkerSettings(
            socket_fd=theirs.fileno(),
            frames_fd=frames_fd,
            parent_pid=os.getpid(),
            num_frames=clip.num_frames,
            short_side=clip.short_side,
            crop=clip.crop,
            limits=limits,
            sampling=sampling,
            order=clip.order,
            decoder=decoder,
        )
        try:
            self.frames_THWC = _map_frames(frames_fd, settings.frames_shape)
            self._process = subprocess.Popen(  # noqa: S603  # our own command, no shell
                [*command, settings.encode()],
                pass_fds=(theirs.fileno(), frames_fd),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
        except OSError:
            self._socket.close()
            self._stderr.close()
            raise
        finally:
            theirs.close()
            os.close(frames_fd)

    def wait_until_ready(self) -> None:
        """Wait until the worker has warmed up and is jailed.

        Raises:
            WorkerStartError: it died, or takes too long.
        """
        self._socket.settimeout(_START_TIMEOUT_S)
        with suppress(OSError):
            if self._socket.recv(MAX_MESSAGE_BYTES) == READY:
                self._resident_at_start = resident_bytes(self._process.pid)
                return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_TIMEOUT_S)
        words = self._last_words()
        self.close()
        raise WorkerStartError(f"a decode worker did not start: {words}")

    def run(self, request: Request, fd: int, deadline: float | None) -> Progress:
        """Have one file decoded, or a first round of it; the frames are in `frames_THWC` until the next call.

        Args:
            request: the job.
            fd: the file.
            deadline: a `time.monotonic()` value.

        Returns:
            The facts of a video, and which frames are there if it is decoded in rounds.

        Raises:
            VideoRejectedError: the file's own fault.
            DecoderKilledError: the file cost the worker its life; `fate` says how.
            DeadlineExceededError: the deadline passed; the worker is killed, its work being worthless.
            WorkerGoneError: the worker was dead already.
        """
        self._num_videos += request.kind != "jpeg"
        allow_processor_time(self._process.pid, self._limits.cpu_s)
        self._request, self._left_s = request, self._limits.wall_clock_s
        self.at_job = True
        try:
            return self._exchange(lambda: socket.send_fds(self._socket, [request.encode()], [fd]), deadline)
        except (BrokenPipeError, ConnectionResetError) as exc:
            self.fate = "crash"
            raise WorkerGoneError from exc

    def run_on(self, deadline: float | None) -> Progress:
        """Have one more round of the same file decoded, within what is left of its limits.

        Raises:
            VideoRejectedError: as `run`.
            DeadlineExceededError: as `run`.
        """
        try:
            return self._exchange(lambda: self._socket.send(MORE), deadline)
        except (BrokenPipeError, ConnectionResetError):
            raise self._killed(self._cause_of_death()) from None

    def stop(self) -> None:
        """Have the rest of the file left undecoded, and the file closed; at once, without an answer."""
        try:
            self._socket.send(STOP)
            self.at_job = False
        except OSError:
            self.fate = "crash"

    def _exchange(self, send: Callable[[], object], deadline: float | None) -> Progress:
        started = time.monotonic()
        kill_at = started + self._left_s
        until = kill_at if deadline is None else min(kill_at, deadline)
        if until <= started:
            raise self._out_of_time(kill_at, deadline)
        try:
            self._socket.settimeout(1.0)
            send()
            self._socket.settimeout(until - started)
            answer = self._socket.recv(MAX_MESSAGE_BYTES)
        except TimeoutError:
            raise self._out_of_time(kill_at, deadline) from None
        except (BrokenPipeError, ConnectionResetError):
            raise
        except BaseException:  # interrupted: the answer still to come must not be the next caller's
            self.fate = "abandoned"
            raise
        self._left_s = kill_at - time.monotonic()
        return self._understand(answer)

    def _understand(self, answer: bytes) -> Progress:
        if not answer:
            raise self._killed(self._cause_of_death())
        try:
            progress = parse_answer(answer, self._request.kind, len(self.frames_THWC))
        except DecoderKilledError as exc:
            self.fate = exc.reason
            raise
        except VideoRejectedError:
            self.at_job = False
            raise
        except BrokenAnswerError as exc:
            raise self._killed("crash") from exc
        else:
            self.at_job = progress.more
            return progress
        finally:
            if self.fate is None and self._is_worn():
                self.fate = "recycled"

    def _out_of_time(
        self, kill_at: float, deadline: float | None
    ) -> DeadlineExceededError | DecoderKilledError:
        if deadline is None or deadline >= kill_at:
            return self._killed("timeout")
        self.fate = "deadline"
        return DeadlineExceededError("the deadline passed while the video was being decoded")

    def kill(self) -> None:
        """Kill the process group; whoever waits for its answer learns of it. For any thread."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process and everything that it may have started, and free what it held."""
        self.kill()
        self._process.wait()
        self._socket.close()
        self._stderr.close()
        self.frames_THWC = np.empty((0, 0, 0, 3), np.uint8)  # the last use of the map, which closes with it

    def caught_lying(self) -> DecoderKilledError:
        """Return the error of an answer that no honest worker gives; this one is to be replaced."""
        return self._killed("crash")

    def _killed(self, reason: str) -> DecoderKilledError:
        self.fate = reason
        return DecoderKilledError(reason, self._explain(reason))

    def _explain(self, reason: str) -> str:
        if reason == "timeout":
            return (
                f"decoding took longer than {self._limits.wall_clock_s:g} s and was stopped; "
                "send a shorter video or a lower resolution"
            )
        if reason == "cpu":
            return (
                f"decoding took more than {self._limits.cpu_s:g} s of processor time and was stopped; "
                "send a shorter video or a lower resolution"
            )
        if reason == "memory":
            return (
                f"decoding took more than {self._limits.memory_bytes >> 20} MiB of memory and was stopped; "
                "send a lower resolution"
            )
        return "the decoder crashed on this file; it is damaged or malformed: encode it again"

    def _cause_of_death(self) -> str:
        """Wait for the dead process and say what it died of."""
        try:
            died_of = -self._process.wait(_LAST_WORDS_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # it hung up and lives on: close() kills it
            return "crash"
        if died_of == signal.SIGXCPU:
            return "cpu"
        if died_of == signal.SIGKILL:  # not by this pool, so by the kernel, for memory
            return "memory"
        return "crash"

    def _is_worn(self) -> bool:
        if self._num_videos >= self._limits.videos_per_worker:
            return True
        return resident_bytes(self._process.pid) > self._resident_at_start + self._limits.growth_bytes

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with status {self._process.returncode} and said nothing"


def _map_frames(fd: int, shape: tuple[int, int, int, int]) -> UInt8Array:
    """Return the memory file as an array; its size is sealed, so that no worker can make reading fatal."""
    os.ftruncate(fd, math.prod(shape))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return np.frombuffer(mmap.mmap(fd, math.prod(shape)), dtype=np.uint8).reshape(shape)


def _environment() -> dict[str, str]:
    """Return what a worker needs to know of the environment: no secret of the server is among it."""
    return {
        "PATH": os.environ.get("PATH", ""),  # decord's loader insists on one
        "PYTHONPATH": str(Path(sdcom.__file__).parent.parent),
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
