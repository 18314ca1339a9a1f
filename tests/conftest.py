"""Fixtures that every test package shares."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real clips and torture files beside the checkout."""
    shared = REPOSITORY.parent / "shared"
    if not (shared / "data").is_dir():
        pytest.skip(f"{shared} is absent: it holds the real clips, torture files and ImageNet weights")
    return shared
