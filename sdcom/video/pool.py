"""Warm, jailed decode workers behind one blocking, thread-safe call."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from sdcom.errors import (
    DeadlineExceededError,
    DecoderKilledError,
    InvalidParameterError,
    OverloadedError,
    UndecodableVideoError,
)
from sdcom.video.decoded import ClipOnDemand, DecodedClip
from sdcom.video.limits import DecodeLimits
from sdcom.video.messages import DecoderName, Progress, Request
from sdcom.video.process import WORKER_COMMAND, WorkerGoneError, WorkerProcess, WorkerStartError
from sdcom.video.sniff import HEAD_BYTES, sniff_container
from sdcom.video.source import open_descriptor, open_memory_file

if TYPE_CHECKING:
    from sdcom.config import ClipConfig
    from sdcom.sampling import Sampling
    from sdcom.video.geometry import UInt8Array

_RESTART_PAUSE_S = 1.0
_JPEG_MAGIC = b"\xff\xd8\xff"


class DecoderPool:
    """Warm worker processes, each jailed and serving one file at a time. Thread-safe; a context manager.

    Args:
        clip: which frames come out.
        limits: what one video may ask for; None is the defaults.
        num_workers: processes.
        sampling: which frame stands for each of a video's equal stretches.
        decoder: which decoder is preferred; PyAV reads what decord does not.
        on_restart: called with the reason whenever a worker is replaced: "timeout", "crash", "memory", "cpu",
            "deadline", "abandoned" (its caller was interrupted) or "recycled". Called from the thread that
            noticed; it must not raise.
        worker_command: what a worker runs, less its last argument, its settings.

    Raises:
        InvalidParameterError: there is to be no worker.
        WorkerStartError: no worker can be started, or the kernel refuses to jail it; the message says why.
    """

    def __init__(
        self,
        clip: ClipConfig,
        limits: DecodeLimits | None = None,
        *,
        num_workers: int = 2,
        sampling: Sampling = "centers",
        decoder: DecoderName = "pyav",
        on_restart: Callable[[str], None] | None = None,
        worker_command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        if num_workers < 1:
            raise InvalidParameterError(f"a decoder pool needs at least 1 worker, got {num_workers}")
        limits = limits or DecodeLimits()
        self._on_restart = on_restart or (lambda _: None)
        self._launch_one = partial(WorkerProcess, worker_command, clip, limits, sampling, decoder)
        self._changed = threading.Condition()
        self._idle: deque[WorkerProcess] = deque()
        self._busy: set[WorkerProcess] = set()
        self._num_missing = num_workers
        self._failure: WorkerStartError | None = None
        self._closed = False
        # Workers die with the thread that started them (PR_SET_PDEATHSIG), so one thread starts them all.
        self._starter = threading.Thread(target=self._keep_staffed, name="sdcom-decode-starter", daemon=True)
        self._starter.start()
        self._await_first_workers(num_workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, source: BinaryIO | Path, *, deadline: float | None = None) -> DecodedClip:
        """Decode one video.

        Args:
            source: a path, or a file object with a real `fileno()`, whose offset is neither used nor moved.
            deadline: a `time.monotonic()` value.

        Raises:
            VideoRejectedError: the file is no video that is accepted; its subclasses say why.
            DecoderKilledError: its decoder was stopped or died, for this file only.
            DeadlineExceededError: the deadline passed first.
            OverloadedError: no worker can be started at the moment, or the pool is closed.
        """
        with open_descriptor(source) as fd:
            container = sniff_container(os.pread(fd, HEAD_BYTES, 0))
            request = Request("video", os.fstat(fd).st_size, container)
            with self._begun(request, fd, deadline) as (worker, progress):
                return DecodedClip.of(worker.frames_THWC.copy(), progress.facts)

    @contextmanager
    def decode_on_demand(
        self, source: BinaryIO | Path, *, deadline: float | None = None
    ) -> Iterator[ClipOnDemand]:
        """Hold a decoder that decodes one video in rounds, in feeding order, as its frames are asked for.

        The frames are those of `decode`. Limits hold over all rounds, the time between them not counted.

        Args:
            source: as for `decode`.
            deadline: a `time.monotonic()` value.

        Raises:
            SdcomError: as for `decode`, of the first round; the others raise where they are asked for.
        """
        started = time.perf_counter()
        with open_descriptor(source) as fd:
            container = sniff_container(os.pread(fd, HEAD_BYTES, 0))
            request = Request("rounds", os.fstat(fd).st_size, container)
            with self._begun(request, fd, deadline) as (worker, progress):
                run_on = partial(self._unless_closed, partial(worker.run_on, deadline))
                clip = ClipOnDemand(worker, progress, run_on, time.perf_counter() - started)
                try:
                    yield clip
                finally:
                    clip.leave()

    def decode_image(self, data: bytes, *, deadline: float | None = None) -> UInt8Array:
        """Decode one JPEG image.

        Args:
            data: the file.
            deadline: a `time.monotonic()` value.

        Returns:
            uint8, shape (crop, crop, 3), RGB, upright.

        Raises:
            UndecodableVideoError: these bytes are no JPEG image that can be decoded.
            VideoLimitError: the image's dimensions are over a limit.
            DecoderKilledError: its decoder was stopped or died, for this image only.
            DeadlineExceededError: the deadline passed first.
            OverloadedError: as for `decode`.
        """
        if not data.startswith(_JPEG_MAGIC):
            raise UndecodableVideoError(f"a frame must be a JPEG image; these {len(data)} bytes are none")
        with open_memory_file("sdcom-image", data) as file:
            request = Request("jpeg", len(data))
            with self._begun(request, file.fileno(), deadline) as (worker, _):
                image_HWC: UInt8Array = worker.frames_THWC[0].copy()
                return image_HWC

    def close(self) -> None:
        """Kill all workers; calls in flight fail. Safe to call twice."""
        with self._changed:
            self._closed = True
            for worker in self._busy:
                worker.kill()
            idle = list(self._idle)
            self._idle.clear()
            self._changed.notify_all()
        for worker in idle:
            worker.close()
        self._starter.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)

    @contextmanager
    def _begun(
        self, request: Request, fd: int, deadline: float | None
    ) -> Iterator[tuple[WorkerProcess, Progress]]:
        """Hold a free worker that has begun the job, and what it said; nobody else gets it meanwhile."""
        with ExitStack() as held:
            while True:
                worker = held.enter_context(self._worker(deadline))
                try:
                    progress = self._unless_closed(partial(worker.run, request, fd, deadline))
                    break
                except WorkerGoneError:
                    held.close()
            yield worker, progress

    def _unless_closed(self, work: Callable[[], Progress]) -> Progress:
        """Return what a worker says; if `close` killed it, say so instead."""
        try:
            return work()
        except DecoderKilledError:
            if self._closed:
                raise _shutting_down() from None
            raise

    @contextmanager
    def _worker(self, deadline: float | None) -> Iterator[WorkerProcess]:
        worker = self._take(deadline)
        try:
            yield worker
        finally:
            self._give_back(worker)

    def _take(self, deadline: float | None) -> WorkerProcess:
        with self._changed:
            timeout_s = None if deadline is None else deadline - time.monotonic()
            if timeout_s is not None and timeout_s <= 0:  # its worker would only have to be killed
                raise _no_decoder_in_time()
            self._changed.wait_for(lambda: self._idle or self._closed or self._is_hopeless(), timeout_s)
            if self._closed:
                raise _shutting_down()
            if self._idle:
                worker = self._idle.popleft()
                self._busy.add(worker)
                return worker
            if self._is_hopeless():
                raise OverloadedError(str(self._failure), retry_after_s=_RESTART_PAUSE_S)
        raise _no_decoder_in_time()

    def _is_hopeless(self) -> bool:
        """True while no worker can be started and none is at work that could become free."""
        return self._failure is not None and not self._busy

    def _give_back(self, worker: WorkerProcess) -> None:
        """Return a fit worker to the others, or have another started in its place."""
        fate = worker.fate or ("abandoned" if worker.at_job else None)
        with self._changed:  # close() either sees it idle, or sees it busy and waits until it is reaped here
            if fate is None and not self._closed:
                self._busy.discard(worker)
                self._idle.append(worker)
                self._changed.notify_all()
                return
        worker.close()
        with self._changed:
            self._busy.discard(worker)
            self._num_missing += fate is not None
            self._changed.notify_all()
        if fate is not None:
            self._on_restart(fate)

    def _await_first_workers(self, num_workers: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failure or len(self._idle) == num_workers)
            failure = self._failure
        if failure:
            self.close()
            raise failure

    def _keep_staffed(self) -> None:
        """Start missing workers until the pool closes; after a failure, again every second."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._num_missing)
                if self._closed:
                    return
                num_starting, self._num_missing = self._num_missing, 0
            starting = [self._launch() for _ in range(num_starting)]  # all at once, then waited for in turn
            for worker in starting:
                if worker is not None:
                    self._admit(worker)
            with self._changed:
                if self._failure:
                    self._changed.wait_for(lambda: self._closed, _RESTART_PAUSE_S)

    def _launch(self) -> WorkerProcess | None:
        try:
            return self._launch_one()
        except OSError as exc:
            self._note_failure(WorkerStartError(f"a decode worker cannot be started: {exc}"))
            return None

    def _admit(self, worker: WorkerProcess) -> None:
        try:
            worker.wait_until_ready()
        except WorkerStartError as exc:
            self._note_failure(exc)
            return
        with self._changed:
            self._failure = None
            if self._closed:
                worker.close()
            else:
                self._idle.append(worker)
            self._changed.notify_all()

    def _note_failure(self, failure: WorkerStartError) -> None:
        with self._changed:
            self._failure = failure
            self._num_missing += 1
            self._changed.notify_all()


def _shutting_down() -> OverloadedError:
    return OverloadedError("the decoders are shutting down", retry_after_s=_RESTART_PAUSE_S)


def _no_decoder_in_time() -> DeadlineExceededError:
    return DeadlineExceededError("the deadline passed before a decoder was free")
