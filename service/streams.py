"""Live streams: how many are open, and their frames on threads of their own."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from sdcom.engine.ledger import Ledger
from sdcom.errors import InvalidParameterError, OverloadedError
from sdcom.recognition import StreamPrediction
from service.engine import Engine, LiveStream
from service.parameters import SpendParameters


class OpenStream:
    """One live stream, fed from one task.

    Attributes:
        ledger: what all its frames have cost so far.
        num_frames: frames answered.
    """

    def __init__(self, stream: LiveStream, engine: Engine, threads: ThreadPoolExecutor) -> None:
        self._stream = stream
        self._engine = engine
        self._threads = threads
        self.ledger = Ledger()
        self.num_frames = 0

    async def push(self, frame: NDArray[np.uint8] | bytes) -> StreamPrediction:
        """Feed one frame: RGB of shape (H, W, 3), or the bytes of a JPEG file.

        Raises:
            VideoRejectedError: it is not a picture that can be used.
            DeadlineExceededError: it was not decoded in the time that a request may take.
        """
        deadline = time.monotonic() + self._engine.settings.request_timeout_s
        prediction = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._pushed, frame, deadline
        )
        self.ledger.add(prediction.ledger)
        self.num_frames += 1
        return prediction

    def _pushed(self, frame: NDArray[np.uint8] | bytes, deadline: float) -> StreamPrediction:
        if isinstance(frame, bytes):
            prediction = self._stream.push_jpeg(frame, deadline=deadline)
        else:
            prediction = self._stream.push(frame)
        self._engine.metrics.work.add(prediction.ledger)
        return prediction


class Streams:
    """The live streams of the process; their frames take turns with videos inside the recogniser.

    Args:
        engine: whose recogniser they use.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(engine.settings.num_decode_workers, thread_name_prefix="stream")
        self._num_open = 0

    @contextmanager
    def open(self, parameters: SpendParameters) -> Iterator[OpenStream]:
        """Hold one open stream.

        Raises:
            OverloadedError: as many as allowed are open, the model has not run yet, or the service is
                shutting down.
            BudgetBelowFloorError: the budget cannot pay for what every frame needs.
        """
        self._engine.check_ready()
        limit = self._engine.settings.max_streams
        if self._num_open >= limit:
            raise OverloadedError(
                f"{limit} streams are open, which is all there is room for (SDCOM_MAX_STREAMS)", 10.0
            )
        stream = self._engine.recognizer.open_stream(budget=parameters.spend())
        self._num_open += 1
        try:
            yield OpenStream(stream, self._engine, self._threads)
        finally:
            self._num_open -= 1

    def close(self) -> None:
        """Take no more frames. Those being worked on end when the recogniser closes, if not before."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def raw_frame(width: int, height: int, rgb: bytes) -> NDArray[np.uint8]:
    """Return raw pixels as an array of shape (H, W, 3).

    Raises:
        InvalidParameterError: the size is not positive, or the bytes are not 3 * width * height.
    """
    if width < 1 or height < 1 or len(rgb) != 3 * width * height:
        raise InvalidParameterError(
            f"a raw frame of {width} x {height} pixels needs 3 * width * height bytes of RGB, got {len(rgb)}"
        )
    return np.frombuffer(rgb, dtype=np.uint8).reshape(height, width, 3)
