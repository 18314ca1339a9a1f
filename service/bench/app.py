"""`sdcom bench ...`."""

import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sdcom.engine.backend import Backend
from sdcom.engine.bench import time_parts
from sdcom.engine.limits import Limits
from sdcom.engine.loading import DeviceName, EngineName, load_backend, load_untrained_paper
from sdcom.engine.measure import measure_costs
from sdcom.engine.saturation import time_saturation
from sdcom.engine.simulate import MIX
from sdcom.engine.simulate import main as simulate
from sdcom.recognition import Budget
from sdcom.recognizer import Recognizer, bundled_model_dir
from sdcom.sampling import Sampling
from sdcom.video import DecoderPool
from sdcom.video.bench import main as decode
from service.bench.load import LoadRow, drive
from service.bench.networks import calibrated_mixes, planned_mixes, time_whole
from service.bench.requests import time_requests
from service.demo import ServerProcess

app = typer.Typer(help="Measure this machine: ratios of one run, medians.", no_args_is_help=True)

ModelOption = Annotated[
    Path | None,
    typer.Option(help="Model directory; the bundled model if not given.", envvar="SDCOM_MODEL_DIR"),
]
EngineOption = Annotated[EngineName, typer.Option(help="What runs the networks.")]
DeviceOption = Annotated[DeviceName, typer.Option(help="Where.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads of one network call.")]
RepeatsOption = Annotated[int, typer.Option(min=1, help="Turns; the median counts.")]
PaperOption = Annotated[
    bool,
    typer.Option(
        "--paper",
        help="The paper's networks instead of a model, in ONNX Runtime: MobileNetV2, slimmable ResNet-50, "
        "16 frames at 224 px, with random weights. Needs torch.",
    ),
]
OutputOption = Annotated[Path | None, typer.Option(help="File for the figures, as JSON.")]


@app.command()
def parts(
    *,
    model: ModelOption = None,
    paper: PaperOption = False,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    repeats: RepeatsOption = 7,
    output: OutputOption = None,
) -> None:
    """Time every part at every width, beside its FLOPs."""
    backend = _backend(model, engine, device, threads, paper=paper)
    timings = time_parts(backend, num_repeats=repeats)
    full = timings[-1]
    table = Table("part", "MACs a frame", "of full width", "ms a frame", "of full width", box=None)
    for row in timings:
        shares = (row.macs / full.macs, row.ms / full.ms)
        table.add_row(row.name, f"{row.macs:,}", f"{shares[0]:.3f}", f"{row.ms:.2f}", f"{shares[1]:.3f}")
    _show(table, output, backend_facts(backend.provider.name, threads), timings)


@app.command()
def engine(
    *,
    model: ModelOption = None,
    paper: PaperOption = False,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    repeats: RepeatsOption = 7,
    output: OutputOption = None,
) -> None:
    """Time whole clips, at the mixes of widths that calibration found, against full width on every frame."""
    backend = _backend(model, engine, device, threads, paper=paper)
    mixes = calibrated_mixes(backend) if backend.info.calibration else planned_mixes(backend)
    rows = time_whole(backend, mixes, num_repeats=repeats)
    table = Table("", "GFLOPs a clip", "ms", "ideal speed-up", "speed-up", "of the ideal", box=None)
    for row in rows:
        figures = (f"{row.gmacs:.3f}", f"{row.ms:.1f}", f"{row.ideal_speedup:.2f}", f"{row.speedup:.2f}")
        table.add_row(row.name, *figures, f"{row.efficiency:.0%}")
    _show(table, output, backend_facts(backend.provider.name, threads), rows)


@app.command()
def request(
    files: Annotated[list[Path], typer.Argument(help="Videos that decord can read.", metavar="FILE...")],
    *,
    model: ModelOption = None,
    paper: PaperOption = False,
    sampling: Annotated[Sampling, typer.Option(help="Which frames the composition looks at.")] = "centers",
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    repeats: RepeatsOption = 7,
    budget: Annotated[list[float] | None, typer.Option(help="Share of the baseline; may repeat.")] = None,
    confidence: Annotated[list[float] | None, typer.Option(help="Early exit; may repeat.")] = None,
    output: OutputOption = None,
) -> None:
    """Time files from their bytes to the answer, against decord and full width on every frame."""
    backend = _backend(model, engine, device, threads, paper=paper)
    calibrated = backend.info.default_budget is not None
    budgets: dict[str, Budget | None] = {"default budget" if calibrated else "unlimited": None}
    budgets |= {f"budget {share:g}": Budget(share=share) for share in budget or ()}
    exits = {f"early exit at {each:g}": each for each in confidence or ()}
    decoders = DecoderPool(backend.info.config.clip, num_workers=1, sampling=sampling)
    with Recognizer(backend, decoders) as recognizer:
        rows = time_requests(recognizer, files, budgets, exits, num_repeats=repeats)
        facts = backend_facts(recognizer.provider.name, threads)
    table = Table("file", "", "frames", "ms", "GFLOPs", "speed-up", box=None)
    for row in rows:
        figures = (f"{row.ms:.1f}", f"{row.gflops:.3f}", f"{row.speedup:.2f}")
        table.add_row(row.file, row.way, str(row.num_frames), *figures)
    _show(table, output, facts, rows)


