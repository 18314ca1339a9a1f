"""Every architecture, kind of padding and way of resizing, for engines to agree on."""

import numpy as np
import numpy.typing as npt

from sdcom.checkpoint import ModelInfo
from sdcom.config import ClipConfig, DynamicArchitecture, ModelConfig, StaticArchitecture
from sdcom.model import Model
from tests.conftest import TINY_CONFIG, lively_networks

NETWORKS: list[tuple[StaticArchitecture, DynamicArchitecture, bool, int, int]] = [
    # static network, dynamic, SAME padding, crop, resolution
    ("mobilenet_v2", "mobilenet_v2", False, 64, 64),
    ("mobilenet_v2", "mobilenet_v2", True, 75, 33),
    ("mobilenet_v4_conv_small", "resnet18", False, 64, 48),
    ("mobilenet_v4_conv_small", "resnet34", True, 67, 40),
    ("resnet50", "resnet50", False, 64, 32),
    ("resnet50", "resnet50", True, 70, 35),
]


def network_config(
    static: StaticArchitecture, dynamic: DynamicArchitecture, same: bool, crop: int, resolution: int
) -> ModelConfig:
    """Return the tiny model with these networks."""
    return ModelConfig(
        **TINY_CONFIG.model_dump(exclude={"clip", "static", "dynamic", "same_padding", "static_resolution"}),
        clip=ClipConfig(num_frames=4, short_side=crop, crop=crop),
        static=static,
        dynamic=dynamic,
        same_padding=same,
        static_resolution=resolution,
    )


def lively_model(config: ModelConfig) -> Model:
    """Return a model with seeded random weights whose answers depend on every frame."""
    info = ModelInfo(name="both", version="0", config=config)
    return Model(info, lively_networks(config).requires_grad_(requires_grad=False))


def assert_close(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> None:
    """Compare arrays to 1e-4 of the largest value of the second."""
    scale = np.abs(theirs).max()
    assert scale > 1e-3, "zeros agree with everything"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * scale)
