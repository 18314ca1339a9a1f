"""MobileNetV4-conv-small against a plain one written here from torch's layers, with the published names."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from sdcom.config import ClipConfig, ModelConfig
from sdcom.models.composition import SDCOM
from sdcom.models.mobilenet_v4 import MobileNetV4ConvSmall
from sdcom.models.pretrained import load_torchvision_weights

Randomize = Callable[[nn.Module], None]

PUBLISHED_PARAMETERS = 3_774_024  # with 1000 classes
Row = tuple[int, ...]
TABLE: tuple[tuple[Row, ...], ...] = (
    ((3, 2, 32), (1, 1, 32)),  # convolution: kernel, stride, output channels
    ((3, 2, 96), (1, 1, 64)),
    # bottleneck: kernels before and in the middle, stride, hidden channels, output channels
    ((5, 5, 2, 192, 96), *((0, 3, 1, 192, 96),) * 4, (3, 0, 1, 384, 96)),
    (
        (3, 3, 2, 576, 128),
        (5, 5, 1, 512, 128),
        (0, 5, 1, 512, 128),
        (0, 5, 1, 384, 128),
        *((0, 3, 1, 512, 128),) * 2,
    ),
    ((1, 1, 960),),
)


class PlainConvolution(nn.Module):
    def __init__(self, a: int, b: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(b)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn1(self.conv(x)).relu()
        return y


class PlainUniversal(nn.Module):
    def __init__(self, a: int, row: Row) -> None:
        super().__init__()
        first, middle, stride, hidden, b = row
        self.adds = stride == 1 and a == b
        if first:
            self.dw_start = _linear_norm(nn.Conv2d(a, a, first, 1, first // 2, groups=a, bias=False))
        self.pw_exp = _linear_norm(nn.Conv2d(a, hidden, 1, bias=False))
        if middle:
            self.dw_mid = _linear_norm(
                nn.Conv2d(hidden, hidden, middle, stride, middle // 2, groups=hidden, bias=False)
            )
        self.pw_proj = _linear_norm(nn.Conv2d(hidden, b, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name, layer in self.named_children():
            y = layer(y)
            y = y.relu() if name in {"pw_exp", "dw_mid"} else y
        return x + y if self.adds else y


def _linear_norm(convolution: nn.Conv2d) -> nn.Module:
    return nn.Sequential(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(convolution.out_channels)))


class PlainMobileNetV4(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        stages = []
        channels = 32
        for rows in TABLE:
            layers: list[nn.Module] = []
            for row in rows:
                if len(row) == 3:
                    layers.append(PlainConvolution(channels, row[2], row[0], row[1]))
                else:
                    layers.append(PlainUniversal(channels, row))
                channels = row[-1]
            stages.append(nn.Sequential(*layers))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(960, 1280, 1, bias=False)
        self.norm_head = nn.BatchNorm2d(1280)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.bn1(self.conv_stem(x)).relu())
        x = self.norm_head(self.conv_head(x.mean((2, 3), keepdim=True))).relu()
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


@pytest.mark.parametrize("resolution", [64, 75])
def test_it_equals_a_plain_network_of_the_published_names(resolution: int, randomize: Randomize) -> None:
    plain = PlainMobileNetV4(7).eval()
    randomize(plain)
    state = {name: value for name, value in plain.state_dict().items() if "num_batches" not in name}
    model = MobileNetV4ConvSmall(7).eval()
    model.load_state_dict(state)
    x = torch.randn(2, 3, resolution, resolution)
    with torch.inference_mode():
        expected, actual = plain(x), model(x, 1.0)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_it_has_as_many_parameters_as_the_published_one() -> None:
    with torch.device("meta"):
        model = MobileNetV4ConvSmall(1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED_PARAMETERS


def test_a_published_file_loads_and_a_classifier_of_other_classes_is_left_out(
    tmp_path: Path, randomize: Randomize
) -> None:
    plain = PlainMobileNetV4(10).eval()
    randomize(plain)
    path = tmp_path / "mobilenet_v4.safetensors"
    safetensors.torch.save_file(plain.state_dict(), path)
    assert load_torchvision_weights(MobileNetV4ConvSmall(10), path)
    model = MobileNetV4ConvSmall(3)
    assert not load_torchvision_weights(model, path)
    name = "blocks.2.0.dw_mid.conv.weight"
    assert torch.equal(model.get_parameter(name), plain.get_parameter(name))


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no statistics of width 0\.5"):
        MobileNetV4ConvSmall(3)(torch.zeros(1, 3, 32, 32), 0.5)


def test_the_gate_reads_its_map_and_the_fusion_head_its_features() -> None:
    config = ModelConfig(
        clip=ClipConfig(num_frames=2, short_side=72, crop=64),
        labels=("a", "b"),
        static="mobilenet_v4_conv_small",
        static_resolution=48,
        dynamic="resnet18",
        gate_features=8,
        gate_hidden=8,
        fusion_features=16,
    )
    networks = SDCOM(config).eval()
    with torch.inference_mode():
        view = networks.look(torch.randn(2, 3, 64, 64))
        assert view.map_NCHW.shape == (2, 960, 2, 2)
        assert view.features_ND.shape == (2, 1280)
        assert networks.gate.embed(view.map_NCHW).shape == (2, 8)
        filled_ND = networks.fill(torch.randn(2, 3, 64, 64), 0.5)
        assert networks.fusion(view.features_ND[None], filled_ND[None]).shape == (1, 2, 2)
