"""Pools are warm and shared by a module's tests; files are written where a test can name them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdcom.config import ClipConfig
from sdcom.video import DecodedClip, DecoderPool
from sdcom.video.messages import DecoderName


@pytest.fixture(scope="module", params=["decord", "pyav"])
def preferred(request: pytest.FixtureRequest) -> DecoderName:
    """The decoder that the pool prefers."""
    return "decord" if request.param == "decord" else "pyav"


@pytest.fixture(scope="module")
def pool(preferred: DecoderName) -> Iterator[DecoderPool]:
    """One real worker."""
    with DecoderPool(ClipConfig(), num_workers=1, decoder=preferred) as decoders:
        yield decoders


@pytest.fixture
def decode(pool: DecoderPool, tmp_path: Path) -> Callable[[bytes], DecodedClip]:
    """Decode the bytes of a file in the pool."""

    def decode_bytes(data: bytes) -> DecodedClip:
        path = tmp_path / "upload"
        path.write_bytes(data)
        return pool.decode(path)

    return decode_bytes
