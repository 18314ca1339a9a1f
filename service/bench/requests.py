"""The whole request, from the file's bytes to the answer, against decord and the full-width network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sdcom.engine.backend import Backend
from sdcom.errors import InvalidParameterError, VideoRejectedError
from sdcom.recognition import Budget, Recognition
from sdcom.recognizer import Recognizer
from service.bench.decord_frames import decode_with_decord
from service.bench.turns import medians_ms

BASELINE = "decord, full width on every frame"


@dataclass(frozen=True, slots=True)
class RequestTime:
    """One way of answering one file: frames looked at, median ms, GFLOPs, the baseline's time over this."""

    file: str
    way: str
    num_frames: int
    ms: float
    gflops: float
    speedup: float


def time_requests(
    recognizer: Recognizer,
    files: list[Path],
    budgets: Mapping[str, Budget | None],
    confidences: Mapping[str, float],
    *,
    num_repeats: int,
) -> list[RequestTime]:
    """Answer each file in every way, taking turns.

    The baseline decodes in this process with decord at a target size, at the exact centres of the segments,
    and runs the dynamic network at full width on every frame, on the same backend: no jail, no copy.

    Args:
        recognizer: of the model.
        files: videos that decord can read.
        budgets: of whole compositions, by name; None is the model's default.
        confidences: of early exits, by name.
        num_repeats: turns that count.

    Raises:
        InvalidParameterError: a file cannot be read in one of the ways.
    """
    info, rows = recognizer.info, list[RequestTime]()
    for file in files:
        try:
            recognizer.recognize(file)
            _baseline(recognizer.backend, file)
        except (VideoRejectedError, OSError) as exc:
            raise InvalidParameterError(f"{file} cannot be timed: {exc}") from exc
    for file in files:
        answers: dict[str, Callable[[], Recognition]] = {
            **{name: partial(recognizer.recognize, file, budget=each) for name, each in budgets.items()},
            **{
                name: partial(recognizer.recognize, file, min_confidence=each)
                for name, each in confidences.items()
            },
        }
        num_frames = info.config.clip.num_frames
        costs = {BASELINE: (num_frames, info.macs.baseline(num_frames) / 1e9)}
        for name, answer in answers.items():
            ledger = answer().ledger
            costs[name] = (ledger.width_counts.total(), ledger.total_macs / 1e9)
        baseline = partial(_baseline, recognizer.backend, file)
        ms = medians_ms({BASELINE: baseline, **answers}, num_repeats=num_repeats)
        rows += [
            RequestTime(file.name, name, costs[name][0], each, costs[name][1], ms[BASELINE] / each)
            for name, each in ms.items()
        ]
    return rows


def _baseline(backend: Backend, file: Path) -> object:
    frames_THWC = decode_with_decord(file.read_bytes(), backend.info.config.clip)
    return backend.fill(frames_THWC, 1.0).mean(axis=0)
