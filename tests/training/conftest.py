"""Clips that need no decoder, and one rendered set for those who want files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.batches import ClipStore
from training.rendered import generate

LABELS = ("clap", "jump", "wave")


class TensorStore(ClipStore):
    """Clips given as tensors, each uint8 [N, H, W, 3], instead of files."""

    def __init__(self, frames_NHWC: Sequence[Tensor], labels: Sequence[int]) -> None:
        self.frames_NHWC = list(frames_NHWC)
        self.labels = list(labels)
        self.device = torch.device("cpu")


def patterned_store(num_clips: int, seed: int = 0) -> TensorStore:
    """Return clips of 12 frames, 72 x 96 pixels of coarse random colours, labelled by turns."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_clips, 12, 6, 8, 3), dtype=np.uint8)
    clips = torch.from_numpy(coarse.repeat(12, axis=2).repeat(12, axis=3))
    return TensorStore(list(clips), [index % len(LABELS) for index in range(num_clips)])


@pytest.fixture(scope="session")
def rendered_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder: eight clips of each of three actions."""
    folder = tmp_path_factory.mktemp("rendered")
    generate(folder, clips_per_action=8, seed=0, actions=LABELS, num_processes=1)
    return folder
