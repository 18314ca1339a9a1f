"""Uploads on their way to a disk that is full: `/dev/full` refuses as one does."""

import errno
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.formparsers import MultiPartParser

from sdcom.errors import OverloadedError
from service.uploads import spooled
from tests.service.conftest import FakeRecognizer
from tests.service.test_rest import VIDEO, assert_problem

FULL = Path("/dev/full")


@pytest.fixture
def _full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    if not FULL.exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: FULL.open("w+b"))
    monkeypatch.setattr(MultiPartParser, "spool_max_size", 1000)


@pytest.mark.usefixtures("_full_disk")
@pytest.mark.parametrize("size_bytes", [10, 90_000])
@pytest.mark.parametrize("as_form", [False, True])
async def test_a_full_disk_is_said_to_be_no_room(
    client: httpx.AsyncClient, recognizer: FakeRecognizer, size_bytes: int, *, as_form: bool
) -> None:
    data = b"v" * size_bytes
    upload: dict[str, Any] = (
        {"files": {"video": ("clip.mp4", data)}} if as_form else {"content": data, "headers": VIDEO}
    )
    response = await client.post("/recognize", **upload)
    assert_problem(response, 503, "room for uploads is full", "TMPDIR")
    assert int(response.headers["retry-after"]) >= 1
    assert recognizer.received == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_quota_is_a_full_disk_too(number: int) -> None:
    with pytest.raises(OverloadedError, match="room for uploads"):
        async with spooled(_one_chunk(), 10):
            raise OSError(number, "no room")


async def test_another_fault_of_the_disk_stays_one() -> None:
    with pytest.raises(OSError, match="unplugged"):
        async with spooled(_one_chunk(), 10):
            raise OSError(errno.EIO, "unplugged")


async def _one_chunk() -> AsyncIterator[bytes]:
    yield b"v"
