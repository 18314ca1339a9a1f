"""Clips that need no decoder, and one rendered set for those who want files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdcom.config import ClipConfig
from training.batches import Augmentation, Batches
from training.data import Clip
from training.data.sources import ClipSource, ClipStore
from training.rendered import generate

PLAIN_AUGMENTATION = Augmentation()
LABELS = ("clap", "jump", "wave")


class TensorStore(ClipStore):
    """Clips given as tensors, each uint8 [N, H, W, 3], instead of files; of one label each, or of several."""

    def __init__(self, frames_NHWC: Sequence[Tensor], labels: Sequence[int | tuple[int, ...]]) -> None:
        self.frames_NHWC = list(frames_NHWC)
        several = [label if isinstance(label, tuple) else (label,) for label in labels]
        self.clips = tuple(Clip(Path(f"{i}.mp4"), of_clip, f"group {i}") for i, of_clip in enumerate(several))
        self.device = torch.device("cpu")


def patterned_store(num_clips: int, seed: int = 0) -> TensorStore:
    """Return clips of 12 frames, 72 x 96 pixels of coarse random colours, labelled by turns."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_clips, 12, 6, 8, 3), dtype=np.uint8)
    clips = torch.from_numpy(coarse.repeat(12, axis=2).repeat(12, axis=3))
    return TensorStore(list(clips), [index % len(LABELS) for index in range(num_clips)])


def batches_of(
    source: ClipSource, clip: ClipConfig, augmentation: Augmentation = PLAIN_AUGMENTATION, **options: Any
) -> Batches:
    """Return batches of 4 with as many labels as `LABELS`; options override."""
    plain = {"num_labels": len(LABELS), "batch_size": 4, "seed": 0, "stage": 1}
    return Batches(source=source, clip=clip, augmentation=augmentation, **(plain | options))


@pytest.fixture(scope="session")
def rendered_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder: eight clips of each of three actions."""
    folder = tmp_path_factory.mktemp("rendered")
    generate(folder, clips_per_action=8, seed=0, actions=LABELS, num_processes=1)
    return folder
