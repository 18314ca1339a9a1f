"""The answers' shapes, for the OpenAPI page and for checking what leaves."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictionSchema(_Schema):
    """A label with its score."""

    label: str = Field(examples=["wave"])
    index: int = Field(description="Position in the model's labels.", examples=[20])
    score: float = Field(ge=0, le=1, description="Softmax probability.", examples=[0.93])


class FrameSchema(_Schema):
    """One frame that was looked at."""

    time_s: float = Field(description="Seconds from the video's first frame.", examples=[0.52])
    width: float = Field(description="Width of the dynamic network; 0: skipped.", examples=[0.25])
    label: str = Field(description="The prediction once this frame had been fed.", examples=["wave"])
    score: float = Field(ge=0, le=1, examples=[0.71])


class ComputeSchema(_Schema):
    """Executed multiply-accumulates, in units of 1e9, exact to the last one."""

    gflops: float = Field(description="All parts together.", examples=[9.8])
    baseline_gflops: float = Field(
        description="The full-width dynamic network on every frame.", examples=[65.4]
    )
    saved: float = Field(description="1 - gflops / baseline_gflops.", examples=[0.85])
    static_gflops: float
    gate_gflops: float
    dynamic_gflops: float
    fusion_gflops: float
    num_frames: int = Field(
        description="Frames looked at; fewer than the model's where `min_confidence` ended the video early."
    )
    widths: dict[str, int] = Field(
        description="Frames at each width.", examples=[{"0": 12, "0.25": 3, "1": 1}]
    )
    lam: float = Field(description="The price at which the widths were chosen; 0: the policy as trained.")
    max_budget: float = Field(
        description="Share of the baseline's FLOPs that a busy service let the video cost (the governor); "
        "1: no limit but the request's own."
    )


class TimingSchema(_Schema):
    """Wall-clock milliseconds of each stage."""

    upload: float
    queue: float = Field(description="Waiting: for a turn to be decoded, and then for the networks.")
    decode: float
    static: float
    gate: float
    dynamic: float
    fusion: float
    total: float = Field(description="From the request's arrival to its answer.")


class VideoSchema(_Schema):
    """Facts of the file."""

    duration_s: float
    width: int = Field(description="Pixels, after rotation.")
    height: int = Field(description="Pixels, after rotation.")
    container: str = Field(examples=["mp4"])
    codec: str = Field(examples=["h264"])
    decoder: str = Field(examples=["pyav"])
    num_unreadable_frames: int = Field(
        ge=0,
        description="Of the model's frames, those that the file is too damaged to read and that the ones "
        "before them stand for; with early exit, as far as it was read.",
    )
    num_missing_frames: int = Field(
        ge=0,
        description="Frames that an MP4's header lists and that are not in the file, which is cut off; the "
        "answer is that of a shorter video. 0 where the header lists none, as in other containers.",
    )


class RecognitionSchema(_Schema):
    """The answer for one video."""

    request_id: str
    model: str = Field(description="name@version")
    predictions: list[PredictionSchema] = Field(description="Best first.")
    frames: list[FrameSchema] | None = Field(None, description="In time order; absent for `detail=summary`.")
    compute: ComputeSchema
    timing_ms: TimingSchema
    video: VideoSchema


class ModelSchema(_Schema):
    """A model that is served."""

    name: str
    version: str
    labels: list[str]
    num_frames: int = Field(description="Frames looked at in every video.")
    widths: list[float]
    static: str = Field(description="Architecture of the static network.")
    dynamic: str = Field(description="Architecture of the dynamic network.")
    baseline_gflops: float = Field(description="The full-width dynamic network on every frame of a video.")
    floor_gflops: float = Field(description="The least that a video costs; a budget below it is refused.")
    default_budget: float | None = Field(description="Share of the baseline for requests that name none.")
    calibration: list[dict[str, Any]]
    evaluation: dict[str, Any]


class ModelsSchema(_Schema):
    """The models that are served."""

    models: list[ModelSchema]


class HealthSchema(_Schema):
    """Whether the service lives, or takes requests."""

    status: Literal["live", "ready"]


class ProblemSchema(_Schema):
    """What went wrong (RFC 9457)."""

    type: str = Field(examples=["urn:sdcom:problem:unsupported-container"])
    title: str = Field(examples=["The file is not a video container that is accepted"])
    status: int = Field(examples=[415])
    detail: str = Field(description="What was wrong with this request, and what would be right.")
    request_id: str
