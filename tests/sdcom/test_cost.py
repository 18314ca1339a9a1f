"""Analytic MACs against torch's own counter (which counts two operations a MAC)."""

from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sdcom.architecture import Architecture, feature_channels, feature_map_size, map_channels
from sdcom.config import ClipConfig, DynamicArchitecture, ModelConfig, StaticArchitecture
from sdcom.cost import backbone_macs, gate_embedding_macs, gru_step_macs, model_macs
from sdcom.models.backbone import Backbone, build_backbone
from sdcom.models.fusion import FusionHead
from sdcom.models.gate import Gate

SLIMMABLE: tuple[Architecture, ...] = get_args(DynamicArchitecture)
STATIC: tuple[Architecture, ...] = get_args(StaticArchitecture)
WIDTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
LABELS = tuple(f"label {index}" for index in range(200))
GIGA = 1e9


@pytest.mark.parametrize("architecture", SLIMMABLE)
def test_backbone_macs_equal_the_counters_at_every_width_and_resolution(architecture: Architecture) -> None:
    with torch.device("meta"):  # shapes only: the counter needs no values
        model = build_backbone(architecture, WIDTHS, 5).eval()
    for width in WIDTHS:
        for resolution in (224, 96, 33):
            assert _counted(model, width, resolution) == backbone_macs(architecture, width, resolution)


@pytest.mark.parametrize("architecture", STATIC)
def test_static_networks_are_counted_at_any_resolution(architecture: Architecture) -> None:
    with torch.device("meta"):
        model = build_backbone(architecture, (1.0,), 5).eval()
    for resolution in (224, 160, 75, 32):
        assert _counted(model, 1.0, resolution) == backbone_macs(architecture, 1.0, resolution)


def test_a_static_networks_narrow_widths_are_refused_where_they_are_counted_and_built() -> None:
    with pytest.raises(ValueError, match="at width 1 alone, got 0"):
        backbone_macs("mobilenet_v4_conv_small", 0.0, 224)
    with pytest.raises(ValueError, match="at width 1 alone, got 0"):
        build_backbone("mobilenet_v4_conv_small", WIDTHS, 5)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2", "mobilenet_v4_conv_small"])
@pytest.mark.parametrize("resolution", [224, 75])
def test_the_padding_of_tensorflow_costs_the_same(architecture: Architecture, resolution: int) -> None:
    with torch.device("meta"):
        model = build_backbone(architecture, (1.0,), 5, same_padding=True).eval()
    assert _counted(model, 1.0, resolution) == backbone_macs(architecture, 1.0, resolution)


@pytest.mark.parametrize(
    ("static", "resolution", "dynamic"),
    [
        ("mobilenet_v2", 224, "resnet50"),
        ("resnet50", 96, "resnet50"),
        ("mobilenet_v2", 192, "mobilenet_v2"),
        ("mobilenet_v4_conv_small", 160, "resnet18"),
    ],
)
def test_gate_and_fusion_macs_equal_the_counters(
    static: Architecture, resolution: int, dynamic: Architecture
) -> None:
    config = ModelConfig.model_validate(
        {"labels": LABELS, "static": static, "static_resolution": resolution, "dynamic": dynamic}
    )
    counts = model_macs(config)
    gate, fusion = _heads(config)
    size = feature_map_size(resolution)
    map_NCHW = torch.empty(3, map_channels(static), size, size, device="meta")
    with FlopCounterMode(display=False) as counter:
        embeddings_ND = gate.embed(map_NCHW)
    assert counter.get_total_flops() == 2 * 3 * gate_embedding_macs(config)
    with FlopCounterMode(display=False) as counter:
        gate.choice(torch.empty(1, 3, config.gate_hidden, device="meta"))
    recurrent = gru_step_macs(config.gate_features, config.gate_hidden)
    assert counter.get_total_flops() == 2 * 3 * (counts.gate_step - recurrent)
    assert counts.gate == gate_embedding_macs(config) + counts.gate_step
    assert embeddings_ND.shape == (3, config.gate_features)
    with FlopCounterMode(display=False) as counter:
        fusion(*(torch.empty(1, 3, feature_channels(name), device="meta") for name in (static, dynamic)))
    assert counter.get_total_flops() == 2 * 3 * counts.fusion


