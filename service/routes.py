"""The REST endpoints."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from sdcom.checkpoint import ModelInfo
from sdcom.recognition import GIGA
from service.engine import Engine
from service.parameters import RecognizeParameters, refuse_repeats
from service.problems import responses
from service.schemas import HealthSchema, ModelSchema, ModelsSchema, RecognitionSchema
from service.uploads import MULTIPART_FIELD, client_gone, received

VIDEO_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [MULTIPART_FIELD],
                "properties": {MULTIPART_FIELD: {"type": "string", "format": "binary"}},
            }
        },
        "video/*": {"schema": {"type": "string", "format": "binary"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
WELCOME = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>sdcom</title>
<h1>sdcom</h1>
<p>Video recognition within a compute budget. Send a video:</p>
<pre>curl -F video=@clip.mp4 'http://HOST:PORT/recognize?budget=0.3'</pre>
<ul>
<li><a href="docs">The API</a></li>
<li><a href="models">The model</a></li>
<li><a href="metrics">Metrics</a></li>
</ul></html>
"""


def build_router(engine: Engine) -> APIRouter:
    """Return the endpoints over `engine`."""
    router = APIRouter()

    @router.post(
        "/recognize",
        response_model=RecognitionSchema,
        response_model_exclude_unset=True,
        responses=responses(400, 408, 413, 415, 422, 500, 503),
        openapi_extra={"requestBody": VIDEO_BODY},
        tags=["recognition"],
    )
    async def recognize(
        request: Request, parameters: Annotated[RecognizeParameters, Query()]
    ) -> dict[str, Any]:
        """Recognise one video: MP4/MOV, Matroska/WebM, AVI or MPEG-TS, as a raw body or a form's `video`."""
        refuse_repeats(name for name, _ in request.query_params.multi_items())
        upload = received(request, engine.settings.max_video_bytes)
        return await engine.answer(request.state.call, parameters, upload, gone=lambda: client_gone(request))

    @router.get("/models", response_model=ModelsSchema, tags=["recognition"])
    async def models() -> ModelsSchema:
        """Describe the model that is served, with what each budget costs and brings."""
        return ModelsSchema(models=[describe(engine.info)])

    @router.get("/health/live", response_model=HealthSchema, tags=["operation"])
    async def live() -> HealthSchema:
        """Say that the process answers."""
        return HealthSchema(status="live")

    @router.get("/health/ready", response_model=HealthSchema, responses=responses(503), tags=["operation"])
    async def ready() -> HealthSchema:
        """Say whether requests are taken: the model has run, and the service is not shutting down."""
        engine.check_ready()
        return HealthSchema(status="ready")

    @router.get("/metrics", response_class=Response, tags=["operation"])
    async def metrics(request: Request) -> Response:
        """Return the metrics in Prometheus's or OpenMetrics' text form, as the scraper asks."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(engine.metrics.registry), headers={"Content-Type": content_type})

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def welcome() -> str:
        return WELCOME

    return router


def describe(info: ModelInfo) -> ModelSchema:
    """Return what callers may know about a model."""
    config = info.config
    return ModelSchema(
        name=info.name,
        version=info.version,
        labels=list(config.labels),
        num_frames=config.clip.num_frames,
        widths=list(config.widths),
        static=config.static,
        dynamic=config.dynamic,
        baseline_gflops=info.macs.baseline(config.clip.num_frames) / GIGA,
        floor_gflops=info.macs.floor(config.clip.num_frames) / GIGA,
        default_budget=info.default_budget,
        calibration=[point.model_dump() for point in info.calibration],
        evaluation=info.evaluation,
    )
