"""What an evaluation says, as a file: rows of accuracy and cost, and what they were measured on and with."""

import platform
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from sdcom.errors import SdcomError
from sdcom.processors import num_processors, processor_name
from training.evaluation.metrics import Accuracy


class RecordError(SdcomError):
    """A file is not a record of an evaluation."""


class Method(StrEnum):
    """How clips were answered, as tables name it."""

    UNLIMITED = "SDCOM, unlimited budget"
    DEFAULT = "SDCOM, default budget"
    BUDGET = "SDCOM, a budget for each video"
    PRICE = "SDCOM, one price for all videos"
    EXIT = "SDCOM, early exit"
    ANYTIME = "SDCOM, after the first frames"
    RANDOM = "random widths of the same mix"
    ONE_WIDTH = "one width for all frames, fusion head"
    ONE_WIDTH_TSN = "one width for all frames, TSN"
    FEWER = "fewer frames at full width, fusion head"
    FEWER_TSN = "fewer frames at full width, TSN"
    STATIC = "static network alone"
    BASELINE = "full-width baseline (TSN)"
    BASELINE_FUSION = "full width on every frame, fusion head"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Frozen):
    """One way of answering.

    Attributes:
        method: which way.
        setting: which of its kind: a share of the baseline's FLOPs (budget), lam (price, random widths), a
            width, a number of frames, or a confidence (early exit).
        accuracy: how often right.
        frames: mean frames of a video that each part saw.
        gflops: mean GFLOPs of a video by part.
        top1_spread: standard deviation of top-1 over repeats, where something was drawn at random.
        top1_interval: what top-1 over all clips of this kind may be, at 95 %, given that over these few
            (Wilson's); None in records of before.
    """

    method: Method
    setting: float | None
    accuracy: Accuracy
    frames: dict[str, float]
    gflops: dict[str, float]
    top1_spread: float = 0.0
    top1_interval: tuple[float, float] | None = None

    @property
    def total_gflops(self) -> float:
        """Of a video, all parts together."""
        return sum(self.gflops.values())

    def ms(self, part_ms: dict[str, float]) -> float:
        """Return a video's milliseconds by parts measured one by one; what was not measured takes none."""
        return sum(count * part_ms.get(part, 0.0) for part, count in self.frames.items())


class WholeTiming(_Frozen):
    """Median milliseconds of whole videos, file to answer, and of decoding alone."""

    name: str
    total_ms: float
    decode_ms: float


class Timing(_Frozen):
    """What was measured in time.

    Attributes:
        device: what computed.
        num_threads: of one network call, on a processor.
        part_ms: milliseconds a frame of each part.
        whole: of whole videos, from the file on.
        num_videos: that `whole` is the median of.
    """

    device: str
    num_threads: int
    part_ms: dict[str, float] = {}
    whole: tuple[WholeTiming, ...] = ()
    num_videos: int = 0


class Record(_Frozen):
    """One evaluation of one model on one set of clips.

    Attributes:
        form: of this file.
        name: what runs of the same kind share: tables give the mean over those.
        model: name and version.
        data: name of the dataset.
        split: which clips of it.
        seed: of the training run, if known.
        num_clips: evaluated.
        num_frames: T.
        calibrated_on: the clips that the default budget and the exits were chosen on.
        command: that made this record.
        machine: where.
        versions: of Python and the packages that compute.
        baseline_gflops: of a video by the full-width baseline.
        timing: measured time.
        rows: all ways of answering.
    """

    form: Literal[1] = 1
    name: str
    model: str
    data: str
    split: str
    seed: int | None
    num_clips: int
    num_frames: int
    calibrated_on: str
    command: str
    machine: str
    versions: dict[str, str]
    baseline_gflops: float
    timing: Timing
    rows: tuple[Row, ...]

    def of(self, method: Method) -> list[Row]:
        """Return the rows of a method, cheapest first."""
        return sorted((row for row in self.rows if row.method is method), key=lambda row: row.total_gflops)


def write_record(path: Path, record: Record) -> None:
    """Write a record, replacing the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read_records(paths: Sequence[Path]) -> list[Record]:
    """Read records, in order of name, data, split and seed.

    Raises:
        RecordError: a file is missing or is not a record; the message names it.
    """
    records = [_read(path) for path in paths]
    return sorted(records, key=lambda r: (r.name, r.data, r.split, -1 if r.seed is None else r.seed))


def _read(path: Path) -> Record:
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise RecordError(
            f"{path} cannot be read: {exc.strerror} (`sdcom evaluate --output` writes one)"
        ) from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise RecordError(f"{path} is not an evaluation's record: {where} {first['msg']}") from exc


def describe_machine(device: torch.device) -> str:
    """Name what computes: the GPU, or the processor and how many cores of it may be used."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{num_processors()} cores, {processor_name()}"


def describe_versions() -> dict[str, str]:
    """Return the versions that figures may depend on."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("sdcom", "torch", "numpy")},
    }
