"""What a model is: its clip, its networks and its labels. Frozen, and saved beside the weights."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sdcom.sampling import FeedingOrder

StaticArchitecture = Literal["mobilenet_v2", "mobilenet_v4_conv_small", "resnet50"]
DynamicArchitecture = Literal["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClipConfig(_Frozen):
    """How a video becomes the T frames that the networks see.

    Attributes:
        num_frames: T, frames per video.
        short_side: pixels of the short side after resizing (aspect kept).
        crop: pixels of the square centre crop.
        mean: per-channel mean of RGB in [0, 1].
        std: per-channel standard deviation of RGB in [0, 1].
        order: in which the frames of a whole video are fed. Coarse to fine covers it with the first few;
            time is for models that compare a frame with the one before. Live frames come in time order.
    """

    num_frames: int = Field(16, ge=1, le=256)
    short_side: int = Field(256, ge=32, le=1024)
    crop: int = Field(224, ge=32, le=1024)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    order: FeedingOrder = "coarse_to_fine"

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop > self.short_side:
            raise ValueError(f"crop {self.crop} is larger than the resized short side {self.short_side}")
        return self


class ModelConfig(_Frozen):
    """The networks of one SDCOM model.

    Attributes:
        clip: the frames it sees.
        labels: class names; the position is the class index.
        static: architecture of the static network.
        static_resolution: pixels; the clip's crop is resized to it for the static network.
        dynamic: architecture of the slimmable dynamic network, which sees the crop itself.
        temporal_shift: the dynamic network, a ResNet, hands channels from each frame to the next at its
            width; the clip's order is then time.
        widths: W, ascending, starting with 0 and ending with 1.
        same_padding: stride-2 convolutions pad (0, 1, 0, 1), as the weights of TensorFlow models expect,
            instead of symmetrically.
        gate_channels: channels after the gate's 1x1 convolution.
        gate_features: size of the gate's per-frame vector.
        gate_hidden: size of the gate's GRU state.
        fusion_features: size of the fused vector z.
        dropout: before each of the T classifiers, in training.
    """

    clip: ClipConfig = ClipConfig()
    labels: tuple[str, ...] = Field(min_length=2)
    static: StaticArchitecture = "mobilenet_v2"
    static_resolution: int = Field(224, ge=32, le=1024)
    dynamic: DynamicArchitecture = "resnet50"
    temporal_shift: bool = False
    widths: tuple[float, ...] = Field((0.0, 0.25, 0.5, 0.75, 1.0), min_length=2)
    same_padding: bool = False
    gate_channels: int = Field(64, ge=1)
    gate_features: int = Field(1024, ge=1)
    gate_hidden: int = Field(1024, ge=1)
    fusion_features: int = Field(4096, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _widths_ascend(self) -> Self:
        if self.widths[0] != 0 or self.widths[-1] != 1 or list(self.widths) != sorted(set(self.widths)):
            raise ValueError(f"widths must ascend from 0 to 1 without repeats, got {self.widths}")
        if len({round(100 * width) for width in self.widths}) < len(self.widths):
            raise ValueError(f"widths must differ in whole hundredths, got {self.widths}")
        return self

    @model_validator(mode="after")
    def _shift_is_possible(self) -> Self:
        if self.temporal_shift and not self.dynamic.startswith("resnet"):
            raise ValueError(f"temporal_shift needs a ResNet as the dynamic network, got {self.dynamic}")
        if self.temporal_shift and self.clip.order != "time":
            raise ValueError(f"temporal_shift needs frames in the order of time, got {self.clip.order!r}")
        return self

    @property
    def num_widths(self) -> int:
        """K, the number of widths, 0 included."""
        return len(self.widths)

    @property
    def num_labels(self) -> int:
        """L, the number of classes."""
        return len(self.labels)
