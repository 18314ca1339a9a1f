"""The error tree: everything that can go wrong for a caller, narrowest class first to catch.

Every message says what was wrong, with the offending value, and what would be right. The service maps
each class to one HTTP status and one gRPC code (`service/errors.py`); nothing else decides a status.
"""

import difflib
from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

_DIGITS = 4
_DOWN, _UP = Context(prec=_DIGITS, rounding=ROUND_FLOOR), Context(prec=_DIGITS, rounding=ROUND_CEILING)


def nearest_name(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name most like `name`, capitals aside, or None if none is close.

    One whose words are all in `name` comes first: `host` for `service_host`.
    """
    words, names = set(name.lower().split("_")), sorted(valid)
    contained = [each for each in names if set(each.lower().split("_")) <= words]
    if contained:
        return max(contained, key=len)
    matches = nearest_names(name, names, limit=1)
    return matches[0] if matches else None


def nearest_names(name: str, valid: Iterable[str], *, limit: int, cutoff: float = 0.5) -> list[str]:
    """Return the valid names most like `name`, capitals aside, the nearest first.

    Args:
        name: that was given.
        valid: names to choose from.
        limit: of how many are returned.
        cutoff: likeness that a name must have, from 0, which all have, to 1, the same letters.
    """
    by_lower = {one.lower(): one for one in sorted(valid)}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=limit, cutoff=cutoff)
    return [by_lower[match] for match in matches]


def either(names: Sequence[str]) -> str:
    """Return names as a question lists them: 'a', 'b' or 'c'."""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


class SdcomError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidParameterError(SdcomError):
    """A request's parameter has a value that cannot be used."""


class UnknownNameError(InvalidParameterError):
    """A parameter or setting by that name does not exist.

    Args:
        kind: of name, in words.
        name: that does not exist.
        valid: names that do.
        all_names: where the user finds them all, in words; empty where they are few enough to be listed here.
        nearest: valid names that may be meant, the likeliest first; the nearest one by its letters if None.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        valid: Iterable[str],
        *,
        all_names: str = "",
        nearest: Sequence[str] | None = None,
    ) -> None:
        names = sorted(valid)
        guess = nearest_name(name, names)
        guesses = nearest if nearest is not None else [guess] if guess else []
        listed = all_names or "valid names: " + ", ".join(names)
        hints = [f"did you mean {either(guesses)}?"] if guesses else []
        if all_names or not guesses:
            hints.append(listed)
        super().__init__(f"unknown {kind} {name!r}; {' '.join(hints)}")
        self.name = name
        self.nearest = guesses[0] if guesses else None


class BudgetBelowFloorError(SdcomError):
    """The budget cannot pay for the parts that every frame needs."""


class FlopsBelowFloorError(BudgetBelowFloorError):
    """A budget in FLOPs cannot.

    Args:
        budget_gmacs: asked for.
        floor_gmacs: the least that would do.
        baseline_gmacs: of which the budget may be a share.
        whose: the floor's owner, in words.
    """

    def __init__(
        self, budget_gmacs: float, floor_gmacs: float, baseline_gmacs: float, *, whose: str = "this model's"
    ) -> None:
        # Rounded towards refusal and towards success: the figures advised are enough when asked for.
        budget = _DOWN.create_decimal(repr(budget_gmacs))
        floor = _UP.create_decimal(repr(floor_gmacs))
        share = _UP.create_decimal(repr(floor_gmacs / baseline_gmacs))
        super().__init__(
            f"a budget of {budget:f} GFLOPs is below {whose} floor of {floor:f} GFLOPs "
            f"(static network, gate and fusion on every frame); ask for max_gflops >= {floor:f} "
            f"or budget >= {share:f}"
        )
        self.budget_gmacs = budget_gmacs
        self.floor_gmacs = floor_gmacs


class TimeBelowFloorError(BudgetBelowFloorError):
    """A budget in milliseconds cannot, by the times measured.

    Args:
        budget_ms: asked for.
        floor_ms: the least that would do.
    """

    def __init__(self, budget_ms: float, floor_ms: float) -> None:
        budget, floor = _DOWN.create_decimal(repr(budget_ms)), _UP.create_decimal(repr(floor_ms))
        super().__init__(
            f"a budget of {budget:f} ms is below the floor of {floor:f} ms that was measured here "
            f"(static network, gate and fusion on every frame); ask for max_ms >= {floor:f}"
        )
        self.budget_ms = budget_ms
        self.floor_ms = floor_ms


class VideoRejectedError(SdcomError):
    """The upload is not a video that this service will recognise."""


class VideoTooLargeError(VideoRejectedError):
    """The upload is over the configured size."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"the video is at least {size_bytes} bytes; the limit is {limit_bytes} bytes")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class UnsupportedContainerError(VideoRejectedError):
    """The first bytes are not those of a video container that is accepted."""


class VideoLimitError(VideoRejectedError):
    """The video's dimensions, duration or frame count are over a limit."""


class UndecodableVideoError(VideoRejectedError):
    """The container opened, or should have, but frames could not be read from it."""


class DecoderKilledError(UndecodableVideoError):
    """The jailed worker that read this video had to be killed, or died of it.

    Args:
        reason: one of "timeout", "crash", "memory", "cpu".
        detail: what happened, in words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class DeadlineExceededError(SdcomError):
    """The request's deadline passed before its answer was ready."""


class OverloadedError(SdcomError):
    """No room now: the queue is full or the service is draining.

    Args:
        detail: why there is no room.
        retry_after_s: seconds after which trying again makes sense.
    """

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class ModelDirectoryError(SdcomError):
    """A model directory is missing, foreign, damaged or from a newer version."""


class SettingsError(SdcomError):
    """The service's settings cannot be used."""
