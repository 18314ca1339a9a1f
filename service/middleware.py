"""What surrounds every HTTP request: its id, its log event, and an answer even when a route breaks."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.calls import CallLog
from service.logs import request_id_from
from service.problems import problem_response

REQUEST_ID_HEADER = "X-Request-ID"
RECOGNIZE_PATH = "/recognize"
MAX_LOGGED_PATH = 200
PROBE_PATHS = ("/health/live", "/health/ready", "/metrics")


class CallMiddleware:
    """Gives each HTTP request its `Call` in `request.state.call`.

    Args:
        app: what is surrounded.
        call_log: writes down how each call ended.
    """

    def __init__(self, app: ASGIApp, call_log: CallLog) -> None:
        self._app = app
        self._call_log = call_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_from(Headers(scope=scope).get(REQUEST_ID_HEADER))
        with self._call_log.call("http", scope["path"][:MAX_LOGGED_PATH], request_id) as call:
            call.facts["method"] = scope["method"]
            call.is_probe = scope["path"] in PROBE_PATHS
            call.is_recognition = scope["path"] == RECOGNIZE_PATH
            scope.setdefault("state", {})["call"] = call
            started = False

            async def send_with_id(message: Message) -> None:
                nonlocal started
                if message["type"] == "http.response.start":
                    started = True
                    call.facts["status"] = message["status"]
                    MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
                await send(message)

            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:  # the last resort: callers get a problem, the log the traceback
                call.error = error
                if not started:
                    await problem_response(error, request_id)(scope, receive, send_with_id)
