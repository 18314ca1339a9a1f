"""Small videos whose frames carry their numbers, under whatever names a list gives them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sdcom.video.videos import encode

NUM_FRAMES = 20

WriteVideo = Callable[[Path], Path]


@pytest.fixture(scope="session")
def video_bytes() -> bytes:
    """A video of numbered frames, 160 x 120."""
    return encode(num_frames=NUM_FRAMES, size=(160, 120))


@pytest.fixture
def write_video(video_bytes: bytes) -> WriteVideo:
    """Write a whole video under a name, folders included."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video_bytes)
        return path

    return write