app.command(name="decode")(decode)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def schedule(context: typer.Context) -> None:
    """Replay arrivals through the scheduler's decisions in virtual time, with the costs of a machine."""
    simulate(context.args)


@app.command()
def saturation(
    *,
    model: ModelOption = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    repeats: RepeatsOption = 5,
    videos: Annotated[int, typer.Option(min=1, help="In flight at once.")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Frames of the largest batch.")] = 16,
    output: OutputOption = None,
) -> None:
    """Time many videos through the scheduler, against its own stages driven directly in full batches."""
    backend = _backend(model, engine, device, threads, paper=False)
    backend.prepare_thread()
    config = backend.info.config
    limits = Limits(max_batch_frames=batch, max_frames_in_flight=videos * config.clip.num_frames)
    turns = time_saturation(
        backend,
        config,
        limits,
        measure_costs(backend, config, limits),
        mix=MIX,
        num_videos=videos,
        num_turns=repeats,
        initializer=backend.prepare_thread,
    )
    table = Table("turn", "direct s", "scheduled s", "throughput of direct", box=None)
    for number, turn in enumerate(turns, start=1):
        share = turn.direct_s / turn.scheduled_s
        table.add_row(str(number), f"{turn.direct_s:.2f}", f"{turn.scheduled_s:.2f}", f"{share:.0%}")
    median = statistics.median(turn.direct_s / turn.scheduled_s for turn in turns)
    table.add_row("median", "", "", f"{median:.0%}")
    rows = [turn._asdict() for turn in turns]
    _show(table, output, backend_facts(backend.provider.name, threads), rows)


@app.command()
def serve(
    *,
    url: Annotated[
        str | None, typer.Option(help="A running server; one of the bundled model is started if not given.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="What to post; the bundled sample if not given.")] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Arrivals a second; may repeat.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long each rate is kept up.")] = 20.0,
    deadline_s: Annotated[float, typer.Option(min=0.1, help="An answer after it is worth nothing.")] = 5.0,
    governor: Annotated[bool, typer.Option(help="Switch the governor on in the server started.")] = False,
    query: Annotated[str, typer.Option(help="Parameters of every request, as in a URL.")] = "",
    output: OutputOption = None,
) -> None:
    """Post a video at rising rates, whatever becomes of the requests before: percentiles, goodput, saving."""
    body = (video or bundled_model_dir() / "sample.mp4").read_bytes()
    with ExitStack() as stack:
        if url is None:
            server = stack.enter_context(ServerProcess({"SDCOM_GOVERNOR": str(governor).lower()}))
            url = f"http://127.0.0.1:{server.http_port}"
        rows = [
            drive(url, body, rate=each, seconds=seconds, query=query, deadline_s=deadline_s)
            for each in rate or (2.0, 5.0, 10.0, 20.0)
        ]
    columns = ("rate", "sent", "goodput", "p50 s", "p95 s", "p99 s", "saved", "min lam", "statuses")
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*_load_figures(row))
    _show(table, output, {"seconds": seconds, "deadline_s": deadline_s, "governor": governor}, rows)


def _backend(
    model: Path | None, engine: EngineName, device: DeviceName, threads: int, *, paper: bool
) -> Backend:
    if paper:
        return load_untrained_paper(num_threads=threads)
    return load_backend(model or bundled_model_dir(), engine=engine, device=device, num_threads=threads)


def _load_figures(row: LoadRow) -> tuple[str, ...]:
    latencies = (f"{row.latency_s[percent]:.2f}" if row.latency_s else "-" for percent in (50, 95, 99))
    statuses = ", ".join(f"{status}: {count}" for status, count in row.statuses.items())
    return (
        f"{row.rate:g}",
        str(row.num_requests),
        f"{row.goodput:.1f}",
        *latencies,
        "-" if row.saved is None else f"{row.saved:.1%}",
        f"{row.mean_min_lam:.2f}",
        statuses,
    )


def backend_facts(provider: str, threads: int) -> dict[str, Any]:
    """Return what figures of an engine depend on."""
    return {"provider": provider, "threads": threads}


def _show(table: Table, output: Path | None, facts: Mapping[str, Any], rows: Sequence[Any]) -> None:
    Console().print(table)
    if output is not None:
        written = [row if isinstance(row, dict) else asdict(row) for row in rows]
        document = {**facts, "rows": written}
        output.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
