"""Mixed precision is taken by itself only where weights alone say that nothing can leave float16."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sdcom
from sdcom.config import DynamicArchitecture, StaticArchitecture
from sdcom.engine.dense import dense
from sdcom.engine.ranges import LARGEST_BOUND, feature_bounds, stays_in_float16
from sdcom.engine.torch_loading import best_precision
from sdcom.model import Model, load_model
from sdcom.models.slimmable import SlimmableBatchNorm2d
from sdcom.preprocess import normalize
from tests.parity.networks import NETWORKS, lively_model, network_config
from tests.sdcom.conftest import patterned_frames

VOLTA, PASCAL = (7, 0), (6, 1)


@pytest.fixture(scope="module")
def bundled() -> Model:
    return load_model(Path(sdcom.__file__).parent / "bundled")


@pytest.mark.parametrize(("static", "dynamic", "same", "crop", "resolution"), NETWORKS)
def test_no_frame_takes_any_layer_beyond_its_bound(
    static: StaticArchitecture, dynamic: DynamicArchitecture, same: bool, crop: int, resolution: int
) -> None:
    networks = lively_model(network_config(static, dynamic, same, crop, resolution)).networks
    clip = networks.config.clip
    for width in (0.25, 1.0):
        network, peaks = dense(networks.dynamic, width), list[float]()
        bound_D, peak = feature_bounds(network, clip, crop)
        for layer in network.modules():
            layer.register_forward_hook(
                lambda _layer, _inputs, out, peaks=peaks: peaks.append(out.abs().max().item())
            )
        for frames_NHWC in (
            patterned_frames(4, 0, crop),
            np.full((1, crop, crop, 3), 255, np.uint8),
            np.zeros((1, crop, crop, 3), np.uint8),
        ):
            with torch.inference_mode():
                x_NCHW = normalize(torch.from_numpy(frames_NHWC), clip)
                features_ND = network.pool(network.feature_map(x_NCHW, 1.0))
            assert not (features_ND.abs() > 1.001 * bound_D).any(), "no number is no bound"
            assert not max(peaks) > 1.001 * peak


def test_the_bundled_model_is_computed_in_mixed_precision_where_tensor_cores_are(bundled: Model) -> None:
    assert best_precision(bundled.networks, VOLTA) == "mixed"
    assert best_precision(bundled.networks, PASCAL) == "fp32"


def test_networks_of_which_nothing_is_known_are_computed_in_float32() -> None:
    networks = lively_model(network_config("mobilenet_v2", "resnet50", False, 64, 32)).networks
    assert best_precision(networks, VOLTA) == "fp32"


@pytest.mark.parametrize(("part", "stays"), [("static", True), ("dynamic", False), ("fusion", False)])
def test_one_layer_that_may_overflow_is_enough_for_float32_but_in_the_network_that_has_it(
    part: str, stays: bool
) -> None:
    networks = lively_model(network_config("mobilenet_v2", "mobilenet_v2", False, 64, 32)).networks
    module: nn.Module = getattr(networks, part)
    norms = [each for each in module.modules() if isinstance(each, SlimmableBatchNorm2d | nn.BatchNorm1d)]
    with torch.no_grad():
        norms[-2 if len(norms) > 1 else 0].bias.fill_(2 * LARGEST_BOUND)
    assert stays_in_float16(networks) == stays


def test_what_is_fused_in_float16_of_the_static_network_must_stay_within_it() -> None:
    networks = lively_model(network_config("mobilenet_v4_conv_small", "mobilenet_v2", False, 64, 32)).networks
    last = [each for each in networks.static.modules() if isinstance(each, SlimmableBatchNorm2d)][-1]
    with torch.no_grad():
        networks.fusion.linear.weight.zero_()
        last.weight.zero_()
        last.bias.fill_(LARGEST_BOUND / 2)
        assert stays_in_float16(networks)
        last.bias.fill_(2 * LARGEST_BOUND)
    assert not stays_in_float16(networks)


@pytest.mark.parametrize("network", ["static", "dynamic"])
def test_what_the_projection_makes_of_either_network_must_stay_within_float16(network: str) -> None:
    networks = lively_model(network_config("mobilenet_v2", "mobilenet_v2", False, 64, 32)).networks
    assert stays_in_float16(networks)
    first = 0 if network == "static" else networks.static.num_features
    with torch.no_grad():
        networks.fusion.linear.weight[:, first : first + 100] = LARGEST_BOUND / 10
        networks.fusion.norm.weight.fill_(1)
    assert not stays_in_float16(networks)


def test_what_is_no_number_stays_within_nothing() -> None:
    networks = lively_model(network_config("mobilenet_v2", "mobilenet_v2", False, 64, 32)).networks
    with torch.no_grad():
        networks.fusion.norm.bias[0] = torch.nan
    assert not stays_in_float16(networks)
