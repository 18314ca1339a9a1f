"""`sdcom calibrate --hardware`: what each part of a model takes on this machine. Needs no torch."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sdcom.described import hardware_table
from sdcom.engine.hardware import HARDWARE_FILE, measure_hardware, save_hardware
from sdcom.engine.loading import DeviceName, EngineName, PrecisionName, load_backend
from sdcom.processors import num_network_threads
from sdcom.recognizer import bundled_model_dir

app = typer.Typer(add_completion=False)


@app.command()
def measure(
    model: Annotated[
        Path | None,
        typer.Argument(help="Model directory; the bundled model if not given.", envvar="SDCOM_MODEL_DIR"),
    ] = None,
    *,
    engine: Annotated[EngineName, typer.Option(help="What runs the networks.")] = "auto",
    device: Annotated[DeviceName, typer.Option(help="Where.")] = "auto",
    precision: Annotated[
        PrecisionName,
        typer.Option(
            help="int8: onnx on a processor; mixed, fp16, bf16: torch on a GPU; auto: mixed where safe."
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of one network call; half of the processors if not given."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each part; the median counts.")] = 21,
) -> None:
    """Measure what each part and width takes on this machine, for budgets in milliseconds.

    Writes it into the model directory. It applies where the model is loaded on this machine with the same
    engine, device and number of threads. Measure while nothing else runs.
    """
    directory, num_threads = model or bundled_model_dir(), threads or num_network_threads()
    backend = load_backend(
        directory, engine=engine, device=device, num_threads=num_threads, precision=precision
    )
    measured = measure_hardware(backend, num_threads=num_threads, num_repeats=repeats)
    console = Console(highlight=False)
    console.print(hardware_table(measured))
    save_hardware(directory, measured)
    console.print(f"written to {directory / HARDWARE_FILE}", markup=False, soft_wrap=True)
