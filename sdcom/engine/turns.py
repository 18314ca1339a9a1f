"""Whose turn it is: videos by themselves, or batches of the frames of all that are in flight."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

from sdcom.cancellation import Cancellation
from sdcom.engine.backend import Backend, Room, UInt8Array
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.composition import compose_video
from sdcom.engine.costs import CostTable
from sdcom.engine.limits import Limits
from sdcom.engine.measure import measure_costs
from sdcom.engine.memory import ran_out_of_memory
from sdcom.engine.metered import Metered
from sdcom.engine.places import Places, left_s, too_late
from sdcom.engine.repeats import Pictures
from sdcom.engine.scheduler import Scheduler
from sdcom.engine.threads import result_on, submit_on
from sdcom.errors import DeadlineExceededError, SettingsError
from sdcom.processors import num_processors

Answer = TypeVar("Answer")

MOST_AT_ONCE = 256
"""Frames, or videos, of one batch: enough for the largest GPU (docs/adr/0007-scheduler.md)."""
MOST_AT_ONCE_ON_PROCESSOR = 32
"""The same for a processor, where larger batches gain nothing and take long to measure."""
BATCHES_IN_FLIGHT = 64
"""Frames of all videos in flight are so many of the largest batches: enough that a width that one frame of a
video takes fills batches while others are looked at (docs/adr/0010)."""
BATCHES_IN_FLIGHT_ON_PROCESSOR = 16
"""The same for a processor, where fuller batches gain nothing."""
BATCHES_IN_HAND = 12
"""Batches begun at once on a device that computes by itself: what it does while Python keeps the books."""


class Turns(Protocol):
    """Says who gets the networks when. For any thread."""

    @property
    def backend(self) -> Metered:
        """The networks, for `call`; they count whatever runs on them here."""

    def submit(
        self,
        frames_THWC: UInt8Array,
        planner: Planner,
        pictures_T: Pictures | None = None,
        *,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Future[Composed]:
        """Hand over one video's frames, in feeding order, to be run through the composition.

        Waits while the networks have as many videos as they hold at once.

        Args:
            frames_THWC: not to be changed before the future is done.
            planner: chooses their widths.
            pictures_T: what each frame shows; None: each another picture.
            deadline: `time.monotonic()` value after which the answer is not wanted.
            cancellation: cancels the future with its caller, the wait included.

        Returns:
            A future. It may end with DeadlineExceededError, or with OverloadedError if the networks close
            first.

        Raises:
            DeadlineExceededError: the deadline passed before there was room.
            OverloadedError: the networks are closed.
        """

    def call(self, work: Callable[[], Answer]) -> Answer:
        """Run other work of the networks on a thread of theirs, in turn.

        Raises:
            OverloadedError: the networks are closed.
        """

    def close(self) -> None:
        """End after the work at hand; what waits fails with OverloadedError."""


class Apart:
    """Each video by itself, first come, first served; the same bytes give the same answer.

    On threads of the networks' own: each thread that calls torch gets OpenMP threads of its own, and leaves
    them spinning on the processors that the next call needs.

    Args:
        backend: of the model; called from as many threads at once as there are workers.
        num_workers: threads, each of which computes one video at a time.
    """

    def __init__(self, backend: Backend, *, num_workers: int = 1) -> None:
        self.backend = Metered(backend)
        self._workers = ThreadPoolExecutor(
            num_workers, thread_name_prefix="networks", initializer=backend.prepare_thread
        )

    def submit(
        self,
        frames_THWC: UInt8Array,
        planner: Planner,
        pictures_T: Pictures | None = None,
        *,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Future[Composed]:
        """Hand over one video's frames, to be run through the composition alone; return when it begins."""
        begun = threading.Event()

        def run() -> Composed:
            begun.set()
            if deadline is not None and time.monotonic() > deadline:
                raise DeadlineExceededError(
                    "the deadline passed before the networks ran; allow a larger deadline_ms"
                )
            return compose_video(self.backend, frames_THWC, planner, pictures_T)

        future = submit_on(self._workers, run)
        future.add_done_callback(lambda _: begun.set())
        if cancellation is not None:
            cancellation.follow(future)
        if not begun.wait(left_s(deadline)) and future.cancel():  # or it began at the last moment
            raise too_late()
        return future

    def call(self, work: Callable[[], Answer]) -> Answer:
        """Run work on one of the networks' threads, in turn."""
        return result_on(self._workers, work)

    def close(self) -> None:
        """End after the work at hand; what waits fails with OverloadedError."""
        self._workers.shutdown(cancel_futures=True)


