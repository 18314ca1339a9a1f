"""`make demo`: a real server, a real upload, and what came back. Run as `python -m service.demo`."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from sdcom.errors import SdcomError
from sdcom.recognizer import bundled_model_dir

START_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0
ANSWER_LIMIT_S = 120.0


class ServerProcess:
    """`sdcom serve` as a child process, on free ports unless told otherwise.

    Args:
        environment: settings, by their SDCOM_* names.

    Attributes:
        http_port: where it listens, once entered.
        grpc_port: likewise.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = {"SDCOM_HTTP_PORT": "0", "SDCOM_GRPC_PORT": "0", **(environment or {})}
        self._log = tempfile.NamedTemporaryFile(mode="w+", suffix=".log")  # noqa: SIM115 - closed by __exit__
        self.process: subprocess.Popen[bytes] | None = None
        self.http_port = 0
        self.grpc_port = 0

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sdcom", "serve"],
            env=os.environ | self._environment | {"SDCOM_LOG_FORMAT": "json"},
            stderr=self._log,
        )
        try:
            listening = self._wait_for("listening")
            self.http_port, self.grpc_port = listening["http_port"], listening["grpc_port"]
            self._wait_for("ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def events(self) -> list[dict[str, Any]]:
        """Return the events logged so far."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def log(self) -> str:
        """Return all that the server wrote so far."""
        return Path(self._log.name).read_text(encoding="utf-8")

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, and return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_LIMIT_S)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send one HTTP request; return the status and the JSON of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=ANSWER_LIMIT_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def _wait_for(self, event: str) -> dict[str, Any]:
        assert self.process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            found = [entry for entry in self.events() if entry.get("event") == event]
            if found:
                return found[0]
            if self.process.poll() is not None:
                raise SdcomError(f"the server ended with code {self.process.returncode}:\n{self.log()}")
            time.sleep(0.05)
        raise SdcomError(f"the server was not {event} within {START_LIMIT_S:g} s:\n{self.log()}")


def main() -> int:
    """Serve the bundled model, send it the sample, print the answer; return the exit code."""
    console = Console(highlight=False)
    sample = bundled_model_dir() / "sample.mp4"
    try:
        with ServerProcess() as server:
            with sample.open("rb") as file:
                status, answer = server.request("POST", "/recognize", file, {"Content-Type": "video/mp4"})
            code = server.stop()
            log = server.log()
    except SdcomError as error:
        Console(stderr=True).print(str(error), markup=False)
        return 1
    if status != 200 or code != 0:
        Console(stderr=True).print(f"answer {status}, exit code {code}: {answer}\n{log}", markup=False)
        return 1
    show(console, answer)
    return 0


def show(console: Console, answer: Mapping[str, Any]) -> None:
    """Print an answer for people: the label first."""
    best, *others = answer["predictions"]
    console.print(f"[bold]{best['label']}[/bold]  score {best['score']:.3f}   ({answer['model']})")
    console.print("then   " + ", ".join(f"{other['label']} {other['score']:.3f}" for other in others))
    table = Table("time", "width", "label by then, coarse to fine", "score", box=None, pad_edge=False)
    for frame in answer["frames"]:
        row = (f"{frame['time_s']:.2f} s", f"{frame['width']:g}", frame["label"], f"{frame['score']:.3f}")
        table.add_row(*row)
    console.print(table)
    compute = answer["compute"]
    console.print(
        f"GFLOPs {compute['gflops']:.3f} against the baseline's {compute['baseline_gflops']:.3f}: "
        f"{compute['saved']:.1%} saved; frames by width: "
        + ", ".join(f"{width}: {count}" for width, count in compute["widths"].items())
    )
    console.print("ms     " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in answer["timing_ms"].items()))


if __name__ == "__main__":
    sys.exit(main())
