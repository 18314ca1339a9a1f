"""What a recognition says: labels, a timeline, and what the computation cost. Plain values, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcom.engine.ledger import Ledger, Part
from sdcom.errors import InvalidParameterError

GIGA = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """What one video may cost, all parts together.

    Attributes:
        share: of the full-width baseline's FLOPs.
        gflops: GFLOPs.
        ms: milliseconds of the networks, by the times measured for them (`sdcom calibrate --hardware`).

    Raises:
        InvalidParameterError: not exactly one is given, or it is out of range.
    """

    share: float | None = None
    gflops: float | None = None
    ms: float | None = None

    def __post_init__(self) -> None:
        if [self.share, self.gflops, self.ms].count(None) != 2:
            raise InvalidParameterError(
                "give a budget as only one of `budget` (share), `max_gflops` and `max_ms`"
            )
        if self.share is not None and not 0 <= self.share <= 1:
            raise InvalidParameterError(
                f"budget must be between 0 and 1 of the baseline's FLOPs, got {self.share}"
            )
        if self.gflops is not None and not 0 <= self.gflops < float("inf"):
            raise InvalidParameterError(f"max_gflops must be a finite number, at least 0, got {self.gflops}")
        if self.ms is not None and not 0 <= self.ms < float("inf"):
            raise InvalidParameterError(f"max_ms must be a finite number, at least 0, got {self.ms}")

    def macs(self, baseline_macs: int) -> int:
        """Return the whole MACs that a budget in FLOPs allows, given the baseline's.

        The figures of an answer, given as a budget, allow what that answer cost: not one MAC less.
        """
        if self.gflops is not None:
            return _most(self.gflops, GIGA)
        assert self.share is not None, "no budget in FLOPs"
        return _most(self.share, baseline_macs)

    @property
    def microseconds(self) -> int | None:
        """The whole microseconds that a budget in milliseconds allows; None for one in FLOPs."""
        return None if self.ms is None else _most(self.ms, 1000)


def _most(budget: float, unit: int) -> int:
    """Return the most whole pieces of a unit whose quotient by it, as a float, is at most `budget`."""
    pieces = round(Fraction(budget) * unit)  # no budget is too large for a fraction
    return pieces if pieces / unit <= budget else pieces - 1


@dataclass(frozen=True, slots=True)
class Provider:
    """What computes the networks.

    Attributes:
        name: library, device and precision, unless that is all that there is: "onnxruntime-cpu",
            "onnxruntime-cpu-int8", "torch-cuda-mixed"; with "-compiled" where the largest batches have
            kernels of their own.
        version: the library's.
        device: the GPU's model; empty on a processor.
    """

    name: str
    version: str
    device: str = ""

    @property
    def on_processor(self) -> bool:
        """Whether it is a processor that computes."""
        return "-cpu" in self.name


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class with its softmax score."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class FrameResult:
    """One frame of the timeline: its time, its width, and the prediction once it had been fed."""

    time_s: float
    width: float
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """The video as it was decoded.

    Attributes:
        duration_s: seconds from the first frame's start to the last one's end.
        width: pixels, after rotation.
        height: pixels, after rotation.
        container: mp4, matroska, avi or mpegts.
        codec: FFmpeg's name.
        decoder: which decoder read it.
        num_unreadable_frames: of the sampled frames, those that could not be read; others stand for them.
        num_missing_frames: frames that the header lists and a cut-off file lacks, where that is known.
    """

    duration_s: float
    width: int
    height: int
    container: str
    codec: str
    decoder: str
    num_unreadable_frames: int
    num_missing_frames: int

    @property
    def is_damaged(self) -> bool:
        """Whether the answer was made of less than the file should hold."""
        return self.num_unreadable_frames > 0 or self.num_missing_frames > 0


@dataclass(frozen=True, slots=True)
class Recognition:
    """The answer for one video.

    Attributes:
        model: name and version.
        predictions: best first.
        frames: in time order.
        ledger: executed MACs.
        timing_ms: wall-clock milliseconds: `queue`, decoded and waiting for the networks; `decode`; and each
            part.
        video: facts of the file.
    """

    model: str
    predictions: tuple[Prediction, ...]
    frames: tuple[FrameResult, ...]
    ledger: Ledger
    timing_ms: dict[str, float]
    video: VideoFacts

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON-ready values, GFLOPs exact to the last MAC."""
        return {
            "model": self.model,
            "predictions": [_fields_of(prediction) for prediction in self.predictions],
            "frames": [_fields_of(frame) for frame in self.frames],
            "compute": compute_dict(self.ledger),
            "timing_ms": self.timing_ms,
            "video": _fields_of(self.video),
        }


def _fields_of(record: Prediction | FrameResult | VideoFacts) -> dict[str, Any]:
    """Return a record's fields, plain values that need no copies: `asdict` takes five times as long."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


@dataclass(frozen=True, slots=True)
class StreamPrediction:
    """The running prediction after a frame, the frame's width, and what that frame alone cost."""

    prediction: Prediction
    width: float
    ledger: Ledger


def compute_dict(ledger: Ledger) -> dict[str, Any]:
    """Return a ledger as the `compute` object of answers: GFLOPs by part, the baseline's, and the saving."""
    return {
        "gflops": ledger.total_macs / GIGA,
        "baseline_gflops": ledger.baseline_macs / GIGA,
        "saved": ledger.saved,
        **{f"{part}_gflops": ledger.macs[part] / GIGA for part in Part},
        "num_frames": ledger.width_counts.total(),
        "widths": {f"{width:g}": count for width, count in sorted(ledger.width_counts.items())},
        "lam": ledger.lam,
        "max_budget": ledger.max_budget,
    }


def softmax(logits_L: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Return class probabilities, along the last axis, in float64."""
    shifted = logits_L.astype(np.float64) - logits_L.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def top_predictions(
    logits_L: npt.NDArray[np.floating[Any]], labels: Sequence[str], count: int
) -> tuple[Prediction, ...]:
    """Return the `count` best classes, best first, ties by class index."""
    scores_L = softmax(logits_L)
    best = np.lexsort((-logits_L, -scores_L))[:count]  # by logits where rounded scores tie
    return tuple(Prediction(labels[i], int(i), float(scores_L[i])) for i in best)


def leaders(logits_TL: npt.NDArray[np.floating[Any]], labels: Sequence[str]) -> list[Prediction]:
    """Return the best class of each row of numbers, ties by class index: the first of `top_predictions`."""
    best_T1 = logits_TL.argmax(axis=-1, keepdims=True)
    score_T1 = np.take_along_axis(softmax(logits_TL), best_T1, axis=-1)
    each = zip(best_T1[:, 0].tolist(), score_T1[:, 0].tolist(), strict=True)
    return [Prediction(labels[index], index, score) for index, score in each]
