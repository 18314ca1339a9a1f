"""What a request may ask for, checked alike for both transports."""

from collections.abc import Iterable
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sdcom.errors import InvalidParameterError, UnknownNameError
from sdcom.recognition import Budget

Parameters = TypeVar("Parameters", bound=BaseModel)


class SpendParameters(BaseModel):
    """What a video, or a window of a stream, may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    budget: float | None = Field(
        None, ge=0, le=1, description="Share of the baseline's FLOPs that the video may cost, 0 to 1."
    )
    max_gflops: float | None = Field(
        None, ge=0, description="GFLOPs that the video may cost, instead of `budget`."
    )
    max_ms: float | None = Field(
        None,
        ge=0,
        description="Milliseconds of the networks that the video may cost, instead of `budget`, by the times "
        "that `sdcom calibrate --hardware` measured.",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if [self.budget, self.max_gflops, self.max_ms].count(None) < 2:
            raise ValueError("give only one of `budget`, `max_gflops` and `max_ms`")
        return self

    def spend(self) -> Budget | None:
        """Return the budget asked for; None is the model's default."""
        if self.budget is None and self.max_gflops is None and self.max_ms is None:
            return None
        return Budget(share=self.budget, gflops=self.max_gflops, ms=self.max_ms)


class RecognizeParameters(SpendParameters):
    """How to recognise one video, and how much of the answer to return."""

    top_k: int = Field(5, ge=1, le=1000, description="Predictions to return, best first.")
    min_confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Score of the best class at which no more frames are looked at (early exit).",
    )
    min_budget: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the baseline's FLOPs to which, and no further, a busy service may limit this "
        "request (the governor); 1 leaves it alone.",
    )
    deadline_ms: int | None = Field(
        None,
        ge=1,
        description="Milliseconds from the request's arrival after which no answer is wanted (408); refused "
        "at once (503) if others wait and the answer would come later.",
    )
    detail: Literal["frames", "summary"] = Field(
        "frames", description="`frames` has one entry for every frame looked at; `summary` leaves them out."
    )


def refuse_repeats(names: Iterable[str]) -> None:
    """Refuse a parameter given twice: which of the two was meant is anyone's guess.

    Raises:
        InvalidParameterError: a name occurs twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidParameterError(f"parameter {name!r} is given more than once; give it once")
        seen.add(name)


def parameter_error(errors: Iterable[Any], valid: Iterable[str]) -> InvalidParameterError:
    """Return the first of pydantic's errors as ours, with the parameter, its value and what is right."""
    first = next(iter(errors))
    name = str(first["loc"][-1]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return UnknownNameError("parameter", name, valid)
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "value_error":
        return InvalidParameterError(message)
    return InvalidParameterError(f"{name}: {message[:1].lower()}{message[1:]}, got {first['input']!r:.80}")


def checked(kind: type[Parameters], values: dict[str, Any]) -> Parameters:
    """Return parameters built from `values`, with this package's errors instead of pydantic's.

    Raises:
        InvalidParameterError: a name or a value cannot be used.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise parameter_error(error.errors(), kind.model_fields) from error
