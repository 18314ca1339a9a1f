"""The `sdcom` command: the only file of this package that reaches up, lazily, into the other two."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from sdcom.errors import InvalidParameterError, SdcomError, SettingsError
from sdcom.processors import num_processors

if TYPE_CHECKING:
    from sdcom.recognition import Recognition, VideoFacts
    from sdcom.recognizer import Recognizer

app = typer.Typer(
    name="sdcom",
    help="Video recognition within a compute budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

MODEL_HELP = "Model directory; the bundled model if not given."
MODEL_VARIABLE = "SDCOM_MODEL_DIR"  # which the service reads too
ModelOption = Annotated[Path | None, typer.Option(help=MODEL_HELP, envvar=MODEL_VARIABLE)]
ModelArgument = Annotated[Path | None, typer.Argument(help=MODEL_HELP, envvar=MODEL_VARIABLE)]


def main() -> None:
    """Run the command line; an error of ours is one line and a non-zero exit."""
    try:
        app()
    except SdcomError as error:
        Console(stderr=True, soft_wrap=True).print(f"sdcom: {error}", markup=False, highlight=False)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    except OSError as error:  # a missing file, a full disk, a server that is not there
        Console(stderr=True, soft_wrap=True).print(f"sdcom: {error}", markup=False, highlight=False)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sdcom {version('sdcom')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Video recognition within a compute budget."""


@app.command()
def serve(
    model: ModelOption = None,
    host: Annotated[str | None, typer.Option(help="Address of both transports.")] = None,
    port: Annotated[int | None, typer.Option(help="REST port; 0 picks a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port; 0 picks a free one.")] = None,
) -> None:
    """Serve REST and gRPC until SIGTERM. Everything else is set by SDCOM_* variables (docs/operations.md)."""
    from service.settings import load_settings

    settings = load_settings(model_dir=model, host=host, http_port=port, grpc_port=grpc_port)
    from service.server import serve as run_server  # the networks load only once the settings are right

    run_server(settings)


@app.command()
def recognize(
    files: Annotated[list[Path], typer.Argument(help="Video files.", metavar="FILE...")],
    *,
    model: ModelOption = None,
    budget: Annotated[
        float | None, typer.Option(help="Share of the baseline's FLOPs that a video may cost, 0 to 1.")
    ] = None,
    max_gflops: Annotated[float | None, typer.Option(help="GFLOPs that a video may cost.")] = None,
    max_ms: Annotated[
        float | None,
        typer.Option(
            help="Milliseconds of the networks that a video may cost (`sdcom calibrate --hardware`)."
        ),
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Score of the best class at which no more frames are looked at.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Predictions for each file.")] = 5,
) -> None:
    """Recognise video files without a server, with the service's settings (SDCOM_*, docs/operations.md).

    A table on a terminal, else one line of JSON a file. A file that cannot be recognised gets its error, the
    others are done all the same, and the exit code is 1.
    """
    from sdcom.recognition import Budget
    from sdcom.recognizer import Recognizer
    from service.settings import load_settings

    named = {"share": budget, "gflops": max_gflops, "ms": max_ms}
    spend = None if all(value is None for value in named.values()) else Budget(**named)
    wishes = {"top_k": top_k, "budget": spend, "min_confidence": min_confidence}
    console = Console()
    rows: list[tuple[Path, Recognition | SdcomError]] = []
    with Recognizer.load(**load_settings(model_dir=model).recognizer_options()) as recognizer:
        for file, answer in _answers(recognizer, files, wishes):
            rows.append((file, answer))
            if not console.is_terminal:
                print(json.dumps(_line(file, answer)), flush=True)
    if console.is_terminal:
        console.print(_table(rows))
    if any(isinstance(answer, SdcomError) for _, answer in rows):
        raise typer.Exit(1)


def _answers(
    recognizer: "Recognizer", files: list[Path], wishes: dict[str, Any]
) -> "Iterator[tuple[Path, Recognition | SdcomError]]":
    """Yield every file's answer or error, in order, decoding some files ahead.

    Args:
        recognizer: of the model.
        files: to recognise.
        wishes: arguments of `Recognizer.recognize`.
    """

    def answer(file: Path) -> "Recognition | SdcomError":
        try:
            return recognizer.recognize(file, **wishes)
        except SdcomError as error:
            return error
        except IsADirectoryError:
            return InvalidParameterError(f"{file} is a folder; name its files: {file}/*")
        except OSError as error:
            return InvalidParameterError(f"cannot read {file}: {error.strerror}")

    progress = Console(stderr=True)
    with ThreadPoolExecutor(num_processors() + 1) as threads:
        yield from track(
            zip(files, threads.map(answer, files), strict=True),
            total=len(files),
            description="recognising",
            console=progress,
            transient=True,
            disable=len(files) == 1 or not progress.is_terminal,
        )


def _line(file: Path, answer: "Recognition | SdcomError") -> dict[str, Any]:
    if isinstance(answer, SdcomError):
        return {"file": str(file), "error": {"type": type(answer).__name__, "detail": str(answer)}}
    return {"file": str(file)} | answer.to_dict()


def _table(rows: "list[tuple[Path, Recognition | SdcomError]]") -> Table:
    table = Table(Column("file", overflow="fold"), "labels", "GFLOPs", "saved", "frames by width", box=None)
    for file, answer in rows:
        if isinstance(answer, SdcomError):
            table.add_row(escape(str(file)), f"[red]{type(answer).__name__}[/red]: {escape(str(answer))}")
            continue
        compute = answer.to_dict()["compute"]
        labels = "\n".join(f"{best.label} {best.score:.3f}" for best in answer.predictions)
        widths = ", ".join(f"{width}: {count}" for width, count in compute["widths"].items())
        table.add_row(
            "\n".join([escape(str(file)), *_damage(answer.video)]),
            escape(labels),
            f"{compute['gflops']:.3f}",
            f"{compute['saved']:.1%}",
            widths,
        )
    return table


def _damage(video: "VideoFacts") -> "Iterator[str]":
    if video.num_unreadable_frames:
        yield f"[yellow]damaged: {video.num_unreadable_frames} of the sampled frames unreadable[/yellow]"
    if video.num_missing_frames:
        yield f"[yellow]cut off: the last {video.num_missing_frames} frames missing[/yellow]"


@app.command()
def info(
    model: ModelArgument = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole record as JSON instead, for scripts.")
    ] = False,
) -> None:
    """Print a model's networks, what each part costs, its calibration, its evaluation and its origin."""
    from sdcom.checkpoint import load_info
    from sdcom.described import document, tables
    from sdcom.engine.hardware import load_hardware
    from sdcom.recognizer import bundled_model_dir

    directory = model or bundled_model_dir()
    described, measured = load_info(directory), load_hardware(directory)
    if as_json:
        print(json.dumps(document(described, measured), indent=1))
        return
    Console(highlight=False).print(*tables(described, measured))


