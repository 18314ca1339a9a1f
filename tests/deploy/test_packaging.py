"""The container files: linted, hardened, and in step with the service's settings."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from service.settings import PREFIX, Settings

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
GUIDE = REPOSITORY / "docs" / "operations.md"


def _services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    return services


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed; the extra `dev` has it")
    done = subprocess.run(
        [hadolint, REPOSITORY / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_both_targets_run_the_server_itself_without_root() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert {"cpu", "gpu"} <= set(stages)
    assert stages[-1] == "cpu"
    assert 'ENTRYPOINT ["sdcom"]' in DOCKERFILE
    assert 'CMD ["serve"]' in DOCKERFILE
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)


def test_every_copied_path_is_let_in_by_the_ignore_file() -> None:
    allowed = set(re.findall(r"^!(\S+)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE))
    copied = {
        path
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for path in sources.split()
    }
    assert copied == allowed


def test_settings_in_the_container_files_exist() -> None:
    names = set(re.findall(rf"{PREFIX}[A-Z_]+(?==)", DOCKERFILE))
    names |= {name for service in _services().values() for name in service.get("environment", {})}
    settings = {name.removeprefix(PREFIX).lower() for name in names if name.startswith(PREFIX)}
    assert settings
    assert settings <= set(Settings.model_fields)


@pytest.mark.parametrize("name", sorted(_services()))
def test_services_run_without_privileges_on_a_read_only_root(name: str) -> None:
    service = _services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_images_have_fixed_versions() -> None:
    for name, service in _services().items():
        if name != "sdcom":
            assert re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", service["image"])


def test_the_memory_for_uploads_holds_as_many_as_are_let_in() -> None:
    service = _services()["sdcom"]
    environment = service["environment"]
    # Those at work twice: work whose caller has left keeps its file to its end, beside the next caller's.
    uploads = int(environment["SDCOM_QUEUE_SIZE"]) + 2 * (int(environment["SDCOM_DECODE_WORKERS"]) + 1)
    size = re.search(r"size=(\d+)m", service["tmpfs"][0])
    assert size is not None
    assert int(size[1]) << 20 >= uploads * int(environment["SDCOM_MAX_VIDEO_BYTES"])


def test_docker_waits_longer_than_the_server_drains() -> None:
    grace = float(_services()["sdcom"]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["drain_seconds"].default


def test_mounted_files_exist() -> None:
    for service in _services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (REPOSITORY / source).exists()


class _Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/ready" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class's name


@contextmanager
def _answering(status: int) -> Iterator[int]:
    handler = type("Handler", (_Health,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _healthcheck(port: int) -> int:
    script = REPOSITORY / "deploy" / "healthcheck.py"
    environment = {"SDCOM_HTTP_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run([sys.executable, script], env=environment, timeout=30, check=False).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_tells_ready_from_not_ready(status: int, code: int) -> None:
    with _answering(status) as port:
        assert _healthcheck(port) == code


def test_the_health_check_fails_where_nothing_listens() -> None:
    assert _healthcheck(1) == 1


def test_the_install_script_says_how_it_is_used() -> None:
    done = subprocess.run(
        ["sh", REPOSITORY / "scripts" / "install.sh"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_settings_in_the_operators_guide_are_all_of_them_with_their_defaults() -> None:
    rows = re.findall(rf"^\| `{PREFIX}([A-Z_]+)` \| (.*?) \|", GUIDE.read_text(), re.MULTILINE)
    documented = dict(rows)
    assert sorted(name.lower() for name, _ in rows) == sorted(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        shown = documented[name.upper()].replace(",", "")
        if isinstance(field.default, bool):
            assert shown == str(field.default).lower(), name
        elif isinstance(field.default, int | float):
            assert float(shown.split()[0]) == field.default, name
        elif field.default is not None:
            assert shown.split()[0] == str(field.default), name


def test_no_other_page_has_a_table_of_settings() -> None:
    pages = [*GUIDE.parent.rglob("*.md"), REPOSITORY / "README.md"]
    assert [page for page in pages if re.search(rf"^\| `{PREFIX}", page.read_text(), re.MULTILINE)] == [GUIDE]
