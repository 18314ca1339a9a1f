"""`sdcom bench peers`."""

import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sdcom.checkpoint import load_info
from sdcom.engine.loading import write_untrained_paper
from sdcom.processors import num_network_threads, num_processors, processor_name
from sdcom.recognizer import bundled_model_dir
from sdcom.sampling import Sampling
from service.bench.options import ModelOption, OutputOption, PaperOption, RepeatsOption
from service.bench.peers.comparison import Standing, contenders, measure, standings, take_turns, tried
from service.bench.peers.process import require_peers

_PACKAGES = ("av", "decord", "litserve", "numpy", "onnxruntime", "ray")


def peers(
    *,
    model: ModelOption = None,
    paper: PaperOption = False,
    video: Annotated[Path | None, typer.Option(help="What to post; the bundled sample if not given.")] = None,
    budget: Annotated[float | None, typer.Option(help="Share of the baseline; the model's default.")] = None,
    sampling: Annotated[Sampling, typer.Option(help="Which frames our own server looks at.")] = "centers",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of a network call of our own server; half of the processors.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Of each peer; one a processor.")] = None,
    p99_s: Annotated[float, typer.Option(min=0.01, help="99 in 100 must be answered within it.")] = 1.0,
    first_rate: Annotated[float, typer.Option(min=0.01, help="Arrivals a second to begin with.")] = 8.0,
    seconds: Annotated[float, typer.Option(min=1, help="How long each rate is kept up.")] = 10.0,
    repeats: RepeatsOption = 3,
    output: OutputOption = None,
) -> None:
    """Find the throughput at one p99 of this server, and of LitServe and Ray Serve with the same networks."""
    require_peers()
    sent = video or bundled_model_dir() / "sample.mp4"
    num_workers, num_threads = workers or num_processors(), threads or num_network_threads()
    with _model_dir(model, paper=paper) as model_dir:
        facts = {
            **_machine(),
            "model": load_info(model_dir).full_name,
            "video": sent.name,
            "budget": budget,
            "sampling": sampling,
            "threads": num_threads,
            "workers": num_workers,
            "p99_s": p99_s,
            "seconds": seconds,
        }
        settings = {
            "SDCOM_MODEL_DIR": str(model_dir),
            "SDCOM_SAMPLING": sampling,
            "SDCOM_THREADS": str(num_threads),
        }
        entrants = contenders(model_dir, settings, budget=budget, num_workers=num_workers)
        turns = take_turns(
            track(entrants * repeats, "servers", console=Console(stderr=True), transient=True),
            partial(measure, body=sent.read_bytes(), first=first_rate, seconds=seconds, p99_s=p99_s),
        )
    rows = standings(turns)
    Console().print(_table(rows, p99_s))
    if output is not None:
        document = {**facts, "rows": [asdict(row) for row in rows], "tried": tried(turns)}
        output.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


@contextmanager
def _model_dir(model: Path | None, *, paper: bool) -> Iterator[Path]:
    if not paper:
        yield model or bundled_model_dir()
        return
    with TemporaryDirectory() as folder:
        write_untrained_paper(Path(folder))
        yield Path(folder)


def _machine() -> dict[str, Any]:
    return {
        "machine": processor_name(),
        "processors": num_processors(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def _table(rows: Sequence[Standing], p99_s: float) -> Table:
    columns = ("server", "network", "answers/s", "times less", "turns", "p50 s", "p95 s", "p99 s", "saved")
    table = Table(*columns, title=f"highest rate with p99 within {p99_s:g} s", box=None)
    for row in rows:
        best = row.best
        latencies = [f"{best.latency_s[percent]:.2f}" if best else "-" for percent in (50, 95, 99)]
        table.add_row(
            row.server,
            row.network,
            f"{row.throughput:.1f}",
            "-" if row.times_less is None else f"{row.times_less:.2f}",
            ", ".join(f"{turn:.1f}" for turn in row.turns),
            *latencies,
            "-" if best is None or best.saved is None else f"{best.saved:.1%}",
        )
    return table