def test_a_gru_step_multiplies_every_weight_of_its_three_gates_once() -> None:
    gru = torch.nn.GRU(24, 40)
    weights = [value.numel() for name, value in gru.named_parameters() if name.startswith("weight")]
    assert gru_step_macs(24, 40) == sum(weights)


def test_the_figures_are_those_of_the_literature() -> None:
    counts = {width: backbone_macs("resnet50", width, 224) / GIGA for width in WIDTHS}
    assert counts[1.0] == pytest.approx(4.09, abs=0.005)
    assert counts[0.75] == pytest.approx(2.32, abs=0.005)
    assert counts[0.5] == pytest.approx(1.05, abs=0.005)
    assert counts[0.25] == pytest.approx(0.28, abs=0.005)
    assert backbone_macs("resnet50", 1.0, 96) / GIGA == pytest.approx(0.75, abs=0.005)
    assert backbone_macs("mobilenet_v2", 1.0, 224) / GIGA == pytest.approx(0.30, abs=0.005)
    for resolution, giga_macs in ((224, 0.186), (160, 0.096)):
        with_classifier = backbone_macs("mobilenet_v4_conv_small", 1.0, resolution) + 1280 * 1000
        assert with_classifier / GIGA == pytest.approx(giga_macs, abs=0.0005)
    video = model_macs(ModelConfig(labels=LABELS))
    assert video.baseline(16) / GIGA == pytest.approx(65.4, abs=0.05)
    assert video.floor(16) / GIGA == pytest.approx(5.3, abs=0.07)


def test_width_zero_costs_nothing_and_the_floor_is_every_frame_at_it() -> None:
    counts = model_macs(ModelConfig(labels=LABELS))
    assert counts.dynamic[0.0] == 0
    assert counts.dynamic_by_choice == tuple(sorted(counts.dynamic.values()))
    assert counts.total([0.0] * 16) == counts.floor(16)
    assert counts.total([0.0, 0.5, 1.0]) == counts.floor(3) + counts.dynamic[0.5] + counts.dynamic[1.0]


def test_the_baseline_is_the_full_width_with_its_classifier_on_every_frame() -> None:
    config = ModelConfig(labels=LABELS, clip=ClipConfig(num_frames=8, short_side=128, crop=96))
    counts = model_macs(config)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build_backbone("resnet50", (1.0,), len(LABELS)).eval()(torch.empty(8, 3, 96, 96), 1.0)
    assert counter.get_total_flops() == 2 * counts.baseline(8)


def test_the_dictionary_names_widths_as_people_write_them() -> None:
    counts = model_macs(ModelConfig(labels=LABELS))
    document = counts.to_dict()
    assert document["dynamic"] == dict(
        zip(["0", "0.25", "0.5", "0.75", "1"], counts.dynamic_by_choice, strict=True)
    )
    assert document["static"] == counts.static


def test_equal_models_are_counted_once_and_others_on_their_own() -> None:
    config = ModelConfig(labels=LABELS)
    narrower = config.model_copy(update={"widths": (0.0, 0.5, 1.0)})
    assert model_macs(ModelConfig(labels=LABELS)) is model_macs(config)
    assert list(model_macs(narrower).dynamic) == [0.0, 0.5, 1.0]


def _counted(model: Backbone, width: float, resolution: int) -> int:
    with FlopCounterMode(display=False) as counter:
        model.pool(model.feature_map(torch.empty(1, 3, resolution, resolution, device="meta"), width))
    num_operations: int = counter.get_total_flops()
    return num_operations // 2


def _heads(config: ModelConfig) -> tuple[Gate, FusionHead]:
    static_features, dynamic_features = feature_channels(config.static), feature_channels(config.dynamic)
    with torch.device("meta"):
        gate = Gate(
            in_channels=map_channels(config.static),
            map_size=feature_map_size(config.static_resolution),
            channels=config.gate_channels,
            features=config.gate_features,
            hidden=config.gate_hidden,
            num_widths=config.num_widths,
        )
        fusion = FusionHead(
            static_features=static_features,
            dynamic_features=dynamic_features,
            hidden=config.fusion_features,
            num_frames=config.clip.num_frames,
            num_labels=config.num_labels,
            dropout=config.dropout,
        )
    return gate.eval(), fusion.eval()
