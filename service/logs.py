"""Structured logs: one event a request, fields as keys; JSON unless a person reads them on a terminal."""

import logging
import re
import sys
import uuid
from typing import Literal

import structlog

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def configure_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Send this package's events, and those of the libraries under it, to standard error in one form."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return the service's logger."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("sdcom")
    return logger


def request_id_from(sent: str | None) -> str:
    """Return the caller's request id if it is safe to log and to send back, else a new one."""
    return sent if sent and REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