HARDWARE_FLAG = "--hardware"
INT8_FLAG = "--int8"
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
TRAINING = "Training: needs torch, which the extra `train` brings (make setup)"


@app.command(context_settings=PASSED_ON, add_help_option=False, rich_help_panel=TRAINING)
def train(context: typer.Context) -> None:
    """Train a model on a dataset, on rendered clips, or on both."""
    _run_training("train", context.args)


@app.command(context_settings=PASSED_ON, add_help_option=False, rich_help_panel=TRAINING)
def evaluate(context: typer.Context) -> None:
    """Print a model's accuracy and GFLOPs beside its baselines' and those of controls at equal FLOPs."""
    _run_training("evaluate", context.args)


@app.command(context_settings=PASSED_ON, add_help_option=False)
def calibrate(context: typer.Context) -> None:
    """Measure a model: --hardware, --int8, or, with torch, what prices and exits cost on clips.

    With --hardware, what each part takes on this machine, for budgets in milliseconds. With --int8, the
    ranges with which the model computes in int8. Each has a --help of its own. With neither, which needs
    torch, what each price and each early exit costs and keeps on clips, written into the model directory.
    """
    flag = next((each for each in (HARDWARE_FLAG, INT8_FLAG) if each in context.args), None)
    if flag is None:
        if "--help" in context.args:
            typer.echo(context.get_help())
        if "--help" not in context.args or find_spec("torch") is not None:
            _run_training("calibrate", context.args)
        return
    from sdcom import calibrate_hardware, calibrate_int8

    measuring = calibrate_hardware.app if flag == HARDWARE_FLAG else calibrate_int8.app
    arguments = [each for each in context.args if each != flag]
    measuring(arguments, prog_name=f"sdcom calibrate {flag}")


@app.command(context_settings=PASSED_ON, add_help_option=False, rich_help_panel=TRAINING)
def results(context: typer.Context) -> None:
    """Sum several evaluations up in one page, with plots."""
    _run_training("results", context.args)


@app.command(context_settings=PASSED_ON, add_help_option=False, rich_help_panel=TRAINING)
def data(context: typer.Context) -> None:
    """Check datasets, and pack them for quick reading."""
    _run_training("data", context.args)


def _run_training(command: str, arguments: list[str]) -> None:
    """Hand a command on to the training package.

    Raises:
        SettingsError: what training needs is not installed.
    """
    try:
        from training.cli import app as training
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"sdcom {command} needs {error.name}, which the extra `train` brings: "
            "in a checkout, `make setup`, or pip install '.[train]'"
        ) from error
    training([command, *arguments])


@app.command(context_settings=PASSED_ON, add_help_option=False)
def bench(context: typer.Context) -> None:
    """Measure this machine: parts, whole clips, whole requests, a server under load."""
    from service.bench.app import app as benchmarks

    benchmarks(context.args, prog_name="sdcom bench")


@app.command()
def export(
    model: ModelArgument = None,
    *,
    output: Annotated[Path, typer.Option(help="Directory for the files; made if absent.")],
) -> None:
    """Write a model's parts as ONNX files, for other runtimes; serving needs none of them."""
    from sdcom.engine.export import export_onnx
    from sdcom.recognizer import bundled_model_dir

    made = export_onnx(model or bundled_model_dir(), output)
    table = Table("file", "MB", box=None)
    for name, record in made.files.items():
        table.add_row(name, f"{record.size_bytes / 1e6:.1f}")
    console = Console()
    console.print(table)
    if made.differences:
        console.print(f"largest difference from plain torch: {max(made.differences.values()):.1e}")
    else:
        console.print("not compared with plain torch: it is not installed")


if __name__ == "__main__":
    main()
