"""An answer before the body's end must still be heard (RFC 9112, 9.6).

A connection that is closed with unread bytes is reset, and the answer is lost with it. So after an early
refusal a little more of the body is read and thrown away, and only then the connection ends.
"""

import asyncio
import contextlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 30.0
LINGER_IDLE_S = 3.0


class LingeringMiddleware:
    """Reads on after an answer that came before its request's end, while more comes and within bounds.

    Args:
        app: what is surrounded.
        limit_bytes: most bytes thrown away; those of a body that would have been accepted.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        await self._app(scope, exchange.receive, exchange.send)
        await exchange.finish(self._limit_bytes)


class _Exchange:
    """One request and its answer, whose last word waits where the body is not read to its end."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._unread = True
        self._owes_end = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._unread = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._unread and message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
        elif self._unread and not message.get("more_body", False):
            self._owes_end = True
            message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self, limit_bytes: int) -> None:
        if not self._owes_end:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._unread and limit_bytes > 0:
                    message = await asyncio.wait_for(self.receive(), LINGER_IDLE_S)
                    limit_bytes -= len(message.get("body", b""))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
