"""The ASGI application."""

from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service.calls import CallLog
from service.engine import Engine
from service.lingering import LingeringMiddleware
from service.middleware import CallMiddleware
from service.problems import answer_errors
from service.routes import build_router
from service.schemas import ProblemSchema


def create_app(engine: Engine, call_log: CallLog) -> FastAPI:
    """Return the REST side of the service over `engine`."""
    app: FastAPI = FastAPIOffline(
        title="sdcom",
        version=version("sdcom"),
        summary="Video recognition within a compute budget.",
        redoc_url=None,
        # Swagger UI would otherwise send the API's address to an online validator.
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.include_router(build_router(engine))
    _add_problem_schema(app)
    app.add_middleware(CallMiddleware, call_log=call_log)
    app.add_middleware(LingeringMiddleware, limit_bytes=engine.settings.max_video_bytes)
    answer_errors(app)
    return app


def _add_problem_schema(app: FastAPI) -> None:
    """Describe problems, which the routes' `responses` point at, in the OpenAPI document."""
    schemas = app.openapi().setdefault("components", {}).setdefault("schemas", {})
    schemas[ProblemSchema.__name__] = ProblemSchema.model_json_schema()
