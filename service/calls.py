"""One call over either transport: its id, its fate, its one log event and its counts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from service.errors import UNEXPECTED, decode_failure_reason, problem_detail, problem_kind
from service.metrics import Metrics

Transport = Literal["http", "grpc"]


@dataclass(slots=True)
class Call:
    """One call while it lasts.

    Attributes:
        request_id: in the answer, the log and the error.
        arrived: monotonic seconds.
        facts: fields for the log event.
        error: what ended it, if it did not end well.
        is_recognition: whether it asked for a recognition, so that it is counted.
        is_probe: whether it is one of the probes that come every few seconds, which only debug logs show.
    """

    request_id: str
    arrived: float
    facts: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    is_recognition: bool = False
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class CallLog:
    """Writes down how every call ended: the log event and the metrics."""

    metrics: Metrics
    logger: structlog.stdlib.BoundLogger
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def call(self, transport: Transport, route: str, request_id: str) -> Iterator[Call]:
        """Hold one call; `route` is its path or method. An error that passes through is its end."""
        call = Call(request_id, self.clock(), {"transport": transport, "route": route})
        try:
            yield call
        except BaseException as error:
            call.error = call.error or error
            raise
        finally:
            self._ended(call, transport)

    def _ended(self, call: Call, transport: Transport) -> None:
        kind = problem_kind(call.error) if call.error is not None else None
        outcome = kind.outcome if kind else "ok"
        if call.is_recognition:
            self._count(call.error, transport, outcome)
        call.facts |= {"request_id": call.request_id, "outcome": outcome}
        call.facts["duration_ms"] = round((self.clock() - call.arrived) * 1e3, 3)
        if call.error is None or kind is None:
            (self.logger.debug if call.is_probe else self.logger.info)("request", **call.facts)
            return
        call.facts |= {"problem": kind.name, "detail": problem_detail(call.error)}
        if kind is UNEXPECTED:
            self.logger.error("request", exc_info=call.error, **call.facts)
        elif call.is_probe:  # not ready yet, or no more: no caller was refused
            self.logger.debug("request", **call.facts)
        else:
            self.logger.warning("request", **call.facts)

    def _count(self, error: BaseException | None, transport: Transport, outcome: str) -> None:
        self.metrics.request_done(transport, outcome)
        if error is None:
            return
        if outcome == "rejected":
            self.metrics.request_rejected(problem_kind(error).name)
        reason = decode_failure_reason(error)
        if reason:
            self.metrics.decode_failed(reason)
