"""`sdcom bench parts`, `engine` and `saturation`: the networks alone, without files, decoders or a server.

Nothing here needs more than the engine chosen does.
"""

import gc
import statistics
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.table import Table

from sdcom.engine.bench import time_parts
from sdcom.engine.limits import Limits
from sdcom.engine.loading import check_compiled
from sdcom.engine.measure import measure_costs
from sdcom.engine.saturation import (
    Turn,
    budget_plans,
    full_width_plans,
    ideal_speedup,
    random_plans,
    time_saturation,
)
from sdcom.engine.simulate import MIX
from sdcom.errors import InvalidParameterError
from service.bench.networks import calibrated_mixes, planned_mixes, time_whole
from service.bench.options import (
    CompileOption,
    DeviceOption,
    EngineOption,
    ModelOption,
    OutputOption,
    PaperOption,
    PrecisionOption,
    RepeatsOption,
    ResolutionOption,
    StaticOption,
    ThreadsOption,
    backend_facts,
    open_backend,
    show,
)


def parts(
    *,
    model: ModelOption = None,
    paper: PaperOption = False,
    static: StaticOption = None,
    resolution: ResolutionOption = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    compiled: CompileOption = False,
    threads: ThreadsOption = 1,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Frames of one call, whole clips; one clip if not given. 256 fills a GPU."),
    ] = None,
    repeats: RepeatsOption = 7,
    output: OutputOption = None,
) -> None:
    """Time every part at every width, beside its FLOPs."""
    backend = open_backend(
        model,
        paper=paper,
        engine=engine,
        device=device,
        threads=threads,
        precision=precision,
        compiled=compiled,
        static=static,
        resolution=resolution,
    )
    length = backend.info.config.clip.num_frames
    num_videos = (batch or length) // length
    if num_videos < 1:
        raise InvalidParameterError(f"--batch must hold a clip of {length} frames, got {batch}")
    if compiled:
        check_compiled(backend.buckets, num_videos * length)
    timings = time_parts(backend, num_repeats=repeats, num_videos=num_videos)
    full = timings[-1]
    columns = ("part", "MACs a frame", "of full width", "ms a frame", "of full width", "frames/s")
    table = Table(*columns, box=None)
    for row in timings:
        shares = (row.macs / full.macs, row.ms / full.ms)
        times = (f"{row.ms:.4g}", f"{shares[1]:.3f}", f"{row.frames_per_s:,.0f}")
        table.add_row(row.name, f"{row.macs:,}", f"{shares[0]:.3f}", *times)
    show(table, output, {**backend_facts(backend, threads), "batch_frames": num_videos * length}, timings)


def engine(
    *,
    model: ModelOption = None,
    paper: PaperOption = False,
    static: StaticOption = None,
    resolution: ResolutionOption = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = 1,
    repeats: RepeatsOption = 7,
    output: OutputOption = None,
) -> None:
    """Time whole clips, at the mixes of widths that calibration found, against full width on every frame."""
    backend = open_backend(
        model,
        paper=paper,
        engine=engine,
        device=device,
        threads=threads,
        precision=precision,
        static=static,
        resolution=resolution,
    )
    mixes = calibrated_mixes(backend) if backend.info.calibration else planned_mixes(backend)
    rows = time_whole(backend, mixes, num_repeats=repeats)
    table = Table("", "GFLOPs a clip", "ms", "ideal speed-up", "speed-up", "of the ideal", box=None)
    for row in rows:
        figures = (f"{row.gmacs:.3f}", f"{row.ms:.2f}", f"{row.ideal_speedup:.2f}", f"{row.speedup:.2f}")
        table.add_row(row.name, *figures, f"{row.efficiency:.0%}")
    show(table, output, backend_facts(backend, threads), rows)


def saturation(
    *,
    model: ModelOption = None,
    paper: PaperOption = False,
    static: StaticOption = None,
    resolution: ResolutionOption = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    compiled: CompileOption = False,
    threads: ThreadsOption = 1,
    repeats: RepeatsOption = 5,
    videos: Annotated[int, typer.Option(min=1, help="In flight at once.")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Frames, or videos, of the largest batch.")] = 16,
    in_hand: Annotated[int, typer.Option(min=1, help="Batches that the scheduler has in hand.")] = 1,
    uploading: Annotated[int, typer.Option(min=1, help="Threads that submit videos.")] = 1,
    budget: Annotated[
        float | None,
        typer.Option(help="Share of the baseline's FLOPs, for a gate that knows nothing."),
    ] = None,
    full_frames: Annotated[
        int | None,
        typer.Option(help="Frames at full width instead, the others at 0."),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Time many videos at full width, by the stages driven directly in full batches, and scheduled.

    Frames are where the backend computes, but in the last row, whose time holds their way there.
    Without --budget or --full-frames, widths are drawn from a fixed mix.
    """
    backend = open_backend(
        model,
        paper=paper,
        engine=engine,
        device=device,
        threads=threads,
        precision=precision,
        compiled=compiled,
        static=static,
        resolution=resolution,
    )
    config = backend.info.config
    if compiled:
        check_compiled(backend.buckets, min(batch, videos * config.clip.num_frames))
    backend.prepare_thread()
    limits = Limits(
        max_batch_frames=min(batch, videos * config.clip.num_frames),
        max_batch_videos=min(batch, videos),
        max_frames_in_flight=videos * config.clip.num_frames,
        buckets=backend.buckets,
    )
    if full_frames is not None:
        plans = full_width_plans(config, full_frames, videos)
    elif budget is not None:
        plans = budget_plans(backend.info, budget, videos)
    else:
        plans = random_plans(config, MIX, videos)
    room = backend.open_room(2 * videos)
    costs = measure_costs(room, config, limits)
    gc.freeze()  # as the service does: a full collection would stop all threads to walk what is loaded
    turns = time_saturation(
        room,
        config,
        limits,
        costs,
        plans=plans,
        num_turns=repeats,
        num_in_hand=in_hand,
        num_uploading=uploading,
        initializer=backend.prepare_thread,
    )
    ideal = ideal_speedup(config, plans)
    facts = {"videos": videos, "batch_frames": batch, "in_hand": in_hand, "ideal_speedup": ideal}
    rows = [turn._asdict() for turn in turns]
    show(_saturation_table(turns, videos, ideal), output, {**backend_facts(backend, threads), **facts}, rows)


def _saturation_table(turns: Sequence[Turn], num_videos: int, ideal: float) -> Table:
    """Return the medians over the turns: of throughputs, and of each turn's own ratios."""

    def row(name: str, seconds_of: Callable[[Turn], float]) -> tuple[str, ...]:
        return (
            name,
            f"{statistics.median(num_videos / seconds_of(turn) for turn in turns):,.1f}",
            f"{statistics.median(turn.baseline_s / seconds_of(turn) for turn in turns):.2f}",
            f"{statistics.median(turn.direct_s / seconds_of(turn) for turn in turns):.0%}",
        )

    title = f"{1 - 1 / ideal:.1%} of FLOPs saved, ideal speed-up {ideal:.2f}"
    table = Table("", "videos/s", "speed-up", "throughput of direct", box=None, title=title)
    table.add_row(*row("full width on every frame", lambda turn: turn.baseline_s))
    table.add_row(*row("stages driven directly", lambda turn: turn.direct_s))
    table.add_row(*row("scheduled", lambda turn: turn.scheduled_s))
    table.add_row(*row("scheduled, frames uploaded", lambda turn: turn.uploaded_s))
    return table
