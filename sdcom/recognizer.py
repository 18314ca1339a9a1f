"""The front door: a video in, a `Recognition` out. Every transport enters here."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sdcom.budget import WidthPlan, choose_widths, fit_widths
from sdcom.checkpoint import Model, load_model
from sdcom.engine.reference import Composed, Planner, compose
from sdcom.engine.stream import CausalStream
from sdcom.errors import (
    BudgetBelowFloorError,
    DeadlineExceededError,
    InvalidParameterError,
    OverloadedError,
)
from sdcom.processors import num_processors
from sdcom.recognition import (
    GIGA,
    Budget,
    FrameResult,
    Prediction,
    Provider,
    Recognition,
    StreamPrediction,
    VideoFacts,
    softmax,
    top_predictions,
)
from sdcom.sampling import Sampling, feeding_order
from sdcom.video import DecodedClip, DecodeLimits, DecoderPool, resize_and_crop

Answer = TypeVar("Answer")


def bundled_model_dir() -> Path:
    """Return the directory of the model that ships with the package."""
    return Path(str(resources.files("sdcom"))) / "bundled"


class Recognizer:
    """A model and its decoders: decoding runs in parallel, the networks one video at a time, in turn.

    Args:
        model: as `load_model` returns it.
        decoders: a running pool, closed with this recognizer.
        num_threads: threads of one network call.
    """

    def __init__(self, model: Model, decoders: DecoderPool, *, num_threads: int = 1) -> None:
        self.model = model
        self.decoders = decoders
        clip = model.info.config.clip
        self._order_T = feeding_order(clip.num_frames, clip.order)
        # A thread of their own, not a lock: each thread that calls the networks would get OpenMP threads of
        # its own, and leave them spinning on the processors that the next call needs.
        self._networks = ThreadPoolExecutor(
            1, thread_name_prefix="networks", initializer=torch.set_num_threads, initargs=(num_threads,)
        )

    @classmethod
    def load(
        cls,
        model_dir: Path | None = None,
        *,
        limits: DecodeLimits | None = None,
        num_decode_workers: int | None = None,
        sampling: Sampling = "centers",
        on_restart: Callable[[str], None] | None = None,
        num_threads: int | None = None,
    ) -> Self:
        """Load a model and start its decode workers.

        Args:
            model_dir: a model directory; None is the bundled model.
            limits: what the decoders accept.
            num_decode_workers: decode processes; None is one per processor that may be used.
            sampling: which frame of each of a video's equal stretches is looked at.
            on_restart: called with the reason whenever a decode worker is replaced.
            num_threads: threads of one network call; None is half of the processors: the decoders work
                meanwhile, and threads that wait for one another wait for the slowest.

        Raises:
            ModelDirectoryError: the directory is not a whole, readable model.
        """
        model = load_model(model_dir or bundled_model_dir())
        decoders = DecoderPool(
            model.info.config.clip,
            limits or DecodeLimits(),
            num_workers=num_decode_workers or num_processors(),
            sampling=sampling,
            on_restart=on_restart,
        )
        return cls(model, decoders, num_threads=num_threads or max(1, num_processors() // 2))

    @property
    def provider(self) -> Provider:
        """What computes the networks."""
        device = next(self.model.networks.parameters()).device
        return Provider(f"torch-{device.type}", torch.__version__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the decode workers, and the networks after the work at hand; other recognitions fail."""
        self.decoders.close()
        self._networks.shutdown()

    def warm_up(self) -> None:
        """Run the networks once at every width, so that the first request is not the slow one."""
        clip = self.model.info.config.clip
        frames_THWC = np.zeros((clip.num_frames, clip.crop, clip.crop, 3), dtype=np.uint8)
        macs_K = self.model.info.macs.dynamic_by_choice

        def run_at(choice: int) -> Composed:
            plan = WidthPlan((choice,) * clip.num_frames, 0.0, macs_K[choice] * clip.num_frames)
            return compose(self.model, frames_THWC, lambda _: plan)

        for choice in range(len(macs_K)):
            self._in_turn(partial(run_at, choice))

    def recognize(
        self,
        source: BinaryIO | Path | str,
        *,
        top_k: int = 5,
        budget: Budget | None = None,
        deadline: float | None = None,
    ) -> Recognition:
        """Recognise one video file.

        Args:
            source: a path, or an open binary file that has a real file descriptor.
            top_k: classes to return, at least 1; more than there are classes means all.
            budget: what the video may cost; None is the model's default.
            deadline: `time.monotonic()` value after which the answer is not wanted.

        Raises:
            InvalidParameterError: `top_k` is below 1.
            BudgetBelowFloorError: the budget cannot pay for the static network, gate and fusion.
            VideoRejectedError: the file is not a video that can be recognised.
            DeadlineExceededError: the deadline passed first.
            OverloadedError: this recognizer is closed.
        """
        if top_k < 1:
            raise InvalidParameterError(f"top_k must be at least 1, got {top_k}")
        if isinstance(source, str):
            source = Path(source)
        planner = self.planner(budget)
        started = time.perf_counter()
        clip = self.decoders.decode(source, deadline=deadline)
        decode_ms = (time.perf_counter() - started) * 1e3

        def run_networks() -> Composed:
            if deadline is not None and time.monotonic() > deadline:
                raise DeadlineExceededError(
                    "the deadline passed before the networks ran; allow a larger deadline_ms"
                )
            return compose(self.model, clip.frames_THWC[self._order_T], planner)

        return self._recognition(clip, self._in_turn(run_networks), top_k, decode_ms)

    def _in_turn(self, work: Callable[[], Answer]) -> Answer:
        """Run work on the networks' thread, first come first served."""
        try:
            running = self._networks.submit(work)
        except RuntimeError as exc:
            raise OverloadedError("the recognizer is closed", retry_after_s=1.0) from exc
        return running.result()

    def planner(self, budget: Budget | None) -> Planner:
        """Return the function that turns a video's gate logits into widths within `budget`.

        Raises:
            BudgetBelowFloorError: the budget cannot pay for the static network, gate and fusion.
        """
        macs, num_frames = self.model.info.macs, self.model.info.config.clip.num_frames
        macs_K = macs.dynamic_by_choice
        allowed = self._allowed_macs(budget)
        if allowed is None:
            return lambda logits_TK: choose_widths(logits_TK, macs_K, 0.0)
        baseline, floor = macs.baseline(num_frames), macs.floor(num_frames)
        if allowed < floor:
            raise BudgetBelowFloorError(allowed / GIGA, floor / GIGA, baseline / GIGA)
        return lambda logits_TK: fit_widths(logits_TK, macs_K, allowed - floor)

    def open_stream(self, *, budget: Budget | None = None) -> "FrameStream":
        """Open a stream of frames.

        A stream has no video to plan over, so its budget is kept on average: the calibration table's
        smallest price whose mean cost is within it, or the largest price where none is. What the table does
        not count, the gate's new run over the window at every frame, is set aside first.

        Raises:
            BudgetBelowFloorError: the budget named cannot pay for the static network, gate and fusion.
            InvalidParameterError: a budget is named and the model was never calibrated.
        """
        return FrameStream(self, CausalStream(self.model, self._stream_price(budget)))

    def _stream_price(self, budget: Budget | None) -> float:
        allowed = self._allowed_macs(budget)
        if allowed is None:
            return 0.0
        info, num_frames = self.model.info, self.model.info.config.clip.num_frames
        if not info.calibration:
            raise InvalidParameterError(
                f"{info.full_name} has no calibration table, which a stream's budget needs"
            )
        baseline, floor = info.macs.baseline(num_frames), info.macs.stream_floor(num_frames)
        # The model's own default was chosen for videos; a caller who names no budget has nothing to correct.
        if budget is not None and allowed < floor:
            raise BudgetBelowFloorError(allowed / GIGA, floor / GIGA, baseline / GIGA, whose="a stream's")
        planned_gmacs = (allowed - (floor - info.macs.floor(num_frames))) / GIGA
        fitting = [point.lam for point in info.calibration if point.gmacs <= planned_gmacs]
        return min(fitting) if fitting else max(point.lam for point in info.calibration)

    def _allowed_macs(self, budget: Budget | None) -> int | None:
        """Return what T frames may cost under `budget` or the model's default; None is no limit."""
        info = self.model.info
        if budget is None and info.default_budget is not None:
            budget = Budget(share=info.default_budget)
        if budget is None:
            return None
        return budget.macs(info.macs.baseline(info.config.clip.num_frames))

    def _recognition(
        self, clip: DecodedClip, composed: Composed, top_k: int, decode_ms: float
    ) -> Recognition:
        labels, widths = self.model.info.config.labels, self.model.info.config.widths
        fed = []
        for position, time_index in enumerate(self._order_T):
            best = top_predictions(composed.logits_TL[position], labels, 1)[0]
            width = widths[composed.plan.choices[position]]
            fed.append(
                (int(time_index), FrameResult(clip.times_s[time_index], width, best.label, best.score))
            )
        return Recognition(
            model=self.model.info.full_name,
            predictions=top_predictions(composed.logits_TL[-1], labels, top_k),
            frames=tuple(frame for _, frame in sorted(fed, key=lambda item: item[0])),
            ledger=composed.ledger,
            timing_ms={"decode": decode_ms, **{part: s * 1e3 for part, s in composed.stage_s.items()}},
            video=VideoFacts(
                clip.duration_s, clip.width, clip.height, clip.container, clip.codec, clip.decoder
            ),
        )

    def step(self, stream: CausalStream, frame_HWC: npt.NDArray[np.uint8]) -> StreamPrediction:
        """Feed one cropped frame to a stream, taking turns with other work on the networks."""
        step = self._in_turn(lambda: stream.push(frame_HWC))
        index = int(step.logits_L.argmax())
        score = float(softmax(step.logits_L)[index])
        label = self.model.info.config.labels[index]
        return StreamPrediction(Prediction(label, index, score), step.width, step.ledger)


class FrameStream:
    """A stream of frames of any size; each is resized and cropped as a video's frames are."""

    def __init__(self, recognizer: Recognizer, stream: CausalStream) -> None:
        self._recognizer = recognizer
        self._stream = stream

    def push(self, frame_HWC: npt.NDArray[np.uint8]) -> StreamPrediction:
        """Feed one RGB frame.

        Raises:
            InvalidParameterError: it is not uint8 [H, W, 3], or its sides are out of the accepted range.
        """
        clip = self._recognizer.model.info.config.clip
        return self._recognizer.step(self._stream, resize_and_crop(frame_HWC, clip))

    def push_jpeg(self, data: bytes, *, deadline: float | None = None) -> StreamPrediction:
        """Feed one JPEG image, decoded in a jailed worker.

        Args:
            data: the file.
            deadline: `time.monotonic()` value by which it must be decoded.

        Raises:
            UndecodableVideoError: it is not a JPEG image that can be read.
            DeadlineExceededError: the deadline passed first; the stream is as it was.
        """
        frame_HWC = self._recognizer.decoders.decode_image(data, deadline=deadline)
        return self._recognizer.step(self._stream, frame_HWC)
