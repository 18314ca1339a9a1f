"""The front door: a video in, a `Recognition` out. Every transport enters here."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from importlib import resources
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

import numpy as np

from sdcom.answer import Asked, Submitted, answerer
from sdcom.budget import WidthPlan
from sdcom.cancellation import Cancellation
from sdcom.checkpoint import ModelInfo
from sdcom.engine.backend import Backend
from sdcom.engine.composed import Composed
from sdcom.engine.composition import compose_video
from sdcom.engine.early_exit import compose_until_confident
from sdcom.engine.hardware import HardwareCosts, applying, load_hardware
from sdcom.engine.ledger import Part
from sdcom.engine.loading import DeviceName, EngineName, PrecisionName, check_compiled, load_backend
from sdcom.engine.planning import stream_price, video_allowance, video_planner
from sdcom.engine.turns import Apart, Together, Turns, turns_for
from sdcom.errors import InvalidParameterError
from sdcom.frame_stream import FrameStream
from sdcom.processors import num_network_threads, num_processors
from sdcom.recognition import (
    Budget,
    Provider,
    Recognition,
)
from sdcom.sampling import Sampling, feeding_order
from sdcom.video import DecodeLimits, DecoderPool

Answer = TypeVar("Answer")


def bundled_model_dir() -> Path:
    """Return the directory of the model that ships with the package."""
    return Path(str(resources.files("sdcom"))) / "bundled"


class Recognizer:
    """A model and its decoders: both work on several videos at once.

    Args:
        backend: runs the model's networks.
        decoders: a running pool, closed with this recognizer.
        turns: who gets the networks when; one video after the other if not given. Closed with this
            recognizer.
        hardware: what each part takes here, for budgets in milliseconds; None is not measured.

    Attributes:
        backend: that.
        decoders: those.
        info: the model.
    """

    def __init__(
        self,
        backend: Backend,
        decoders: DecoderPool,
        *,
        turns: Turns | None = None,
        hardware: HardwareCosts | None = None,
    ) -> None:
        self.backend = backend
        self.decoders = decoders
        self.info: ModelInfo = backend.info
        self._hardware = hardware
        clip = self.info.config.clip
        self._order_T = feeding_order(clip.num_frames, clip.order)
        self._turns = turns or Apart(backend)

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
        engine: EngineName = "auto",
        device: DeviceName = "auto",
        precision: PrecisionName = "auto",
        compiled: bool = False,
        batching: bool | None = None,
        num_network_workers: int | None = None,
    ) -> Self:
        """Load a model and start its decode workers.

        Args:
            model_dir: a model directory; None is the bundled model.
            limits: what the decoders accept.
            num_decode_workers: decode processes; None is one per processor that may be used.
            sampling: which frame of each of a video's equal stretches is looked at.
            on_restart: called with the reason whenever a decode worker is replaced.
            num_threads: threads of one network call; None is half of the processors.
            engine: what runs the networks (`sdcom.engine.loading.load_backend`).
            device: where.
            precision: "fp32", "mixed", "fp16", "bf16" or "int8"; "auto" is "mixed" (float16, but float32
                where widths are decided) for torch on a GPU where the networks are known to stay within
                float16, else "fp32".
            compiled: torch on a GPU has kernels compiled for the largest batches, which there are only with
                `batching`.
            batching: batches across videos; None has them everywhere but on a processor, which they do not
                make faster.
            num_network_workers: videos in the networks at once, where each is computed by itself; None is one
                per processor for ONNX Runtime on processors, else one.

        Raises:
            ModelDirectoryError: the directory is not a whole, readable model.
            SettingsError: the engine or the device cannot be had, nothing would run compiled, or several
                workers are asked for where there can be but one.
        """
        directory, num_threads = model_dir or bundled_model_dir(), num_threads or num_network_threads()
        backend = load_backend(
            directory,
            engine=engine,
            device=device,
            num_threads=num_threads,
            precision=precision,
            compiled=compiled,
        )
        if compiled and batching is False:
            check_compiled(backend.buckets, backend.info.config.clip.num_frames)
        hardware = applying(load_hardware(directory), backend.info, backend.provider, num_threads)
        num_workers = num_decode_workers or num_processors()
        turns = turns_for(  # before decoders are busy
            backend, batching, num_videos=num_workers + 1, num_workers=num_network_workers
        )
        try:
            decoders = DecoderPool(
                backend.info.config.clip,
                limits or DecodeLimits(),
                num_workers=num_workers,
                on_restart=on_restart,
                sampling=sampling,
            )
        except BaseException:
            turns.close()
            raise
        return cls(backend, decoders, turns=turns, hardware=hardware)

    @property
    def provider(self) -> Provider:
        """What computes the networks."""
        return self.backend.provider

    def executed_macs(self) -> Counter[Part]:
        """Return what has been executed, by part: for answers, and for none.

        Beyond the answers' ledgers that is padding, failed batches, and what videos had cost that were given
        up. Warming up and measuring are not in it.
        """
        return self._turns.backend.executed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the decode workers, and the networks after the work at hand; other recognitions fail."""
        try:
            self.decoders.close()
        finally:
            self._turns.close()

    def warm_up(self) -> None:
        """Run the networks at every width and size of batch: the first request shall not be the slow one."""
        clip = self.info.config.clip
        frames_THWC = np.zeros((clip.num_frames, clip.crop, clip.crop, 3), dtype=np.uint8)
        macs_K = self.info.macs.dynamic_by_choice

        def run_at(choice: int) -> Composed:
            plan = WidthPlan((choice,) * clip.num_frames, 0.0, macs_K[choice] * clip.num_frames)
            return compose_video(self.backend, frames_THWC, lambda _: plan)

        in_batches = isinstance(self._turns, Together)  # whose sizes ran when their costs were measured
        if not in_batches:
            for choice in range(len(macs_K)):
                self._turns.call(partial(run_at, choice))
        most = 2 if in_batches else clip.num_frames  # frames come one by one from streams alone
        for size in (bucket for bucket in self.backend.buckets if bucket < most):
            self._turns.call(partial(self.backend.look, frames_THWC[:size]))
            for width in self.info.config.widths[1:]:
                self._turns.call(partial(self.backend.fill, frames_THWC[:size], width))

    def recognize(
        self,
        source: BinaryIO | Path | str,
        *,
        top_k: int = 5,
        budget: Budget | None = None,
        min_confidence: float | None = None,
        max_budget: float = 1.0,
        deadline: float | None = None,
    ) -> Recognition:
        """Recognise one video file: `submit` it, and wait for the answer."""
        submitted = self.submit(
            source,
            top_k=top_k,
            budget=budget,
            min_confidence=min_confidence,
            max_budget=max_budget,
            deadline=deadline,
        )
        return submitted.result()

    def submit(
        self,
        source: BinaryIO | Path | str,
        *,
        top_k: int = 5,
        budget: Budget | None = None,
        min_confidence: float | None = None,
        max_budget: float = 1.0,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Submitted:
        """Decode one video file and hand its frames to the networks, without waiting for their answer.

        Waits for a decoder, and while the networks have as many videos as there is room for. With
        `min_confidence` the answer is there when it returns: what is decoded and what is computed depend on
        each other.

        Args:
            source: a path, or an open binary file that has a real file descriptor.
            top_k: classes to return, at least 1; more than there are classes means all.
            budget: what the video may cost; None is the model's default.
            min_confidence: probability of the best class, 0 to 1, at which no more frames are looked at; None
                looks at all.
            max_budget: share of the baseline's FLOPs that the video may cost at most, whatever the budget
                would allow: a busy service spends less so. One below the floor is the floor; 1 is no limit.
            deadline: `time.monotonic()` value after which the answer is not wanted.
            cancellation: ends the work early once the answer is not wanted.

        Raises:
            InvalidParameterError: `top_k` is below 1, `min_confidence` or `max_budget` out of range, or the
                budget in milliseconds and those not measured here.
            BudgetBelowFloorError: the budget cannot pay for the static network, gate and fusion.
            VideoRejectedError: the file is not a video that can be recognised.
            DeadlineExceededError: the deadline passed first.
            OverloadedError: this recognizer is closed.
            CancelledError: it was cancelled.
        """
        if top_k < 1:
            raise InvalidParameterError(f"top_k must be at least 1, got {top_k}")
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise InvalidParameterError(f"min_confidence must be between 0 and 1, got {min_confidence}")
        if not 0 <= max_budget <= 1:
            raise InvalidParameterError(f"max_budget must be between 0 and 1, got {max_budget}")
        if isinstance(source, str):
            source = Path(source)
        asked = Asked(top_k, max_budget, deadline, cancellation or Cancellation())
        if min_confidence is None:
            return self._submit_whole(source, budget, asked)
        return self._until_confident(source, budget, min_confidence, asked)

    def _submit_whole(self, source: BinaryIO | Path, budget: Budget | None, asked: Asked) -> Submitted:
        planner = video_planner(self.info, budget, hardware=self._hardware, max_budget=asked.max_budget)
        started = time.perf_counter()
        clip = self.decoders.decode(source, deadline=asked.deadline)
        decoded = time.perf_counter()
        asked.cancellation.check()
        composed = self._turns.submit(
            clip.frames_THWC[self._order_T],
            planner,
            clip.pictures(self._order_T),
            deadline=asked.deadline,
            cancellation=asked.cancellation,
        )
        waits_s = {"queue": time.perf_counter() - decoded, "decode": decoded - started}
        return Submitted(composed, answerer(self.info, clip, asked, waits_s))

    def _until_confident(
        self, source: BinaryIO | Path, budget: Budget | None, confidence: float, asked: Asked
    ) -> Submitted:
        """Compose frame by frame, decoding no more than is asked for; the answer is there on return."""
        allowance = video_allowance(self.info, budget, hardware=self._hardware, max_budget=asked.max_budget)

        def in_turn(step: Callable[[], Answer]) -> Answer:
            asked.cancellation.check()
            return self._turns.call(step)

        with self.decoders.decode_on_demand(source, deadline=asked.deadline) as coming:
            composed = compose_until_confident(
                self._turns.backend,
                coming.frames(self._order_T, before_round=asked.cancellation.check),
                confidence=confidence,
                pictures_T=coming.clip.pictures(self._order_T),
                allowance=allowance,
                deadline=asked.deadline,
                in_turn=in_turn,
            )
        done = Future[Composed]()
        done.set_result(composed)
        waits_s = {"queue": 0.0, "decode": coming.decode_s}
        return Submitted(done, answerer(self.info, coming.clip, asked, waits_s))

    def open_stream(self, *, budget: Budget | None = None) -> FrameStream:
        """Open a stream of frames, whose budget is kept on average (`sdcom.engine.planning.stream_price`).

        Raises:
            BudgetBelowFloorError: the budget named cannot pay for the static network, gate and fusion.
            InvalidParameterError: a budget is named and the model was never calibrated, or it is in
                milliseconds.
        """
        return FrameStream(self.info, stream_price(self.info, budget), self.decoders, self._turns)
