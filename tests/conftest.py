"""Fixtures that every test package shares."""

from pathlib import Path

import pytest
import torch

from sdcom.checkpoint import CalibrationPoint, ModelInfo, save_model
from sdcom.config import ClipConfig, ModelConfig
from sdcom.models.composition import SDCOM

REPOSITORY = Path(__file__).resolve().parent.parent

TINY_CONFIG = ModelConfig(
    clip=ClipConfig(num_frames=4, short_side=72, crop=64),
    labels=("clap", "jump", "wave"),
    static_resolution=32,
    dynamic="mobilenet_v2",
    gate_channels=8,
    gate_features=16,
    gate_hidden=16,
    fusion_features=32,
)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real clips and torture files beside the checkout."""
    shared = REPOSITORY.parent / "shared"
    if not (shared / "data").is_dir():
        pytest.skip(f"{shared} is absent: it holds the real clips, torture files and ImageNet weights")
    return shared


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of real networks with seeded random weights, small enough for milliseconds a video."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    networks = SDCOM(TINY_CONFIG).eval()
    with torch.no_grad():
        networks.gate.choice.weight *= 40  # so that different frames get different widths
    info = ModelInfo(
        name="tiny",
        version="0",
        config=TINY_CONFIG,
        calibration=(
            CalibrationPoint(lam=0, gmacs=0.02, share=0.9, top1=0.5, width_shares=(0.2,) * 5),
            CalibrationPoint(lam=8, gmacs=0.01, share=0.4, top1=0.4, width_shares=(1, 0, 0, 0, 0)),
        ),
    )
    save_model(directory, info, networks)
    return directory
