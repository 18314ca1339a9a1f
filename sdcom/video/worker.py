"""A decode worker's process: warms up, locks itself down, serves one file at a time until its pool is gone.

Run by the pool as `python -m sdcom.video.worker`; it answers on an inherited socket and leaves frames in an
inherited memory file.
"""

from __future__ import annotations

import io
import mmap
import os
import pkgutil
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from importlib import import_module

import av
import numpy as np

from sdcom.video.clip import decode_clip, decode_in_rounds, decode_jpeg
from sdcom.video.geometry import UInt8Array
from sdcom.video.jail import lock_down
from sdcom.video.limits import DecodeLimits
from sdcom.video.messages import (
    MAX_MESSAGE_BYTES,
    MORE,
    READY,
    STOP,
    Progress,
    Request,
    WorkerSettings,
    encode_error,
    encode_progress,
)
from sdcom.video.source import FileView, open_memory_file

Job = Callable[[Request, FileView, UInt8Array], Generator[Progress]]


def decoding_job(settings: WorkerSettings) -> Job:
    """Return the job of a real worker: decode a video or an image into the frames."""

    def decode(request: Request, source: FileView, frames_THWC: UInt8Array) -> Generator[Progress]:
        if request.kind == "jpeg":
            decode_jpeg(source.read(), settings.short_side, settings.limits, frames_THWC[0])
            yield Progress(None)
            return
        video = (source, request.container, settings.short_side, settings.limits, frames_THWC)
        if request.kind == "rounds" and settings.decoder == "pyav":
            yield from decode_in_rounds(*video, order=settings.order, sampling=settings.sampling)
            return
        facts = decode_clip(*video, sampling=settings.sampling, decoder=settings.decoder)
        yield Progress(facts, tuple(range(len(frames_THWC))))

    return decode


def serve(settings: WorkerSettings, job: Job) -> None:
    """Lock this process down and run `job` on every file that comes, until the pool hangs up."""
    control = socket.socket(fileno=settings.socket_fd)
    frames = mmap.mmap(settings.frames_fd, int(np.prod(settings.frames_shape)))
    frames_THWC = np.frombuffer(frames, dtype=np.uint8).reshape(settings.frames_shape)
    lock_down(settings.parent_pid, settings.limits.memory_bytes)
    control.send(READY)
    while True:
        datagram, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
        if not datagram:
            return
        request = Request.parse(datagram)
        with closing(job(request, FileView(fds[0], request.num_bytes), frames_THWC)) as rounds:
            _answer(control, rounds)
        os.close(fds[0])


def _answer(control: socket.socket, rounds: Iterator[Progress]) -> None:
    """Send an answer for each round that is asked for; the file is closed when no more are."""
    asked = MORE
    while asked == MORE:
        try:
            progress = next(rounds)
        except Exception as exc:  # whatever a hostile file provokes is its own answer
            control.send(encode_error(exc))
            return
        control.send(encode_progress(progress))
        asked = control.recv(MAX_MESSAGE_BYTES) if progress.more else STOP


def warm_up(settings: WorkerSettings) -> None:
    """Load and use everything that would otherwise be loaded on first use, which the jail forbids."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    frames_THWC = np.zeros(settings.frames_shape, dtype=np.uint8)
    decode = decoding_job(replace(settings, limits=DecodeLimits()))  # our own videos are no uploads
    for container in ("mp4", "avi"):  # decord, if preferred, reads the one, PyAV the other
        data = _tiny_video(container)
        with open_memory_file("sdcom-warm-up", data) as file:
            for kind in ("video", "rounds"):
                view = FileView(file.fileno(), len(data))
                list(decode(Request(kind, len(data), container), view, frames_THWC))


def _tiny_video(container: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p")
        for level in (0, 128):
            picture = np.full((64, 64, 3), level, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def main() -> None:
    """Run a real worker."""
    settings = WorkerSettings.parse(sys.argv[1])
    warm_up(settings)
    serve(settings, decoding_job(settings))


if __name__ == "__main__":
    main()
