"""`python -m training.rendered.sample sdcom/bundled/sample.mp4`: the clip that the demo recognises."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from training.rendered.clip import render_clip
from training.rendered.dataset import write_clip


def _main(
    path: Annotated[Path, typer.Argument(help="MP4 file to write.")],
    action: Annotated[str, typer.Option()] = "shoot_bow",
    seed: Annotated[int, typer.Option(min=0)] = 3,
    num_frames: Annotated[int, typer.Option(min=1, help="At 25 frames a second.")] = 45,
) -> None:
    """Render one clip in which every frame is informative."""
    rng = np.random.default_rng(seed)
    write_clip(path, render_clip(action, rng, num_frames=num_frames, interrupted=0.0))


if __name__ == "__main__":
    typer.run(_main)
