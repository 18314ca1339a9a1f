"""Live streams without a transport."""

import asyncio
import time

import numpy as np

from service.engine import Engine
from service.parameters import SpendParameters
from service.streams import Streams
from tests.service.conftest import FakeRecognizer


async def test_closing_does_not_hold_up_the_end_for_a_frame_at_work(
    engine: Engine, recognizer: FakeRecognizer
) -> None:
    streams = Streams(engine)
    recognizer.gate.clear()
    with streams.open(SpendParameters()) as stream:
        pushing = asyncio.create_task(stream.push(np.zeros((2, 2, 3), np.uint8)))
        await asyncio.sleep(0.05)
        streams.close()
        assert not pushing.done()
        recognizer.gate.set()
        assert (await pushing).width == 0.5


async def test_a_jpeg_frame_may_take_as_long_as_a_request(engine: Engine, recognizer: FakeRecognizer) -> None:
    streams = Streams(engine)
    earliest = time.monotonic() + engine.settings.request_timeout_s
    with streams.open(SpendParameters()) as stream:
        await stream.push(b"a picture")
    streams.close()
    (deadline,) = recognizer.jpeg_deadlines
    assert deadline is not None
    assert earliest <= deadline <= time.monotonic() + engine.settings.request_timeout_s
