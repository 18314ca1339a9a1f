"""A scheduler over a small deterministic backend."""

from collections.abc import Iterator

import pytest

from sdcom.engine.scheduler import Scheduler
from tests.sdcom.engine.alone import scheduling


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    with scheduling() as running:
        yield running
