"""Fixtures that every test package shares."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.checkpoint import CalibrationPoint, ExitPoint, ModelInfo
from sdcom.config import ClipConfig, ModelConfig
from sdcom.model import Model, load_model, save_model
from sdcom.models.composition import SDCOM
from sdcom.models.slimmable import SlimmableBatchNorm2d
from sdcom.models.temporal_shift import earlier_rows

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


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Leave the other cores to the other tests: the networks here are too small to share."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real clips and torture files beside the checkout."""
    shared = REPOSITORY.parent / "shared"
    if not (shared / "data").is_dir():
        pytest.skip(f"{shared} is absent: it holds the real clips, torture files and ImageNet weights")
    return shared


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of real networks with seeded random weights: milliseconds a video."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    info = ModelInfo(
        name="tiny",
        version="0",
        config=TINY_CONFIG,
        calibration=(
            CalibrationPoint(lam=0, gmacs=0.07, share=0.72, top1=0.5, width_shares=(0.2,) * 5),
            CalibrationPoint(lam=2, gmacs=0.05, share=0.52, top1=0.4, width_shares=(0.5, 0.5, 0, 0, 0)),
            CalibrationPoint(lam=50, gmacs=0.025, share=0.26, top1=0.3, width_shares=(1, 0, 0, 0, 0)),
        ),
        exits=(ExitPoint(lam=2, confidence=0.7, num_frames=2.5, gmacs=0.03, share=0.31, top1=0.35),),
    )
    save_model(directory, info, lively_networks(TINY_CONFIG))
    return directory


@pytest.fixture(scope="session")
def tiny_model(tiny_model_dir: Path) -> Model:
    return load_model(tiny_model_dir)


def lively_networks(config: ModelConfig) -> SDCOM:
    """Return random networks, seeded, whose answers and widths depend on every frame.

    Random weights alone lose the signal over fifty layers (features of 1e-10), and then everything agrees
    with everything. So each batch norm gets the statistics of what it sees, and the gate speaks up.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        networks = SDCOM(config).train()
        frames_NCHW = functional.interpolate(torch.randn(48, 3, 4, 4), config.clip.crop, mode="bilinear")
        frames_NCHW += 0.3 * torch.randn_like(frames_NCHW)
        for module in networks.modules():
            if isinstance(module, SlimmableBatchNorm2d | nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = 1.0
        view = networks.look(frames_NCHW)
        earlier = earlier_rows(torch.arange(len(frames_NCHW)) - 1)  # for networks that shift
        filled_KND = [networks.fill(frames_NCHW, width, earlier) for width in config.widths]
        networks.fusion.project(view.features_ND, filled_KND[-1])
        _tune_gate(networks, view.map_NCHW)
    return networks.eval()


def _tune_gate(networks: SDCOM, map_NCHW: Tensor) -> None:
    """Scale and shift the choices so that all widths are taken about equally often."""
    gate = networks.gate
    embeddings_BTD = gate.embed(map_NCHW).unflatten(0, (-1, networks.config.clip.num_frames))
    logits_BTK, _ = gate.decide(embeddings_BTD)
    scale_K = 2 / logits_BTK.std(dim=(0, 1))
    gate.choice.weight.mul_(scale_K[:, None])
    gate.choice.bias.sub_(logits_BTK.mean(dim=(0, 1))).mul_(scale_K)
