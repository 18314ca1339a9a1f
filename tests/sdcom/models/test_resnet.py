"""Slimmable ResNets against plain ones written here from torch's own layers, with torchvision's names."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdcom.architecture import Architecture
from sdcom.models.resnet import SlimmableResNet

WIDTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
BLOCKS: dict[Architecture, tuple[int, ...]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
NUM_ENTRIES = {"resnet18": 102, "resnet34": 182, "resnet50": 267, "resnet101": 522}  # torchvision's states


class PlainBlock(nn.Module):
    def __init__(self, layers: list[nn.Conv2d], downsample: nn.Conv2d | None) -> None:
        super().__init__()
        for index, layer in enumerate(layers, start=1):
            self.add_module(f"conv{index}", layer)
            self.add_module(f"bn{index}", nn.BatchNorm2d(layer.out_channels))
        self.count = len(layers)
        if downsample is not None:
            self.downsample = nn.Sequential(downsample, nn.BatchNorm2d(downsample.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        for index in range(1, self.count + 1):
            x = self.get_submodule(f"bn{index}")(self.get_submodule(f"conv{index}")(x))
            x = functional.relu(x + shortcut if index == self.count else x)
        return x


class PlainResNet(nn.Module):
    def __init__(self, architecture: Architecture, width: float, num_classes: int) -> None:
        super().__init__()
        bottleneck = architecture in {"resnet50", "resnet101"}
        expansion = 4 if bottleneck else 1

        def slim(channels: int) -> int:
            return max(1, int(channels * width))

        self.conv1 = nn.Conv2d(3, slim(64), 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(slim(64))
        channels = 64
        for stage, (inner, count) in enumerate(zip((64, 128, 256, 512), BLOCKS[architecture], strict=True)):
            blocks = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                a, b, c = slim(channels), slim(inner), slim(inner * expansion)
                three = nn.Conv2d(b if bottleneck else a, b, 3, stride, 1, bias=False)
                layers = (
                    [nn.Conv2d(a, b, 1, bias=False), three, nn.Conv2d(b, c, 1, bias=False)]
                    if bottleneck
                    else [three, nn.Conv2d(b, c, 3, 1, 1, bias=False)]
                )
                matches = stride == 1 and channels == inner * expansion
                blocks.append(PlainBlock(layers, None if matches else nn.Conv2d(a, c, 1, stride, bias=False)))
                channels = inner * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(slim(channels), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


@pytest.mark.parametrize("architecture", BLOCKS)
def test_every_width_equals_a_plain_network_with_the_sliced_weights(
    architecture: Architecture,
    randomize: Callable[[nn.Module], None],
    slice_state: Callable[[nn.Module, nn.Module, float], dict[str, Tensor]],
) -> None:
    slimmable = SlimmableResNet(architecture, WIDTHS, 7).eval()
    randomize(slimmable)
    x = torch.randn(2, 3, 48, 48)
    for width in WIDTHS:
        plain = PlainResNet(architecture, width, 7).eval()
        plain.load_state_dict(slice_state(slimmable, plain, width))
        with torch.inference_mode():
            expected, actual = plain(x), slimmable(x, width)
        scale = expected.abs().max().item()
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("architecture", BLOCKS)
def test_names_are_torchvisions_with_statistics_of_each_width_added(architecture: Architecture) -> None:
    with torch.device("meta"):
        names = set(SlimmableResNet(architecture, WIDTHS, 1000).state_dict())
        static_names = set(SlimmableResNet(architecture, (1.0,), 1000).state_dict())
        plain = PlainResNet(architecture, 1.0, 1000).state_dict()
    expected = {name for name in plain if not name.endswith("num_batches_tracked")}
    assert static_names == expected
    assert len(expected) == NUM_ENTRIES[architecture]
    running = {name for name in expected if ".running_" in name}
    assert names - expected == {
        name + suffix for name in running for suffix in ("_w00", "_w25", "_w50", "_w75")
    }
    assert {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer4.1.bn2.bias",
        "fc.bias",
    } <= expected
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var"} <= expected


def test_same_padding_gives_maps_of_the_same_size_that_see_other_pixels() -> None:
    symmetric = SlimmableResNet("resnet18", (1.0,), 3).eval()
    same = SlimmableResNet("resnet18", (1.0,), 3, same_padding=True).eval()
    same.load_state_dict(symmetric.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        a, b = symmetric.feature_map(x, 1.0), same.feature_map(x, 1.0)
    assert a.shape == b.shape == (1, 512, 2, 2)
    assert (a - b).abs().max() > 1e-3


def test_every_architecture_of_the_configuration_but_the_mobilenets_is_a_resnet() -> None:
    assert set(get_args(Architecture)) - {"mobilenet_v2", "mobilenet_v4_conv_small"} == set(BLOCKS)
