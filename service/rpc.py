"""The gRPC methods: the same engine call as REST, with messages instead of JSON."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from grpc.aio import EOF  # type: ignore[attr-defined]  # missing from grpc-stubs

from sdcom.engine.ledger import Ledger, Part
from sdcom.errors import DeadlineExceededError, InvalidParameterError
from service.admission import draining_error
from service.calls import Call, CallLog
from service.engine import Engine
from service.errors import problem_detail, problem_kind, retry_after_s
from service.logs import request_id_from
from service.parameters import RecognizeParameters, SpendParameters, checked
from service.pb import recognition_pb2 as pb
from service.pb import recognition_pb2_grpc as pb_grpc
from service.streams import OpenStream, Streams, raw_frame
from service.uploads import spooled

REQUEST_ID_KEY = "x-request-id"
DETAILS = {pb.DETAIL_UNSPECIFIED: "frames", pb.DETAIL_FRAMES: "frames", pb.DETAIL_SUMMARY: "summary"}

Context = grpc.aio.ServicerContext[Any, Any]


class RecognitionService(pb_grpc.RecognitionServicer):
    """`sdcom.v1.Recognition` over one engine.

    Args:
        engine: answers videos.
        streams: hold the live streams.
        call_log: writes down how each call ended.
    """

    def __init__(self, engine: Engine, streams: Streams, call_log: CallLog) -> None:
        self._engine = engine
        self._streams = streams
        self._call_log = call_log

    async def Recognize(self, request_iterator: object, context: Context) -> pb.RecognizeResponse:  # noqa: ARG002, N802 - the generated base names it
        """Recognise one file that comes by chunks."""
        async with self._call(context, "Recognize") as call:
            first = await self._next(context, self._engine.settings.request_timeout_s)
            parameters = _recognize_parameters(first, context.time_remaining())
            upload = spooled(_chunks(context), self._engine.settings.max_video_bytes)
            # A client that leaves has this very call cancelled.
            answer = await self._engine.answer(call, parameters, upload, gone=asyncio.Event().wait)
            return ParseDict(answer, pb.RecognizeResponse())

    async def StreamFrames(self, request_iterator: object, context: Context) -> None:  # noqa: ARG002, N802 - the generated base names it
        """Recognise a live stream, one answer a frame."""
        async with self._call(context, "StreamFrames") as call:
            idle_s = self._engine.settings.stream_idle_s
            parameters = _stream_parameters(await self._next(context, idle_s))
            with self._streams.open(parameters) as stream:
                while (message := await self._next(context, idle_s)) is not None:
                    await _write(context, await _stream_answer(call, stream, message), idle_s)
                    call.facts |= {"frames": stream.num_frames, "gmacs": stream.ledger.total_macs / 1e9}

    @asynccontextmanager
    async def _call(self, context: Context, method: str) -> AsyncIterator[Call]:
        """Hold one call: its id goes out with the trailing metadata, its error as the one table says."""
        sent = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        request_id = request_id_from(sent.get(REQUEST_ID_KEY))
        trailer = [(REQUEST_ID_KEY, request_id)]
        context.set_trailing_metadata(tuple(trailer))
        try:
            with self._call_log.call("grpc", method, request_id) as call:
                call.is_recognition = True
                yield call
        except Exception as error:
            kind = problem_kind(error)
            trailer.append(("sdcom-problem", kind.name))
            seconds = retry_after_s(error)
            if seconds is not None:
                trailer.append(("retry-after", str(seconds)))
            await context.abort(kind.code, problem_detail(error), tuple(trailer))

    async def _next(self, context: Context, limit_s: float) -> Any:
        """Return the next message, or None after the last one.

        Raises:
            DeadlineExceededError: none came for `limit_s`.
            OverloadedError: the service began to shut down meanwhile.
        """
        reading = asyncio.ensure_future(context.read())
        closing = asyncio.ensure_future(self._engine.admission.closed.wait())
        try:
            await asyncio.wait({reading, closing}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                raise draining_error()
            if reading.done():
                message = reading.result()
                return None if message is EOF else message
            raise DeadlineExceededError(f"no message came for {limit_s:g} s; the call is ended")
        finally:
            reading.cancel()
            closing.cancel()


async def _write(context: Context, message: pb.StreamFramesResponse, limit_s: float) -> None:
    try:
        await asyncio.wait_for(context.write(message), limit_s)
    except TimeoutError as error:
        raise DeadlineExceededError(f"no answer was read for {limit_s:g} s; the call is ended") from error


async def _chunks(context: Context) -> AsyncIterator[bytes]:
    while (message := await context.read()) is not EOF:
        if message.WhichOneof("part") != "chunk":
            raise InvalidParameterError("every message after the first must hold a chunk")
        yield message.chunk


def _recognize_parameters(message: Any, remaining_s: float | None) -> RecognizeParameters:
    options = _first_options(message)
    values = _spend(options)
    if options.HasField("top_k"):
        values["top_k"] = options.top_k
    for name in ("min_confidence", "min_budget"):
        if options.HasField(name):
            values[name] = getattr(options, name)
    if options.detail not in DETAILS:
        raise InvalidParameterError(
            f"detail has no value {options.detail}; send DETAIL_FRAMES or DETAIL_SUMMARY"
        )
    values["detail"] = DETAILS[options.detail]
    if remaining_s is not None:
        values["deadline_ms"] = max(1, int(remaining_s * 1e3))
    return checked(RecognizeParameters, values)


def _stream_parameters(message: Any) -> SpendParameters:
    return checked(SpendParameters, _spend(_first_options(message)))


def _first_options(message: Any) -> Any:
    if message is None or message.WhichOneof("part") != "options":
        raise InvalidParameterError("the first message must hold the options; they may be empty")
    return message.options


def _spend(options: Any) -> dict[str, Any]:
    name = options.WhichOneof("spend")
    return {name: getattr(options, name)} if name else {}


async def _stream_answer(call: Call, stream: OpenStream, message: Any) -> pb.StreamFramesResponse:
    frame = message.frame
    kind = frame.WhichOneof("image")
    if message.WhichOneof("part") != "frame" or kind is None:
        raise InvalidParameterError("every message after the first must hold a frame, as `jpeg` or `raw`")
    image = frame.jpeg if kind == "jpeg" else raw_frame(frame.raw.width, frame.raw.height, frame.raw.rgb)
    answer = await stream.push(image)
    return pb.StreamFramesResponse(
        request_id=call.request_id,
        frame_index=stream.num_frames - 1,
        timestamp_s=frame.timestamp_s,
        prediction=pb.Prediction(
            label=answer.prediction.label, index=answer.prediction.index, score=answer.prediction.score
        ),
        width=answer.width,
        compute=_stream_compute(answer.ledger),
        total=_stream_compute(stream.ledger),
    )


def _stream_compute(ledger: Ledger) -> pb.StreamCompute:
    return pb.StreamCompute(
        static_macs=ledger.macs[Part.STATIC],
        gate_macs=ledger.macs[Part.GATE],
        dynamic_macs=ledger.macs[Part.DYNAMIC],
        fusion_macs=ledger.macs[Part.FUSION],
        baseline_macs=ledger.baseline_macs,
    )
