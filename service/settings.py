"""The service's settings: environment variables named SDCOM_*, read once at start."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sdcom.engine.loading import DeviceName, EngineName, PrecisionName
from sdcom.errors import SettingsError, nearest_name
from sdcom.processors import num_processors
from sdcom.sampling import Sampling
from sdcom.video.limits import DecodeLimits

PREFIX = "SDCOM_"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
_LIMITS = DecodeLimits()
_MESSAGES_BYTES = 512 * 1024**2
_SPARE_RPCS = 32


class Settings(BaseSettings):
    """Everything that an operator may set; see docs/operations.md for the table.

    Attributes:
        model_dir: model directory; the bundled model when unset.
        host: address of both transports.
        http_port: REST, metrics and health; 0 picks a free one.
        grpc_port: gRPC; 0 picks a free one.
        max_video_bytes: largest upload.
        queue_size: requests that may be uploading, waiting for their turn, or past it; more are refused.
        decode_workers: jailed decode processes; one per processor that may be used when unset.
        sampling: which frame of each of a video's equal stretches is looked at.
        threads: threads of one network call; half of the processors when unset.
        network_workers: videos in the networks at once, on a processor; one per processor when unset, with
            torch one.
        engine: what runs the networks: onnx, torch, or auto: torch on a GPU that it can use, else onnx where
            it is installed and can.
        device: cpu, cuda, tensorrt (onnx alone), or auto: a GPU that the engine can use.
        precision: fp32, mixed, fp16 or bf16 (torch on a GPU), int8 (onnx on a processor), or auto: mixed
            (fp16, but for what decides the widths) where the networks are known to stay within it, else fp32.
        compile: torch on a GPU has kernels compiled for the largest batches, at start.
        batching: batches across the videos in flight: on, off, or auto: on a GPU.
        governor: get cheaper while requests wait, before any is refused.
        governor_target_wait_s: the wait for a turn that is accepted at full accuracy.
        governor_min_budget: share of the baseline's FLOPs, below 1, to which it may limit a video; what one
            frame at full width costs when unset.
        request_timeout_s: from a request's arrival to its answer.
        drain_seconds: how long requests in flight may finish after SIGTERM.
        max_streams: gRPC streams open at once.
        max_message_bytes: largest gRPC message, so the largest chunk or frame.
        stream_idle_s: a stream without a frame for so long is ended.
        decode_timeout_s: wall clock that decoding one video may take.
        decode_memory_bytes: memory of one decode worker.
        max_dimension: pixels of a video's longer side.
        max_duration_s: longest video.
        max_frames: most frames in a video.
        log_level: least severe log entry written.
        log_format: json, console, or auto: console on a terminal.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, protected_namespaces=()
    )

    model_dir: Path | None = None
    host: str = "127.0.0.1"
    http_port: Port = 8000
    grpc_port: Port = 50051
    max_video_bytes: Bytes = 64 * 1024 * 1024
    queue_size: int = Field(64, ge=1)
    decode_workers: int | None = Field(None, ge=1, le=256)
    sampling: Sampling = "centers"
    threads: int | None = Field(None, ge=1, le=1024)
    network_workers: int | None = Field(None, ge=1, le=1024)
    engine: EngineName = "auto"
    device: DeviceName = "auto"
    precision: PrecisionName = "auto"
    compile: bool = False
    batching: Literal["auto", "on", "off"] = "auto"
    governor: bool = False
    governor_target_wait_s: Seconds = 1.0
    governor_min_budget: float | None = Field(None, ge=0, lt=1)
    request_timeout_s: Seconds = 60.0
    drain_seconds: Seconds = 25.0
    max_streams: int = Field(16, ge=1)
    max_message_bytes: int = Field(4 * 1024**2, gt=0, le=64 * 1024**2)
    stream_idle_s: Seconds = 60.0
    decode_timeout_s: Seconds = _LIMITS.wall_clock_s
    decode_memory_bytes: Bytes = _LIMITS.memory_bytes
    max_dimension: int = Field(_LIMITS.max_dimension, ge=1)
    max_duration_s: Seconds = _LIMITS.max_duration_s
    max_frames: int = Field(_LIMITS.max_frames, ge=1)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @property
    def num_decode_workers(self) -> int:
        """Decode processes to start."""
        return self.decode_workers or num_processors()

    @property
    def max_concurrent_rpcs(self) -> int:
        """Calls that gRPC holds at once, those included that have not even said what they want.

        Admission decides on work, but a call's first message, of any kind and up to the largest size, is in
        memory before admission sees it. So calls times message size stays within 512 MiB: 128 calls of 4 MiB,
        8 of 64 MiB. Within that there is a call for every place (64 that wait, 2 + 1 at work with 2 decode
        workers, 16 streams), and 32 to spare for refusals, health and reflection: 115, or 460 MiB.
        """
        places = self.queue_size + self.num_decode_workers + 1 + self.max_streams
        return min(places + _SPARE_RPCS, _MESSAGES_BYTES // self.max_message_bytes)

    def recognizer_options(self) -> dict[str, Any]:
        """Return what `Recognizer.load` is given, but for who is told of restarts."""
        return {
            "model_dir": self.model_dir,
            "limits": self.decode_limits(),
            "num_decode_workers": self.num_decode_workers,
            "sampling": self.sampling,
            "num_threads": self.threads,
            "num_network_workers": self.network_workers,
            "engine": self.engine,
            "device": self.device,
            "precision": self.precision,
            "compiled": self.compile,
            "batching": None if self.batching == "auto" else self.batching == "on",
        }

    def decode_limits(self) -> DecodeLimits:
        """Return the limits that the decode workers enforce."""
        return DecodeLimits(
            wall_clock_s=self.decode_timeout_s,
            cpu_s=min(_LIMITS.cpu_s, 0.75 * self.decode_timeout_s),
            memory_bytes=self.decode_memory_bytes,
            max_dimension=self.max_dimension,
            max_duration_s=self.max_duration_s,
            max_frames=self.max_frames,
        )


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides` (the command line's options, None where not given) win.

    Raises:
        SettingsError: an SDCOM_* name does not exist, with the nearest that does, a value is unusable, or it
            would change nothing.
    """
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            _refuse_unknown(name)
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise SettingsError(f"{name}: {first['msg'].lower()}, got {first['input']!r}") from error
    _refuse_governing_nothing(settings.model_fields_set)
    return settings


def _refuse_governing_nothing(given: set[str]) -> None:
    """Refuse to tune a governor that was not switched on; one that was switched off may keep its tuning."""
    tuning = sorted(given & {"governor_target_wait_s", "governor_min_budget"})
    if tuning and "governor" not in given:
        raise SettingsError(
            f"{PREFIX}{tuning[0].upper()} changes nothing without {PREFIX}GOVERNOR: "
            f"set {PREFIX}GOVERNOR=true, or to false to keep it for later"
        )


def _refuse_unknown(name: str) -> None:
    field = name.lower().removeprefix(PREFIX.lower())
    if field in Settings.model_fields:
        return
    guess = nearest_name(field, Settings.model_fields)
    hint = (
        f"did you mean {PREFIX}{guess.upper()}?" if guess else f"docs/operations.md lists the {PREFIX}* names"
    )
    raise SettingsError(f"unknown setting {name}; {hint}")
