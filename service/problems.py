"""Errors as problem JSON (RFC 9457), for every way in which an HTTP request can end badly."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sdcom.errors import InvalidParameterError, SdcomError
from service.calls import Call
from service.errors import (
    PROBLEM_URN,
    PROBLEMS,
    UNEXPECTED,
    MethodNotAllowedError,
    NotFoundError,
    problem_detail,
    problem_kind,
    retry_after_s,
)
from service.parameters import RecognizeParameters, parameter_error
from service.schemas import ProblemSchema


class ProblemResponse(JSONResponse):
    """An error in the form of RFC 9457."""

    media_type = "application/problem+json"


def problem_response(
    error: BaseException, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """Return the response that tells a caller of `error`."""
    kind = problem_kind(error)
    problem = ProblemSchema(
        type=PROBLEM_URN + kind.name,
        title=kind.title,
        status=kind.status,
        detail=problem_detail(error),
        request_id=request_id,
    )
    headers = dict(headers or {})
    seconds = retry_after_s(error)
    if seconds is not None:
        headers["Retry-After"] = str(seconds)
    return ProblemResponse(problem.model_dump(), kind.status, headers)


def answer_errors(app: FastAPI) -> None:
    """Have every error that a route or the router raises answered as a problem."""
    app.add_exception_handler(SdcomError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI descriptions of problem responses with these statuses."""
    kinds = [UNEXPECTED, *PROBLEMS.values()]
    schema = {"$ref": f"#/components/schemas/{ProblemSchema.__name__}"}
    return {
        status: {
            "description": "; ".join(dict.fromkeys(kind.title for kind in kinds if kind.status == status)),
            "content": {ProblemResponse.media_type: {"schema": schema}},
        }
        for status in statuses
    }


async def _on_error(request: Request, error: Exception) -> Response:
    call: Call = request.state.call
    call.error = error
    return problem_response(error, call.request_id)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_error(request, parameter_error(error.errors(), RecognizeParameters.model_fields))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    call: Call = request.state.call
    call.error = _of_router(request, error)
    return problem_response(call.error, call.request_id, dict(error.headers or {}))


def _of_router(request: Request, error: HTTPException) -> SdcomError:
    path = request.url.path
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return MethodNotAllowedError(f"{path} does not take {request.method}; use {allowed}")
    if error.status_code == 404:
        return NotFoundError(f"nothing is served at {path}; /docs lists what is")
    return InvalidParameterError(str(error.detail))
