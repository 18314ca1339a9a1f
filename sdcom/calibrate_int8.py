"""`sdcom calibrate --int8`: the ranges with which a model computes in int8. Needs no torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from sdcom.checkpoint import load_info, load_weights
from sdcom.engine.backend import UInt8Array
from sdcom.engine.int8 import INT8_FILE, measure_int8, save_int8
from sdcom.errors import InvalidParameterError, VideoRejectedError
from sdcom.recognizer import bundled_model_dir
from sdcom.video import DecoderPool

app = typer.Typer()


@app.command()
def measure(
    files: Annotated[list[Path], typer.Argument(help="Video files.", metavar="FILE...")],
    *,
    model: Annotated[
        Path | None,
        typer.Option(help="Model directory; the bundled model if not given.", envvar="SDCOM_MODEL_DIR"),
    ] = None,
    static: Annotated[
        bool,
        typer.Option(
            help="Ranges of the static network too; without, it stays in float32, and the gate chooses the "
            "widths that it chooses in float32."
        ),
    ] = True,
) -> None:
    """Measure on clips the ranges with which the onnx engine computes a model in int8 (SDCOM_PRECISION=int8).

    Writes them into the model directory. A hundred clips are plenty: of the kind to be recognised, and not
    those that accuracy is measured on. They need no labels.
    """
    directory = model or bundled_model_dir()
    info, console = load_info(directory), Console(highlight=False)
    weights = load_weights(directory, info)
    with DecoderPool(info.config.clip, num_workers=1) as decoders:
        ranges = measure_int8(info, weights, _clips(files, decoders), static=static)
    save_int8(directory, info, ranges)
    console.print(f"written to {directory / INT8_FILE}", markup=False, soft_wrap=True)


def _clips(files: list[Path], decoders: DecoderPool) -> Iterator[UInt8Array]:
    """Yield every file's frames as serving decodes them.

    Raises:
        InvalidParameterError: a file cannot be used; the message names it.
    """
    progress = Console(stderr=True)
    for file in track(files, "measuring", console=progress, transient=True, disable=not progress.is_terminal):
        try:
            yield decoders.decode(file).frames_THWC
        except (VideoRejectedError, OSError) as exc:
            raise InvalidParameterError(f"{file} cannot be used: {exc}") from exc
