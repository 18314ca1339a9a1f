"""One peer in the foreground: `python -m service.bench.peers litserve --port 8001`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sdcom.processors import num_processors
from sdcom.recognizer import bundled_model_dir
from service.bench.peers.hosting import Hosting, Network


def main(
    peer: Annotated[Literal["litserve", "ray"], typer.Argument(help="Which server.")],
    *,
    port: Annotated[int, typer.Option(help="On 127.0.0.1.")],
    model: Annotated[
        Path | None, typer.Option(help="Model directory; the bundled model if not given.")
    ] = None,
    network: Annotated[Network, typer.Option(help="What answers.")] = "composition",
    budget: Annotated[float | None, typer.Option(help="Share of the baseline; the model's default.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a processor.")] = None,
) -> None:
    """Host a model on a general server."""
    hosting = Hosting(
        model_dir=model or bundled_model_dir(),
        network=network,
        budget=budget,
        port=port,
        num_workers=workers or num_processors(),
    )
    if peer == "litserve":
        from service.bench.peers.on_litserve import serve  # noqa: PLC0415 - optional, and heavy
    else:
        from service.bench.peers.on_ray import serve  # noqa: PLC0415 - optional, and heavy
    serve(hosting)


if __name__ == "__main__":
    typer.run(main)
