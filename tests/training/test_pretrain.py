"""Training starts from the ImageNet weights themselves, whatever the order of the channels."""

from pathlib import Path

import torch

from sdcom.config import ClipConfig, ModelConfig
from sdcom.models.composition import SDCOM
from training.pretrain import start_from_imagenet

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
