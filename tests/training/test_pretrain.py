"""Training starts from the ImageNet weights themselves, whatever the order of the channels."""

from pathlib import Path

import pytest
import torch

from sdcom.config import ClipConfig, ModelConfig
from sdcom.errors import InvalidParameterError
from sdcom.models.composition import SDCOM
from sdcom.models.mobilenet_v2 import SlimmableMobileNetV2
from training.pretrain import start_from_imagenet
from training.supernet import recalibrate_statistics

CONFIG = ModelConfig(
    clip=ClipConfig(num_frames=4, short_side=72, crop=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    labels=("a", "b"),
    static_resolution=64,
    dynamic="mobilenet_v2",
    same_padding=True,
    gate_features=16,
    gate_hidden=16,
    fusion_features=32,
)

CLASSIFIERS = ("static.classifier.1.weight", "dynamic.classifier.1.weight")


@pytest.fixture
def torchvision_file(tmp_path: Path) -> Path:
    """Random weights with torchvision's names and ImageNet's classes."""
    torch.manual_seed(1)
    network = SlimmableMobileNetV2((1.0,), 1000)
    recalibrate_statistics(network, (1.0,), [torch.rand(8, 3, 64, 64) * 2 - 1])
    path = tmp_path / "mobilenet_v2.pth"
    torch.save(network.state_dict(), path)
    return path


def test_channels_of_torchvisions_weights_are_sorted_as_well(torchvision_file: Path) -> None:
    networks = SDCOM(CONFIG.model_copy(update={"same_padding": False})).eval()
    frames_NCHW = torch.rand(2, 3, 64, 64) * 2 - 1
    start_from_imagenet(networks, torchvision_file, torchvision_file, frames_NCHW, sort_channels=True)
    with torch.inference_mode():
        static_ND = networks.look(frames_NCHW).features_ND
        dynamic_ND = networks.fill(frames_NCHW, 1.0)
    assert not torch.allclose(static_ND, dynamic_ND, atol=1e-3)
    torch.testing.assert_close(
        static_ND.sort(dim=1).values, dynamic_ND.sort(dim=1).values, rtol=1e-3, atol=1e-3
    )


def test_a_network_without_weights_stays_random_and_the_wrong_ones_are_named(
    torchvision_file: Path, tmp_path: Path
) -> None:
    networks = SDCOM(CONFIG.model_copy(update={"dynamic": "resnet18"}))
    before = {name: value.clone() for name, value in networks.dynamic.state_dict().items()}
    frames_NCHW = torch.zeros(1, 3, 64, 64)
    start_from_imagenet(networks, torchvision_file, None, frames_NCHW, sort_channels=False)
    assert all(torch.equal(value, before[name]) for name, value in networks.dynamic.state_dict().items())
    folded = tmp_path / "mobilenet_v2.npz"
    with pytest.raises(InvalidParameterError, match="a SlimmableResNet cannot load: give each network"):
        start_from_imagenet(networks, None, folded, frames_NCHW, sort_channels=False)


def test_both_networks_start_from_the_same_features_in_another_order(shared_dir: Path) -> None:
    weights = shared_dir / "weights" / "mobilenet_v2_1.0_224.npz"
    torch.manual_seed(0)
    networks = SDCOM(CONFIG).eval()
    before = {name: networks.state_dict()[name].clone() for name in CLASSIFIERS}
    frames_NCHW = torch.rand(4, 3, 64, 64) * 2 - 1
    start_from_imagenet(networks, weights, weights, frames_NCHW, sort_channels=True)
    with torch.inference_mode():
        static_ND = networks.look(frames_NCHW).features_ND
        dynamic_ND = networks.fill(frames_NCHW, 1.0)
    assert not torch.allclose(static_ND, dynamic_ND, atol=1e-2)
    torch.testing.assert_close(
        static_ND.sort(dim=1).values, dynamic_ND.sort(dim=1).values, rtol=1e-3, atol=1e-3
    )
    assert all(torch.equal(networks.state_dict()[name], before[name]) for name in CLASSIFIERS)
