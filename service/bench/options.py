"""What the benchmarks of the networks share: their options, the engine asked for, and their output."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sdcom.config import StaticArchitecture
from sdcom.engine.backend import Backend
from sdcom.engine.loading import DeviceName, EngineName, PrecisionName, load_backend, load_untrained_paper
from sdcom.errors import InvalidParameterError

ModelOption = Annotated[
    Path | None,
    typer.Option(help="Model directory; the bundled model if not given.", envvar="SDCOM_MODEL_DIR"),
]
EngineOption = Annotated[EngineName, typer.Option(help="What runs the networks.")]
DeviceOption = Annotated[DeviceName, typer.Option(help="Where.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads of one network call, on a processor.")]
PrecisionOption = Annotated[
    PrecisionName,
    typer.Option(
        help="int8: onnx on a processor; mixed, fp16, bf16: torch on a GPU; auto: mixed where safe."
    ),
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile torch's kernels for the largest batches, on a GPU.")
]
PaperOption = Annotated[
    bool,
    typer.Option(
        "--paper",
        help="The paper's networks instead of a model: MobileNetV2, slimmable ResNet-50, 16 frames at "
        "224 px, with random weights. Needs torch, whichever engine runs them.",
    ),
]
StaticOption = Annotated[
    StaticArchitecture | None, typer.Option(help="Another static network than the paper's, with --paper.")
]
ResolutionOption = Annotated[
    int | None, typer.Option(min=32, help="Pixels of the static network's input, with --paper; 224.")
]
RepeatsOption = Annotated[int, typer.Option(min=1, help="Turns; the median counts.")]
OutputOption = Annotated[Path | None, typer.Option(help="File for the figures, as JSON.")]


def open_backend(
    model: Path | None,
    *,
    paper: bool,
    engine: EngineName,
    device: DeviceName,
    threads: int,
    precision: PrecisionName = "auto",
    compiled: bool = False,
    static: StaticArchitecture | None = None,
    resolution: int | None = None,
) -> Backend:
    """Return the engine that the options ask for.

    Raises:
        InvalidParameterError: another static network is asked for, and not the paper's networks.
        SettingsError: the engine cannot be had so.
    """
    if paper:
        return load_untrained_paper(
            engine=engine,
            device=device,
            num_threads=threads,
            precision=precision,
            compiled=compiled,
            static=static or "mobilenet_v2",
            static_resolution=resolution or 224,
        )
    if static or resolution:
        raise InvalidParameterError("--static and --resolution change the paper's networks: add --paper")
    if model is None:
        from sdcom.recognizer import bundled_model_dir  # noqa: PLC0415 - brings the decoders

        model = bundled_model_dir()
    return load_backend(
        model,
        engine=engine,
        device=device,
        num_threads=threads,
        precision=precision,
        compiled=compiled,
    )


def backend_facts(backend: Backend, threads: int) -> dict[str, Any]:
    """Return what figures of an engine depend on."""
    config = backend.info.config
    return {
        "model": backend.info.full_name,
        "static": f"{config.static} at {config.static_resolution} px",
        "dynamic": config.dynamic,
        **{f"provider_{name}": value for name, value in asdict(backend.provider).items()},
        "threads": threads,
    }


def show(table: Table, output: Path | None, facts: Mapping[str, Any], rows: Sequence[Any]) -> None:
    """Print a table, and write its figures with what they depend on."""
    console = Console()
    console.print(*(f"{value}" for value in facts.values() if isinstance(value, str) and value), sep=", ")
    console.print(table)
    if output is not None:
        written = [row if isinstance(row, dict) else asdict(row) for row in rows]
        document = {**facts, "rows": written}
        output.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
