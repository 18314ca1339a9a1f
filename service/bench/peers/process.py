"""A peer as a child process: started, waited for, and ended with all that it started."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from sdcom.errors import SdcomError, SettingsError
from service.bench.peers.hosting import Network

Peer = Literal["litserve", "ray"]

START_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
_KILL_LIMIT_S = 10.0
_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""No report to Ray's makers; and its workers, nice by default, get the processors as others do."""
_HEALTH: dict[Peer, str] = {"litserve": "/health", "ray": "/-/healthz"}


@dataclass(frozen=True, slots=True)
class HostedPeer:
    """Which server hosts which networks."""

    peer: Peer
    network: Network
    model_dir: Path
    num_workers: int
    budget: float | None = None

    def command(self, port: int) -> list[str]:
        """Return the command that serves it."""
        options = {
            "port": port,
            "model": self.model_dir,
            "network": self.network,
            "workers": self.num_workers,
        }
        if self.budget is not None:
            options["budget"] = self.budget
        named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "service.bench.peers", self.peer, *named]


class PeerProcess:
    """A peer, serving from entry to exit.

    Args:
        hosted: what it serves.

    Attributes:
        url: where, once entered.
        process: the leader of the peer's process group, once entered.

    Raises:
        SdcomError: it did not come up; its log is in the message.
    """

    def __init__(self, hosted: HostedPeer) -> None:
        self._hosted = hosted
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        port = _free_port()
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            self._hosted.command(port),
            env=os.environ | _RAY,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            process_group=0,  # to be ended as one; a session Linux would schedule apart from its client
        )
        try:
            self._wait(port)
        except BaseException:
            self.__exit__()
            raise
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End the server as its own terminal would, then whatever of it still runs."""
        assert self.process is not None
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_LIMIT_S)
        _end_group(self.process.pid)
        self.process.wait()
        self._log.close()

    def _wait(self, port: int) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while not _is_healthy(port, _HEALTH[self._hosted.peer]):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                log = self._log.read().decode(errors="replace")
                raise SdcomError(f"{self._hosted.peer} did not come up:\n{log}")
            time.sleep(0.2)


def _end_group(group: int) -> None:
    """Kill what is left of a process group, and wait until it is gone: it would disturb the next server."""
    deadline = time.monotonic() + _KILL_LIMIT_S
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.05)


def require_peers() -> None:
    """Make sure that every peer can start.

    Raises:
        SettingsError: one is not installed.
    """
    missing = [peer for peer in _HEALTH if find_spec(peer) is None]
    if missing:
        raise SettingsError(f"not installed: {', '.join(missing)}; in a checkout, pip install '.[cpu,peers]'")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def _is_healthy(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
