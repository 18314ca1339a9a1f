"""What the pool and a worker say to each other: one JSON datagram each way, a file beside the request.

A clip that is decoded in rounds has an answer for each; the pool asks for `MORE`, or says `STOP`.

The worker's answers are not trusted: a hostile video may have taken it over, so every field is checked.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from sdcom.errors import (
    DecoderKilledError,
    UndecodableVideoError,
    UnsupportedContainerError,
    VideoLimitError,
    VideoRejectedError,
)
from sdcom.sampling import FeedingOrder, Sampling
from sdcom.video.limits import DecodeLimits

MAX_MESSAGE_BYTES = 1 << 16
READY = b"ready"
MORE, STOP = b"more", b"stop"

DecoderName = Literal["decord", "pyav"]
Kind = Literal["video", "rounds", "jpeg"]
"""A video at once, a video in rounds, an image."""

_REJECTIONS: dict[str, type[VideoRejectedError]] = {
    kind.__name__: kind for kind in (UndecodableVideoError, UnsupportedContainerError, VideoLimitError)
}
_OUT_OF_MEMORY = "OutOfMemory"
_MAX_TEXT, _TOO_MANY = 2000, 1 << 31


class BrokenAnswerError(Exception):
    """The worker's answer is not one that an honest worker gives."""


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What is known of a decoded video besides its frames.

    Attributes:
        times_s: when each frame is shown, in seconds from the video's first frame.
        duration_s: seconds from the first frame's start to the last one's end.
        num_frames: frames in the video.
        width: pixels, upright.
        height: pixels, upright.
        container: as `sniff_container` names it.
        codec: FFmpeg's name.
        decoder: which decoder read it.
        num_unreadable_frames: of the sampled frames, those that could not be read; others stand for them.
        num_missing_frames: frames that the header lists and a cut-off file lacks, where that is known.
    """

    times_s: tuple[float, ...]
    duration_s: float
    num_frames: int
    width: int
    height: int
    container: str
    codec: str
    decoder: DecoderName
    num_unreadable_frames: int
    num_missing_frames: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What there is of a job by now.

    Attributes:
        facts: of the video; None of an image.
        ready: places of the frames that are there since the last progress.
        more: whether others are to come.
    """

    facts: ClipFacts | None
    ready: tuple[int, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One job; its file travels beside it.

    Attributes:
        kind: what to do.
        num_bytes: the file's size.
        container: as `sniff_container` names it; empty for an image.
    """

    kind: Kind
    num_bytes: int
    container: str = ""

    def encode(self) -> bytes:
        """Return the datagram."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def parse(cls, datagram: bytes) -> Request:
        """Return the request that the pool, which is trusted, encoded."""
        return cls(**json.loads(datagram))


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What the pool tells a worker once, on its command line.

    Attributes:
        socket_fd: where requests come from and answers go.
        frames_fd: the memory file for frames.
        parent_pid: the pool's process.
        num_frames: T.
        short_side: pixels.
        crop: pixels.
        limits: what a video may ask for.
        sampling: which frame of each segment.
        order: in which frames are fed, where they are decoded in rounds.
        decoder: which decoder is preferred.
    """

    socket_fd: int
    frames_fd: int
    parent_pid: int
    num_frames: int
    short_side: int
    crop: int
    limits: DecodeLimits
    sampling: Sampling
    order: FeedingOrder
    decoder: DecoderName

    def encode(self) -> str:
        """Return the command line's one argument."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, argument: str) -> WorkerSettings:
        """Return the settings that `encode` wrote."""
        raw = json.loads(argument)
        return cls(**{**raw, "limits": DecodeLimits(**raw["limits"])})

    @property
    def frames_shape(self) -> tuple[int, int, int, int]:
        """Shape of the frames in the memory file: T, H, W, C."""
        return (self.num_frames, self.crop, self.crop, 3)


def encode_progress(progress: Progress) -> bytes:
    """Return the datagram for a job, or a round of it, that is done."""
    return json.dumps(asdict(progress)).encode()


def encode_error(exc: BaseException) -> bytes:
    """Return the datagram for a job that failed."""
    if isinstance(exc, MemoryError):
        return json.dumps({"error": _OUT_OF_MEMORY, "text": ""}).encode()
    kind = type(exc).__name__
    if kind not in _REJECTIONS:
        kind, exc = "UndecodableVideoError", Exception(f"the decoder failed: {kind}: {exc}")
    return json.dumps({"error": kind, "text": str(exc)[:_MAX_TEXT]}).encode()


def parse_answer(datagram: bytes, kind: Kind, num_frames: int) -> Progress:
    """Return how far a job is.

    Args:
        datagram: the worker's answer.
        kind: what was asked: a video's answer has facts, an image's has none, and only rounds have more to
            come.
        num_frames: T, how many times a video's facts must hold.

    Raises:
        VideoRejectedError: as the worker raised it; `DecoderKilledError` if it ran out of memory.
        BrokenAnswerError: the answer is malformed.
    """
    try:
        answer = json.loads(datagram)
        if "error" in answer:
            raise _rejection(str(answer["error"]), str(answer["text"])[:_MAX_TEXT])
        facts = None if kind == "jpeg" else _facts(answer["facts"], num_frames)
        if kind != "rounds":
            return Progress(facts)
        return Progress(facts, _ready(answer["ready"], num_frames), more=answer["more"] is True)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as exc:
        raise BrokenAnswerError(f"{type(exc).__name__}: {exc}") from exc


def _ready(raw: list[Any], num_frames: int) -> tuple[int, ...]:
    """Return places of frames, at least one."""
    ready = tuple(int(place) for place in raw)
    if not ready or not set(ready) <= set(range(num_frames)):
        raise ValueError(f"places {ready}")
    return ready


def _rejection(kind: str, text: str) -> VideoRejectedError:
    if kind == _OUT_OF_MEMORY:
        return DecoderKilledError(
            "memory",
            "decoding asked for more memory than one video may have; the file is damaged, or needs a lower "
            "resolution",
        )
    return _REJECTIONS[kind](text)


def _facts(raw: dict[str, Any], num_frames: int) -> ClipFacts:
    if set(raw) != {field.name for field in fields(ClipFacts)}:
        raise ValueError(f"fields {sorted(raw)}")
    facts = ClipFacts(
        times_s=tuple(float(time) for time in raw["times_s"]),
        duration_s=float(raw["duration_s"]),
        num_frames=int(raw["num_frames"]),
        width=int(raw["width"]),
        height=int(raw["height"]),
        container=str(raw["container"])[:32],
        codec=str(raw["codec"])[:32],
        decoder="decord" if raw["decoder"] == "decord" else "pyav",
        num_unreadable_frames=int(raw["num_unreadable_frames"]),
        num_missing_frames=int(raw["num_missing_frames"]),
    )
    if len(facts.times_s) != num_frames or not all(map(math.isfinite, (*facts.times_s, facts.duration_s))):
        raise ValueError("times")
    for number in (facts.num_frames, facts.width, facts.height):
        if not 0 < number < _TOO_MANY:
            raise ValueError(f"{number} frames or pixels")
    if facts.duration_s < 0:
        raise ValueError(f"a duration of {facts.duration_s} s")
    if not 0 <= facts.num_unreadable_frames < num_frames:  # without one that was read there is no answer
        raise ValueError(f"{facts.num_unreadable_frames} unreadable frames")
    if not 0 <= facts.num_missing_frames < _TOO_MANY:
        raise ValueError(f"{facts.num_missing_frames} missing frames")
    return facts
