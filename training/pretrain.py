"""Where training starts from: the ImageNet weights of the networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdcom.errors import InvalidParameterError
from sdcom.models.backbone import Backbone
from sdcom.models.channel_order import sort_channels_by_importance
from sdcom.models.composition import SDCOM
from sdcom.models.mobilenet_v2 import SlimmableMobileNetV2
from sdcom.models.pretrained import load_folded_mobilenet_v2, load_torchvision_weights
from sdcom.preprocess import normalize
from training.batches import evaluation_clip
from training.data.sources import ClipSource
from training.distributed import broadcast_state
from training.recipes import Recipe

FOLDED_SUFFIX = ".npz"
IMAGENET_CLASSES = 1000
FOLDED_CLASSES = IMAGENET_CLASSES + 1  # a background class before them


@dataclass(frozen=True, slots=True)
class Start:
    """ImageNet weights to start from, one file for each network; None starts that one from random ones."""

    static_weights: Path | None
    dynamic_weights: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that there are."""
        return tuple(file for file in (self.static_weights, self.dynamic_weights) if file is not None)


def new_networks(recipe: Recipe, start: Start | None, source: ClipSource) -> SDCOM:
    """Return the networks on the source's device, with ImageNet weights if there are any to start from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        networks = SDCOM(recipe.model)
    if start is not None:
        start_from_imagenet(
            networks,
            start.static_weights,
            start.dynamic_weights,
            calibration_frames(source, networks, np.random.default_rng(recipe.seed)),
            sort_channels=recipe.supernet.sort_channels,
        )
    broadcast_state(networks.to(source.device))
    layout = (
        torch.channels_last if source.device.type == "cuda" else torch.contiguous_format
    )  # CPU: torch crashes
    return networks.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]  # torch's gap


def start_from_imagenet(
    networks: SDCOM,
    static_weights: Path | None,
    dynamic_weights: Path | None,
    frames_NCHW: Tensor,
    *,
    sort_channels: bool,
) -> None:
    """Load ImageNet weights into the networks.

    Args:
        networks: those with weights are overwritten, but for their classifiers.
        static_weights: a torchvision-named file, or `.npz` of a folded MobileNetV2; None leaves the network.
        dynamic_weights: likewise.
        frames_NCHW: normalised frames, to recover the batch norm of folded weights with.
        sort_channels: order the dynamic MobileNetV2's channels by importance.

    Raises:
        ModelDirectoryError: a file cannot be read, or is not of the network's architecture.
        InvalidParameterError: a folded MobileNetV2 is given to another network.
    """
    if static_weights is not None:
        _load(networks.static, (1.0,), static_weights, frames_NCHW, sort_channels=False)
    if dynamic_weights is not None:
        widths = networks.config.widths
        _load(networks.dynamic, widths, dynamic_weights, frames_NCHW, sort_channels=sort_channels)


def _load(
    network: Backbone, widths: Sequence[float], path: Path, frames_NCHW: Tensor, *, sort_channels: bool
) -> None:
    is_folded, is_mobilenet = path.suffix == FOLDED_SUFFIX, isinstance(network, SlimmableMobileNetV2)
    if is_folded and not is_mobilenet:
        raise InvalidParameterError(
            f"{path} holds a MobileNetV2, which a {type(network).__name__} cannot load: give each network "
            "its own file, with --static-weights and --dynamic-weights"
        )
    if not is_folded and not (sort_channels and is_mobilenet):
        load_torchvision_weights(network, path)
        return
    # With ImageNet's classifier, which tells how much the last features matter.
    original = SlimmableMobileNetV2(
        widths, FOLDED_CLASSES if is_folded else IMAGENET_CLASSES, same_padding=is_folded
    )
    if is_folded:
        load_folded_mobilenet_v2(original, path, frames_NCHW)
    else:
        load_torchvision_weights(original, path)
    if sort_channels:
        sort_channels_by_importance(original)
    state = {name: value for name, value in original.state_dict().items() if "classifier" not in name}
    network.load_state_dict(state, strict=False)


def calibration_frames(
    source: ClipSource, networks: SDCOM, rng: np.random.Generator, count: int = 64
) -> Tensor:
    """Return one normalised frame [N, 3, crop, crop] each of `count` random training clips, on the CPU."""
    clip = networks.config.clip
    chosen = rng.permutation(len(source.clips))[:count]
    frames = [evaluation_clip(source, int(i), clip)[0] for i in chosen]
    return normalize(torch.stack(frames).cpu(), clip)
