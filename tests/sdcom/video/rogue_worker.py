"""Workers that misbehave on request: the pool's tests run them in the real worker's place.

They are real workers, jailed as those are, whose job looks at the file for a word first.
"""

import ctypes
import errno
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

from sdcom.errors import UndecodableVideoError
from sdcom.video.geometry import UInt8Array
from sdcom.video.messages import ClipFacts, Progress, Request, WorkerSettings
from sdcom.video.source import FileView
from sdcom.video.worker import decoding_job, serve, warm_up

_REPOSITORY = str(Path(__file__).resolve().parents[3])

ROGUE_COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {_REPOSITORY!r}); "
    "from tests.sdcom.video.rogue_worker import main; main()",
)
"""What a pool of rogues runs."""


def _spin() -> None:
    while True:
        pass


def _sleep() -> None:
    time.sleep(3600)


def _segfault() -> None:
    ctypes.string_at(0)


def _abort() -> None:
    os.abort()


def _eat_memory() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(16 << 20))


def _leak() -> None:
    _HOARD.append(bytearray(b"x" * (32 << 20)))


_HOARD: list[bytearray] = []


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, "?")
    return "allowed"


def _writable_code() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    if libc.mmap(None, 4096, 7, 0x22, -1, 0) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")


def _try_to_escape() -> None:
    """Report through the error message how each forbidden thing ended."""
    attempts: dict[str, Callable[[], object]] = {
        "socket": socket.socket,
        "socketpair": socket.socketpair,
        "open": lambda: os.open("/etc/hostname", os.O_RDONLY),
        "create": lambda: os.open("/tmp/sdcom-escaped", os.O_CREAT | os.O_WRONLY),
        "proc": lambda: Path("/proc/self/status").read_text(encoding="ascii"),
        "listdir": lambda: list(Path("/").iterdir()),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "fork": os.fork,
        "kill": lambda: os.kill(os.getppid(), 0),
        "memfd": lambda: os.memfd_create("more"),
        "writable code": _writable_code,
        "write": lambda: os.write(1, b"x"),
    }
    raise UndecodableVideoError(" ".join(f"{name}={_outcome(act)}" for name, act in attempts.items()))


def _refuse() -> None:
    raise UndecodableVideoError("found out late")


def _hang_up() -> None:
    os.closerange(3, 32)
    time.sleep(3600)


_GOOD = ClipFacts((0.0,) * 16, 1.0, 1, 1, 1, "mp4", "h264", "pyav", 0, 0)


def _lie() -> Progress:
    return Progress(replace(_GOOD, times_s=(float("nan"),) * 16), tuple(range(16)))


_MISDEEDS: dict[bytes, Callable[[], object]] = {
    b"SPIN": _spin,
    b"SLEEP": _sleep,
    b"SEGFAULT": _segfault,
    b"ABORT": _abort,
    b"EAT": _eat_memory,
    b"LEAK": _leak,
    b"HANGUP": _hang_up,
    b"REFUSE": _refuse,
    b"ESCAPE": _try_to_escape,
}


def misdeed_file(word: bytes) -> bytes:
    """Return a file that passes for an MP4 and makes a rogue worker do the deed; "LATE:", after a round."""
    return (24).to_bytes(4) + b"ftypisom" + bytes(4) + b"isomiso2" + b"DEED:" + word


def main() -> None:
    """Run a real worker with a word for misdeeds."""
    settings = WorkerSettings.parse(sys.argv[1])
    warm_up(settings)
    decode = decoding_job(settings)

    def job(request: Request, source: FileView, frames_THWC: UInt8Array) -> Generator[Progress]:
        _, found, word = source.rewound().read(64).partition(b"DEED:")
        late, _, word = word.rpartition(b":")
        if late:
            yield Progress(_GOOD, (0,), more=True)
        if word == b"LIE":
            yield _lie()
        if word == b"LIE ABOUT PLACES":
            yield Progress(_GOOD, (99,), more=True)
        if word == b"REPEAT":
            yield from itertools.repeat(Progress(_GOOD, (0,), more=True))
        if word == b"CREEP":
            yield from (Progress(_GOOD, (place,), more=True) for place in range(16))
        if found:
            _MISDEEDS[word]()
        yield from decode(request, source, frames_THWC)

    serve(settings, job)


if __name__ == "__main__":
    main()
