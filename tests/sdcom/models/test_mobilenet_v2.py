"""Slimmable MobileNetV2 against a plain one written here from torch's layers, with torchvision's names."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sdcom.models.mobilenet_v2 import SlimmableMobileNetV2

WIDTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
NUM_ENTRIES = 262  # torchvision's state without num_batches_tracked


def _slim(channels: int, width: float) -> int:
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def _conv_norm_relu(a: int, b: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(b), nn.ReLU6())


class PlainInvertedResidual(nn.Module):
    def __init__(self, channels: tuple[int, int, int], stride: int, *, expands: bool, adds: bool) -> None:
        super().__init__()
        a, hidden, b = channels
        self.adds = adds
        layers: list[nn.Module] = [_conv_norm_relu(a, hidden, 1)] if expands else []
        self.conv = nn.Sequential(
            *layers,
            _conv_norm_relu(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, b, 1, bias=False),
            nn.BatchNorm2d(b),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


class PlainMobileNetV2(nn.Module):
    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_norm_relu(3, _slim(32, width), 3, 2)]
        channels = 32
        rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
        for expansion, outputs, count, first_stride in (*rows, (6, 320, 1, 1)):
            for index in range(count):
                stride = first_stride if index == 0 else 1
                slim = (_slim(channels, width), _slim(channels * expansion, width), _slim(outputs, width))
                adds = stride == 1 and channels == outputs
                layers.append(PlainInvertedResidual(slim, stride, expands=expansion != 1, adds=adds))
                channels = outputs
        layers.append(_conv_norm_relu(_slim(320, width), _slim(1280, width), 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_slim(1280, width), num_classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_equals_a_plain_network_with_the_sliced_weights(
    width: float,
    randomize: Callable[[nn.Module], None],
    slice_state: Callable[[nn.Module, nn.Module, float], dict[str, Tensor]],
) -> None:
    slimmable = SlimmableMobileNetV2(WIDTHS, 7).eval()
    randomize(slimmable)
    x = torch.randn(2, 3, 64, 64)
    plain = PlainMobileNetV2(width, 7).eval()
    plain.load_state_dict(slice_state(slimmable, plain, width))
    with torch.inference_mode():
        expected, actual = plain(x), slimmable(x, width)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_names_are_torchvisions_with_statistics_of_each_width_added() -> None:
    with torch.device("meta"):
        names = set(SlimmableMobileNetV2(WIDTHS, 1000).state_dict())
        static_names = set(SlimmableMobileNetV2((1.0,), 1000).state_dict())
        plain = PlainMobileNetV2(1.0, 1000).state_dict()
    expected = {name for name in plain if not name.endswith("num_batches_tracked")}
    assert static_names == expected
    assert len(expected) == NUM_ENTRIES
    running = {name for name in expected if ".running_" in name}
    assert names - expected == {
        name + suffix for name in running for suffix in ("_w00", "_w25", "_w50", "_w75")
    }
    assert {"features.0.0.weight", "features.0.1.running_mean", "classifier.1.weight"} <= expected
    assert {"features.1.conv.0.0.weight", "features.1.conv.1.weight", "features.1.conv.2.bias"} <= expected
    assert {"features.2.conv.1.0.weight", "features.2.conv.3.weight", "features.18.1.bias"} <= expected
