"""One table: what each error is over HTTP and over gRPC. Nothing else decides a status."""

import asyncio
import math
from dataclasses import dataclass

import grpc

from sdcom.errors import (
    BudgetBelowFloorError,
    DeadlineExceededError,
    DecoderKilledError,
    InvalidParameterError,
    OverloadedError,
    SdcomError,
    UndecodableVideoError,
    UnsupportedContainerError,
    VideoLimitError,
    VideoTooLargeError,
)

PROBLEM_URN = "urn:sdcom:problem:"


class NotFoundError(SdcomError):
    """Nothing is served at that path."""


class MethodNotAllowedError(SdcomError):
    """The path exists, the method does not."""


class UnsupportedMediaTypeError(SdcomError):
    """The request's content type is not one that an upload may have."""


class MalformedUploadError(SdcomError):
    """The upload's framing is broken, or it carries something other than one video."""


class ClientGoneError(SdcomError):
    """The client went away before its answer was ready."""


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What an error is to callers.

    Attributes:
        name: ends the problem's `type`, and labels metrics; one of few.
        status: HTTP status.
        code: gRPC status code.
        title: the same for every occurrence (RFC 9457, 3.1.3).
    """

    name: str
    status: int
    code: grpc.StatusCode
    title: str

    @property
    def outcome(self) -> str:
        """How the call ended, as a metric label: "cancelled", "expired", "failed" or "rejected"."""
        return {CLIENT_CLOSED_REQUEST: "cancelled", 408: "expired", 500: "failed"}.get(
            self.status, "rejected"
        )


CLIENT_CLOSED_REQUEST = 499  # nginx's; never seen by a client, which has gone

_Code = grpc.StatusCode
UNEXPECTED = ProblemKind("internal", 500, _Code.INTERNAL, "The service failed")
_CLIENT_GONE = ProblemKind("client-gone", CLIENT_CLOSED_REQUEST, _Code.CANCELLED, "The client went away")
# Narrower classes stand before the classes that they extend: the first match counts.
PROBLEMS: dict[type[BaseException], ProblemKind] = {
    InvalidParameterError: ProblemKind(
        "invalid-parameter", 400, _Code.INVALID_ARGUMENT, "A parameter cannot be used"
    ),
    MalformedUploadError: ProblemKind(
        "malformed-upload", 400, _Code.INVALID_ARGUMENT, "The upload is not one video"
    ),
    NotFoundError: ProblemKind("not-found", 404, _Code.NOT_FOUND, "Nothing is here"),
    MethodNotAllowedError: ProblemKind(
        "method-not-allowed", 405, _Code.UNIMPLEMENTED, "This path has no such method"
    ),
    DeadlineExceededError: ProblemKind(
        "deadline-exceeded", 408, _Code.DEADLINE_EXCEEDED, "The deadline passed before the answer was ready"
    ),
    VideoTooLargeError: ProblemKind("too-large", 413, _Code.RESOURCE_EXHAUSTED, "The video is too large"),
    UnsupportedMediaTypeError: ProblemKind(
        "unsupported-media-type",
        415,
        _Code.INVALID_ARGUMENT,
        "The content type is not that of a video upload",
    ),
    UnsupportedContainerError: ProblemKind(
        "unsupported-container",
        415,
        _Code.INVALID_ARGUMENT,
        "The file is not a video container that is accepted",
    ),
    VideoLimitError: ProblemKind("video-limit", 422, _Code.INVALID_ARGUMENT, "The video is over a limit"),
    DecoderKilledError: ProblemKind(
        "decoder-killed", 422, _Code.INVALID_ARGUMENT, "Decoding the video had to be stopped"
    ),
    UndecodableVideoError: ProblemKind(
        "undecodable-video", 422, _Code.INVALID_ARGUMENT, "The video cannot be decoded"
    ),
    BudgetBelowFloorError: ProblemKind(
        "budget-below-floor", 422, _Code.OUT_OF_RANGE, "The budget is below the model's floor"
    ),
    ClientGoneError: _CLIENT_GONE,
    asyncio.CancelledError: _CLIENT_GONE,  # as grpc.aio says it
    OverloadedError: ProblemKind("overloaded", 503, _Code.UNAVAILABLE, "No room now"),
}


def problem_kind(error: BaseException) -> ProblemKind:
    """Return what `error` is to callers; anything unforeseen is `UNEXPECTED`."""
    return next((kind for cls, kind in PROBLEMS.items() if isinstance(error, cls)), UNEXPECTED)


def problem_detail(error: BaseException) -> str:
    """Return the words for callers; nothing of an unforeseen error leaves the process but its log entry."""
    if problem_kind(error) is UNEXPECTED:
        return "an unexpected error; the service's log has it under this request id"
    return str(error)


def retry_after_s(error: BaseException) -> int | None:
    """Return the whole seconds after which trying again makes sense, or None if it never does."""
    return whole_seconds(error.retry_after_s) if isinstance(error, OverloadedError) else None


def whole_seconds(seconds: float) -> int:
    """Return the whole seconds, at least 1, after which so many have passed, as Retry-After counts them."""
    return max(1, math.ceil(seconds))


def decode_failure_reason(error: BaseException) -> str | None:
    """Return why decoding failed, as a metric label, or None if it is not decoding that failed."""
    if isinstance(error, DecoderKilledError):
        return error.reason
    if isinstance(error, UnsupportedContainerError):
        return "container"
    if isinstance(error, VideoLimitError):
        return "limit"
    return "undecodable" if isinstance(error, UndecodableVideoError) else None
