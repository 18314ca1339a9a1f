"""The one call behind both transports: admission, the recogniser on its threads, the counts."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, BinaryIO, Protocol, TypeVar

from numpy import uint8
from numpy.typing import NDArray

from sdcom.answer import Submitted
from sdcom.cancellation import Cancellation
from sdcom.checkpoint import ModelInfo
from sdcom.engine.composed import Composed
from sdcom.engine.ledger import Part
from sdcom.errors import DeadlineExceededError, OverloadedError
from sdcom.recognition import Budget, Provider, Recognition, StreamPrediction
from service.admission import Admission, draining_error
from service.calls import Call
from service.errors import ClientGoneError
from service.governor import Governor, one_frame_budget
from service.metrics import Metrics
from service.parameters import RecognizeParameters
from service.settings import Settings

Answer = TypeVar("Answer")

WARM_UP_RETRY_S = 2.0


class LiveStream(Protocol):
    """A stream of frames, as `sdcom.frame_stream.FrameStream` is one."""

    def push(self, frame_HWC: NDArray[uint8]) -> StreamPrediction:
        """Feed one RGB frame."""

    def push_jpeg(self, data: bytes, *, deadline: float | None = None) -> StreamPrediction:
        """Feed one JPEG image."""


class VideoRecognizer(Protocol):
    """What the service needs of `sdcom.recognizer.Recognizer`."""

    @property
    def info(self) -> ModelInfo:
        """The model served."""

    @property
    def provider(self) -> Provider:
        """What computes its networks."""

    def executed_macs(self) -> Mapping[Part, int]:
        """Return what has been executed, by part, for answers and for none."""

    def warm_up(self) -> None:
        """Run the model once at every width."""

    def submit(
        self,
        source: BinaryIO,
        *,
        top_k: int = 5,
        budget: Budget | None = None,
        min_confidence: float | None = None,
        max_budget: float = 1.0,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Submitted:
        """Decode one video and hand it to the networks; blocking, from any thread."""

    def open_stream(self, *, budget: Budget | None = None) -> LiveStream:
        """Open a live stream."""

    def close(self) -> None:
        """Stop the decode workers."""


class Engine:
    """A recogniser in service.

    Args:
        recognizer: loaded; closed with this engine.
        settings: of the service.
        metrics: where the work is counted.
    """

    def __init__(self, recognizer: VideoRecognizer, settings: Settings, metrics: Metrics) -> None:
        self.recognizer = recognizer
        self.settings = settings
        self.metrics = metrics
        self.info = recognizer.info
        # A turn is one to decode. One place more than those and the queue: for the video that is computed.
        self.admission = Admission(settings.num_decode_workers, settings.queue_size + 1)
        self.governor = _governor(self.info, settings)
        metrics.watch_governor(self._max_budget)
        self._warm = False
        self._limits: set[asyncio.Timeout] = set()
        self._cut_short = False
        metrics.model_loaded(self.info.full_name, self.info.config.widths, recognizer.provider)
        metrics.work.watch(recognizer.executed_macs)
        metrics.watch_in_flight(lambda: self.admission.num_admitted)

    def check_ready(self) -> None:
        """Raise unless requests are answered.

        Raises:
            OverloadedError: the model has not run yet, or the service is shutting down.
        """
        if self.admission.closed.is_set():
            raise draining_error()
        if not self._warm:
            raise OverloadedError("the model is warming up", WARM_UP_RETRY_S)

    async def warm_up(self) -> None:
        """Run the model at every width, then be ready."""
        await asyncio.to_thread(self.recognizer.warm_up)
        self._warm = True

    async def answer(
        self,
        call: Call,
        parameters: RecognizeParameters,
        upload: AbstractAsyncContextManager[BinaryIO],
        gone: Callable[[], Awaitable[object]],
    ) -> dict[str, Any]:
        """Receive one video, recognise it, and return the answer as JSON-ready values.

        Args:
            call: the request; facts for its log event are added.
            parameters: how to recognise.
            upload: receives the file when entered.
            gone: returns when the client has left, once the upload is complete.

        Raises:
            SdcomError: as `service.errors` lists them.
        """
        self.check_ready()
        limit_s, limit_name = self._time_limit(parameters)
        deadline = call.arrived + limit_s
        try:
            async with asyncio.timeout(deadline - time.monotonic()) as limit:
                with self.admission.admitted(deadline), self._ended_by_cut(limit):
                    async with upload as file:
                        uploaded = time.monotonic()
                        work = self._recognize(call, file, parameters, deadline)
                        recognition, queue_s = await _unless_gone(work, gone)
        except TimeoutError as error:
            if self._cut_short:
                raise draining_error() from error
            raise DeadlineExceededError(
                f"the answer was not ready within {limit_s * 1e3:.0f} ms ({limit_name})"
            ) from error
        return self._written(call, parameters, recognition, upload_s=uploaded - call.arrived, queue_s=queue_s)

    @contextmanager
    def _ended_by_cut(self, limit: asyncio.Timeout) -> Iterator[None]:
        self._limits.add(limit)
        try:
            yield
        finally:
            self._limits.discard(limit)

    def cut_short(self) -> None:
        """End what is in flight now, with the answer that the service is shutting down."""
        self._cut_short = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    def _time_limit(self, parameters: RecognizeParameters) -> tuple[float, str]:
        service_s = self.settings.request_timeout_s
        # Compared in milliseconds: a deadline of 400 digits cannot be divided.
        if parameters.deadline_ms is not None and parameters.deadline_ms < service_s * 1e3:
            return parameters.deadline_ms / 1e3, "deadline_ms"
        return service_s, "SDCOM_REQUEST_TIMEOUT_S"

    async def _recognize(
        self, call: Call, file: BinaryIO, parameters: RecognizeParameters, deadline: float
    ) -> tuple[Recognition, float]:
        """Decode in turn, then wait for the networks, which take no turn; return the answer and the wait."""
        cancellation = Cancellation()
        try:
            submitted, queue_s = await self.admission.run(
                lambda: self._work(call, file, parameters, deadline, cancellation), deadline
            )
            with self.admission.past_turn():
                return submitted.answer(await asyncio.wrap_future(submitted.composed)), queue_s
        finally:
            cancellation.cancel()

    def _work(
        self,
        call: Call,
        file: BinaryIO,
        parameters: RecognizeParameters,
        deadline: float,
        cancellation: Cancellation,
    ) -> Callable[[], Submitted]:
        call.facts["bytes"] = os.fstat(file.fileno()).st_size
        # A descriptor of its own: work that nobody waits for any more outlives the upload's file.
        descriptor = os.dup(file.fileno())
        max_budget = self._max_budget(parameters.min_budget)

        def work() -> Submitted:
            with os.fdopen(descriptor, "rb") as video:
                submitted = self.recognizer.submit(
                    video,
                    top_k=parameters.top_k,
                    budget=parameters.spend(),
                    min_confidence=parameters.min_confidence,
                    max_budget=max_budget,
                    deadline=deadline,
                    cancellation=cancellation,
                )
            submitted.composed.add_done_callback(self._count)
            return submitted

        return work

    def _count(self, composed: Future[Composed]) -> None:
        """Count a video that was computed to its end, whoever still waits for its answer."""
        if not composed.cancelled() and composed.exception() is None:
            self.metrics.video_composed(composed.result().ledger)

    def _max_budget(self, min_budget: float = 0.0) -> float:
        """Return the share of the baseline that a video may cost, as long as the queue is now; 1: any."""
        if self.governor is None:
            return 1.0
        self.governor.observe(self.admission.expected_turn_s)
        return self.governor.max_budget(min_budget)

    def _written(
        self,
        call: Call,
        parameters: RecognizeParameters,
        recognition: Recognition,
        *,
        upload_s: float,
        queue_s: float,
    ) -> dict[str, Any]:
        ledger = recognition.ledger
        call.facts |= {"gmacs": ledger.total_macs / 1e9, "saved": ledger.saved}
        if ledger.max_budget < 1:
            call.facts["max_budget"] = ledger.max_budget
        if recognition.video.is_damaged:
            call.facts["unreadable_frames"] = recognition.video.num_unreadable_frames
            call.facts["missing_frames"] = recognition.video.num_missing_frames
            self.metrics.damaged_video_answered()
        answer = {"request_id": call.request_id} | recognition.to_dict()
        timing_ms = recognition.timing_ms
        answer["timing_ms"] = {
            "upload": upload_s * 1e3,
            **timing_ms,
            "queue": queue_s * 1e3 + timing_ms["queue"],
            "total": (time.monotonic() - call.arrived) * 1e3,
        }
        self.metrics.video_answered(answer["timing_ms"])
        if parameters.detail == "summary":
            del answer["frames"]
        return answer

    def close(self) -> None:
        """Stop the decode workers, so that abandoned work ends too, and wait for the threads."""
        self.recognizer.close()
        self.admission.join()


def _governor(info: ModelInfo, settings: Settings) -> Governor | None:
    if not settings.governor:
        return None
    lowest = settings.governor_min_budget
    return Governor(
        highest=1.0 if info.default_budget is None else info.default_budget,
        lowest=one_frame_budget(info) if lowest is None else lowest,
        target_wait_s=settings.governor_target_wait_s,
    )


async def _unless_gone(work: Coroutine[Any, Any, Answer], gone: Callable[[], Awaitable[object]]) -> Answer:
    """Await `work`, or give it up when the client has gone."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("the client went away before its answer was ready")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
