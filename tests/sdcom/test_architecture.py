"""The tables of the networks."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcom.architecture import (
    INVERTED_RESIDUALS,
    RESNETS,
    Architecture,
    feature_channels,
    feature_map_size,
    map_channels,
    residual_stages,
    slim_channels,
)

WIDTHS = st.floats(0, 1)


@given(st.integers(1, 2048), WIDTHS)
def test_resnet_channels_are_the_floor_of_the_share_and_at_least_one(channels: int, width: float) -> None:
    slim = slim_channels(channels, width)
    assert slim == max(1, int(channels * width))
    assert slim <= channels


@given(st.integers(1, 160), WIDTHS)
def test_mobilenet_channels_are_multiples_of_eight_near_the_share(eighths: int, width: float) -> None:
    channels = 8 * eighths
    slim = slim_channels(channels, width, 8)
    assert slim % 8 == 0
    assert 8 <= slim <= channels
    assert slim >= 0.9 * channels * width
    assert slim <= max(8, channels * width + 8)


@given(st.integers(1, 160), WIDTHS, WIDTHS, st.sampled_from([1, 8]))
def test_a_wider_network_never_has_fewer_channels(eighths: int, a: float, b: float, divisor: int) -> None:
    low, high = sorted((a, b))
    assert slim_channels(8 * eighths, low, divisor) <= slim_channels(8 * eighths, high, divisor)


@pytest.mark.parametrize("divisor", [1, 8])
def test_full_width_keeps_every_channel(divisor: int) -> None:
    assert all(slim_channels(channels, 1.0, divisor) == channels for channels in range(8, 2049, 8))


@pytest.mark.parametrize("width", [-0.25, 1.01, float("nan")])
def test_a_width_outside_zero_to_one_is_refused_with_its_value(width: float) -> None:
    with pytest.raises(ValueError, match=f"got {width}"):
        slim_channels(64, width)


def test_the_pseudo_network_of_width_zero_has_the_fewest_channels() -> None:
    assert feature_channels("resnet50", 0.0) == 1
    assert feature_channels("mobilenet_v2", 0.0) == 8


def test_features_at_full_width_have_the_sizes_of_the_papers() -> None:
    sizes: dict[Architecture, int] = {
        "resnet18": 512,
        "resnet34": 512,
        "resnet50": 2048,
        "mobilenet_v2": 1280,
        "mobilenet_v4_conv_small": 1280,
    }
    assert {name: feature_channels(name) for name in sizes} == sizes


def test_only_mobilenet_v4_has_a_layer_between_its_map_and_its_features() -> None:
    names: tuple[Architecture, ...] = get_args(Architecture)
    differing = {name for name in names if map_channels(name) != feature_channels(name)}
    assert differing == {"mobilenet_v4_conv_small"}
    assert map_channels("mobilenet_v4_conv_small") == 960


def test_a_network_that_is_not_slimmable_refuses_other_widths() -> None:
    with pytest.raises(ValueError, match=r"static network: it runs at width 1 alone, got 0\.5"):
        feature_channels("mobilenet_v4_conv_small", 0.5)


def test_resnets_have_as_many_layers_as_their_names_say() -> None:
    layers = {
        name: 2 + sum(spec.blocks) * (3 if spec.block == "bottleneck" else 2)
        for name, spec in RESNETS.items()
    }
    assert all(name == f"resnet{count}" for name, count in layers.items())


def test_residual_blocks_chain() -> None:
    for spec in RESNETS.values():
        blocks = [block for stage in residual_stages(spec) for block in stage]
        assert [b.out_channels for b in blocks[:-1]] == [b.in_channels for b in blocks[1:]]
        assert [b.stride for b in blocks].count(2) == 3


def test_inverted_residuals_are_seventeen_and_ten_have_shortcuts() -> None:
    assert len(INVERTED_RESIDUALS) == 17
    assert sum(block.has_shortcut for block in INVERTED_RESIDUALS) == 10
    assert [b.out_channels for b in INVERTED_RESIDUALS[:-1]] == [
        b.in_channels for b in INVERTED_RESIDUALS[1:]
    ]


@pytest.mark.parametrize(("resolution", "size"), [(224, 7), (96, 3), (192, 6), (33, 2), (32, 1), (225, 8)])
def test_the_last_map_is_a_thirty_second_rounded_up(resolution: int, size: int) -> None:
    assert feature_map_size(resolution) == size
