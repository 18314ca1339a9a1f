"""The tiny model behind its front door, a clip, and frames and plans for it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sdcom.budget import WidthPlan
from sdcom.engine.backend import Backend
from sdcom.engine.composed import Planner
from sdcom.model import Model
from sdcom.recognizer import Recognizer
from tests.conftest import TINY_CONFIG
from training.rendered import render_clip, write_clip


@pytest.fixture(scope="module")
def recognizer(tiny_model_dir: Path) -> Iterator[Recognizer]:
    with Recognizer.load(tiny_model_dir, num_decode_workers=1, num_threads=1) as recognizer:
        yield recognizer


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered clip of somebody who waves."""
    path = tmp_path_factory.mktemp("clips") / "wave.mp4"
    write_clip(path, render_clip("wave", np.random.default_rng(1), num_frames=30, width=160, height=120))
    return path


def patterned_frames(num_frames: int, seed: int, crop: int = TINY_CONFIG.clip.crop) -> npt.NDArray[np.uint8]:
    """Return cropped frames [N, crop, crop, 3] of coarse random colours."""
    side = -(-crop // 4)
    coarse = np.random.default_rng(seed).integers(0, 256, (num_frames, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(side, axis=1).repeat(side, axis=2)[:, :crop, :crop].copy()


def always(model: Model | Backend, choices: Sequence[int]) -> Planner:
    """Return a planner that takes these choices whatever the gate says."""
    macs_K = model.info.macs.dynamic_by_choice
    plan = WidthPlan(tuple(choices), 0.0, sum(macs_K[choice] for choice in choices))
    return lambda _: plan
