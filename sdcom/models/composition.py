"""The static-dynamic composition: four parts under one roof, each called on its own.

Which frames go through which part, and at which width, is the engine's business (serving) or the policy
stage's (training); this module holds the parts and their sizes.
"""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from sdcom.architecture import feature_map_size
from sdcom.config import ModelConfig
from sdcom.models.backbone import build_backbone
from sdcom.models.fusion import FusionHead
from sdcom.models.gate import Gate
from sdcom.models.temporal_shift import Earlier
from sdcom.preprocess import resize


class StaticView(NamedTuple):
    """What the static network sees in N frames: a map [N, c, h, w] and its pooled features [N, Ds]."""

    map_NCHW: Tensor
    features_ND: Tensor


class SDCOM(nn.Module):
    """Static network, gate, slimmable dynamic network and fusion head (method: TNNLS.2024.3525187)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.static = build_backbone(config.static, (1.0,), config.num_labels, config.same_padding)
        self.dynamic = build_backbone(
            config.dynamic,
            config.widths,
            config.num_labels,
            config.same_padding,
            temporal_shift=config.temporal_shift,
        )
        self.gate = Gate(
            in_channels=self.static.num_map_channels,
            map_size=feature_map_size(config.static_resolution),
            channels=config.gate_channels,
            features=config.gate_features,
            hidden=config.gate_hidden,
            num_widths=config.num_widths,
        )
        self.fusion = FusionHead(
            static_features=self.static.num_features,
            dynamic_features=self.dynamic.num_features,
            hidden=config.fusion_features,
            num_frames=config.clip.num_frames,
            num_labels=config.num_labels,
            dropout=config.dropout,
        )

    def look(self, frames_NCHW: Tensor) -> StaticView:
        """Run the static network on normalised crops [N, 3, crop, crop]."""
        small_NCHW = resize(frames_NCHW, self.config.static_resolution)
        map_NCHW = self.static.feature_map(small_NCHW, 1.0)
        return StaticView(map_NCHW, self.static.pool(map_NCHW))

    def fill(self, frames_NCHW: Tensor, width: float, earlier: Earlier | None = None) -> Tensor:
        """Run the dynamic network at `width` on normalised crops.

        Args:
            frames_NCHW: [N, 3, crop, crop].
            width: one of the model's; 0 costs nothing, and its features are zeros.
            earlier: gives the frame before each at this width, to a model with temporal shift.

        Returns:
            Features [N, Dd], zero-padded.
        """
        num_features = self.dynamic.num_features
        if width == 0:
            return frames_NCHW.new_zeros(len(frames_NCHW), num_features)
        features_ND = self.dynamic.pool(self.dynamic.feature_map(frames_NCHW, width, earlier))
        return functional.pad(features_ND, (0, num_features - features_ND.shape[1]))