class Together:
    """Batches by stage and width across all videos in flight (`sdcom.engine.scheduler`).

    Answers may differ in their last digits with what else is in flight.

    Args:
        backend: of a model without temporal shift; what its batches cost is measured first.
        num_videos: that are in flight at once; half as many, and so on, where the device has no memory for
            them.
        most_at_once: frames, or videos, of one batch.
    """

    def __init__(self, backend: Backend, *, num_videos: int, most_at_once: int = MOST_AT_ONCE) -> None:
        backend.prepare_thread()
        opened = _opened_where_it_fits(backend, num_videos, most_at_once)
        room, limits = opened.room, opened.limits
        self.backend = Metered(backend)
        self._places = Places(opened.num_videos)  # the scheduler has room for as many
        self._scheduler = Scheduler(
            self.backend.meter(room),
            backend.info.config,
            limits,
            costs=opened.costs,
            num_in_hand=BATCHES_IN_HAND if room.runs_ahead else 1,
            initializer=backend.prepare_thread,
        )

    def submit(
        self,
        frames_THWC: UInt8Array,
        planner: Planner,
        pictures_T: Pictures | None = None,
        *,
        deadline: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Future[Composed]:
        """Hand over one video's frames, to be run through the composition in batches with others."""
        return self._places.submit(
            lambda: self._scheduler.submit(frames_THWC, planner, pictures_T, deadline=deadline),
            deadline=deadline,
            cancellation=cancellation,
        )

    def call(self, work: Callable[[], Answer]) -> Answer:
        """Run work on the backend's thread, between batches."""
        return self._scheduler.call(work)

    def close(self) -> None:
        """Fail what is in flight, and end."""
        self._scheduler.close()


class _Opened(NamedTuple):
    """Room for some videos, what may be in flight there, and what its batches cost."""

    num_videos: int
    room: Room
    limits: Limits
    costs: CostTable


def _opened_where_it_fits(backend: Backend, num_videos: int, most_at_once: int) -> _Opened:
    """Open room for so many videos, or for half as many and so on, beside which batches have memory."""
    while True:
        try:
            return _opened(backend, num_videos, most_at_once)
        except Exception as exc:
            if num_videos == 1 or not ran_out_of_memory(exc):
                raise
            num_videos //= 2


def _opened(backend: Backend, num_videos: int, most_at_once: int) -> _Opened:
    config = backend.info.config
    num_frames = num_videos * config.clip.num_frames
    limits = Limits(
        max_batch_frames=min(num_frames, most_at_once),
        max_batch_videos=min(num_videos, most_at_once),
        max_frames_in_flight=num_frames,
        buckets=backend.buckets,
    )
    room = backend.open_room(num_videos)
    return _Opened(num_videos, room, limits, measure_costs(room, config, limits))


def turns_for(
    backend: Backend, batching: bool | None, *, num_videos: int, num_workers: int | None = None
) -> Turns:
    """Return batches across videos, or each by itself, as asked or as the device likes it.

    Args:
        backend: of the model.
        batching: what was asked for; None has batches everywhere but on a processor, which they do not make
            faster.
        num_videos: in flight at once, at least, where batches are made of them.
        num_workers: videos computed at once, each by itself; None is one per processor for ONNX Runtime on
            processors, else one.

    Raises:
        SettingsError: batches were asked for, and the model has a temporal shift; or several workers where
            there can be but one.
    """
    shifts = backend.info.config.temporal_shift
    if batching and shifts:
        raise SettingsError(
            f"{backend.info.full_name} has a temporal shift: its frames cannot share batches with others'"
        )
    on_processor = backend.provider.on_processor
    if batching is None:
        batching = not (shifts or on_processor)
    if (batching or not on_processor) and num_workers is not None and num_workers > 1:
        where = f"{backend.provider.name} in batches" if batching else backend.provider.name
        raise SettingsError(
            f"one thread calls the networks on {where}: {num_workers} network workers "
            "(SDCOM_NETWORK_WORKERS) need a processor, and no batches (SDCOM_BATCHING)"
        )
    if not batching:
        return Apart(backend, num_workers=num_workers or _default_num_workers(backend))
    most_at_once, num_batches = (
        (MOST_AT_ONCE_ON_PROCESSOR, BATCHES_IN_FLIGHT_ON_PROCESSOR)
        if on_processor
        else (MOST_AT_ONCE, BATCHES_IN_FLIGHT)
    )
    num_in_flight = num_batches * most_at_once // backend.info.config.clip.num_frames
    return Together(backend, num_videos=max(num_videos, num_in_flight), most_at_once=most_at_once)


def _default_num_workers(backend: Backend) -> int:
    """Return one per processor where threads of several callers do not get into each other's way."""
    provider = backend.provider
    return num_processors() if provider.on_processor and provider.name.startswith("onnxruntime") else 1
