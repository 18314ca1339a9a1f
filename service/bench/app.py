"""`sdcom bench ...`. What a command does not need is not imported: decoders, a server, an engine."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sdcom.engine.simulate import main as simulate
from sdcom.recognition import Budget
from sdcom.sampling import Sampling
from service.bench import engines
from service.bench.load import LoadRow, drive
from service.bench.options import (
    DeviceOption,
    EngineOption,
    ModelOption,
    OutputOption,
    PaperOption,
    PrecisionOption,
    RepeatsOption,
    ThreadsOption,
    backend_facts,
    open_backend,
    show,
)
from service.bench.plots.command import plots

app = typer.Typer(
    help="Measure this machine: ratios of one run, medians.", no_args_is_help=True, add_completion=False
)
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app.command()(engines.parts)
app.command()(engines.engine)


@app.command()
def request(
    files: Annotated[list[Path], typer.Argument(help="Videos that decord can read.", metavar="FILE...")],
    *,
    model: ModelOption = None,
    paper: PaperOption = False,
    sampling: Annotated[
        Sampling, typer.Option(help="Which frames the composition looks at.", envvar="SDCOM_SAMPLING")
    ] = "centers",
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = 1,
    repeats: RepeatsOption = 7,
    budget: Annotated[list[float] | None, typer.Option(help="Share of the baseline; may repeat.")] = None,
    confidence: Annotated[list[float] | None, typer.Option(help="Early exit; may repeat.")] = None,
    output: OutputOption = None,
) -> None:
    """Time files from their bytes to the answer, against decord and full width on every frame."""
    from sdcom.recognizer import Recognizer  # noqa: PLC0415 - brings the decoders, which only files need
    from sdcom.video import DecoderPool  # noqa: PLC0415
    from service.bench.requests import time_requests  # noqa: PLC0415

    backend = open_backend(
        model,
        paper=paper,
        engine=engine,
        device=device,
        threads=threads,
        precision=precision,
    )
    calibrated = backend.info.default_budget is not None
    budgets: dict[str, Budget | None] = {"default budget" if calibrated else "unlimited": None}
    budgets |= {f"budget {share:g}": Budget(share=share) for share in budget or ()}
    exits = {f"early exit at {each:g}": each for each in confidence or ()}
    decoders = DecoderPool(backend.info.config.clip, num_workers=1, sampling=sampling)
    with Recognizer(backend, decoders) as recognizer:
        rows = time_requests(recognizer, files, budgets, exits, num_repeats=repeats)
        facts = backend_facts(backend, threads)
    table = Table("file", "", "frames", "ms", "GFLOPs", "speed-up", box=None)
    for row in rows:
        figures = (f"{row.ms:.1f}", f"{row.gflops:.3f}", f"{row.speedup:.2f}")
        table.add_row(row.file, row.way, str(row.num_frames), *figures)
    show(table, output, facts, rows)


@app.command(context_settings=PASSED_ON, add_help_option=False)
def decode(context: typer.Context) -> None:
    """Time decoding the frames of generated clips, beside decord."""
    from sdcom.video.bench import main  # noqa: PLC0415 - brings the decoders

    _pass_on(context, main)


@app.command(name="peers", context_settings=PASSED_ON, add_help_option=False)
def compare_peers(context: typer.Context) -> None:
    """Find the throughput at one p99 of this server, and of LitServe and Ray Serve with the same networks."""
    from service.bench.peers.command import peers  # noqa: PLC0415 - brings the decoders

    _pass_on(context, peers)


def _pass_on(context: typer.Context, main: Callable[..., None]) -> None:
    command = typer.Typer(add_completion=False)
    command.command()(main)
    command(context.args, prog_name=context.command_path)


app.command()(plots)


@app.command(context_settings=PASSED_ON, add_help_option=False)
def schedule(context: typer.Context) -> None:
    """Replay arrivals through the scheduler's decisions in virtual time, with the costs of a machine."""
    simulate(context.args)


app.command()(engines.saturation)


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
    from sdcom.recognizer import bundled_model_dir  # noqa: PLC0415 - brings the decoders
    from service.demo import ServerProcess  # noqa: PLC0415

    body = (video or bundled_model_dir() / "sample.mp4").read_bytes()
    with ExitStack() as stack:
        if url is None:
            server = stack.enter_context(ServerProcess({"SDCOM_GOVERNOR": str(governor).lower()}))
            url = f"http://127.0.0.1:{server.http_port}"
        rows = [
            drive(url, body, rate=each, seconds=seconds, query=query, deadline_s=deadline_s)
            for each in rate or (2.0, 5.0, 10.0, 20.0)
        ]
    columns = ("rate", "sent", "goodput", "p50 s", "p95 s", "p99 s", "saved", "max budget", "statuses")
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*_load_figures(row))
    show(table, output, {"seconds": seconds, "deadline_s": deadline_s, "governor": governor}, rows)


def _load_figures(row: LoadRow) -> tuple[str, ...]:
    latencies = (f"{row.latency_s[percent]:.2f}" if row.latency_s else "-" for percent in (50, 95, 99))
    statuses = ", ".join(f"{status}: {count}" for status, count in row.statuses.items())
    return (
        f"{row.rate:g}",
        str(row.num_requests),
        f"{row.goodput:.1f}",
        *latencies,
        "-" if row.saved is None else f"{row.saved:.1%}",
        f"{row.mean_max_budget:.2f}",
        statuses,
    )
