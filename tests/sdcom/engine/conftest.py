"""A scheduler over a small deterministic backend."""

from collections.abc import Iterator

import pytest

from sdcom.engine.scheduler import Scheduler
from tests.sdcom.engine.alone import BACKEND
from tests.sdcom.engine.numpy_backend import CONFIG


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    with Scheduler(BACKEND, CONFIG) as running:
        yield running
