"""Recipes: everything that decides a training run, as frozen values built by plain functions."""

from dataclasses import dataclass, replace
from typing import Literal

from sdcom.config import ClipConfig, ModelConfig
from training.batches import Augmentation


@dataclass(frozen=True, slots=True)
class Optimization:
    """An optimiser and its schedule.

    Attributes:
        optimizer: SGD has momentum 0.9; both decay weights.
        learning_rate: the base rate.
        weight_decay: L2 (SGD) or decoupled (AdamW).
        epochs: passes over the training clips.
        batch_size: videos a step.
        warmup_epochs: linear, from a tenth of the base rate.
        milestones: epochs at which the rate falls to a tenth; empty is a cosine to zero.
        max_gradient_norm: larger gradients are scaled down to it.
        accumulation: equal parts that a process's share of a batch is worked on in, one after the other, to
            save memory; batch norms see one part at a time.
        precision: of the networks on CUDA; fp16 comes with loss scaling. Elsewhere all is float32.

    Raises:
        ValueError: a count is below 1, the epochs below 0, or the learning rate not above 0.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    weight_decay: float = 1e-4
    epochs: int = 100
    batch_size: int = 32
    warmup_epochs: int = 2
    milestones: tuple[int, ...] = (40, 80)
    max_gradient_norm: float = 20.0
    accumulation: int = 1
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"

    def __post_init__(self) -> None:
        counts = {"batch_size": self.batch_size, "accumulation": self.accumulation}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.learning_rate <= 0 or self.epochs < 0:
            raise ValueError(f"{self.learning_rate=} must be positive and {self.epochs=} not negative")


@dataclass(frozen=True, slots=True)
class SupernetRecipe:
    """Stage 1: the slimmable dynamic network.

    Attributes:
        optimization: of all its parameters.
        num_frames: frames per video in this stage.
        label_smoothing: at width 1.
        ema_decay: of the teacher's parameters and buffers.
        pseudo_width: train the one-channel network of width 0 too.
        anchor_weight: of the distance of every width's features to those of the network that the stage
            started from; 0 turns it off. Keeps pretrained features when labelled clips are few.
        full_width_anchor: times that weight at width 1, whose features the narrower ones pull at.
        frozen_statistics: leave width 1's batch norm statistics as they were.
        sort_channels: reorder channels by importance first, which changes nothing at width 1.
        classifier_multiplier: of the learning rate of the classifier, which starts from nothing; 0 leaves it
            as it is.
        label_weight: share of the class losses' gradient that reaches the features; 0 trains them by
            distillation alone, and only the classifier by labels.
        teacher: directory of a trained model to distil from, with the same classes and normalisation: its
            dynamic network at full width takes the place of the network that the stage started from
            (`anchor_weight`), and gives targets besides the labels.
        teacher_weight: of the cross entropy of every width to the teacher's class probabilities.

    Raises:
        ValueError: nothing would train the features.
    """

    optimization: Optimization = Optimization()
    num_frames: int = 16
    label_smoothing: float = 0.1
    ema_decay: float = 0.997
    pseudo_width: bool = True
    anchor_weight: float = 0.0
    full_width_anchor: float = 1.0
    frozen_statistics: bool = False
    sort_channels: bool = False
    classifier_multiplier: float = 1.0
    label_weight: float = 1.0
    teacher: str | None = None
    teacher_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.label_weight == 0 and self.anchor_weight == 0:
            raise ValueError(
                "label_weight 0 leaves the features without a loss: it needs anchor_weight above 0"
            )

    @property
    def learns_classes(self) -> bool:
        """Whether class losses train anything."""
        return self.label_weight > 0 or self.classifier_multiplier > 0


@dataclass(frozen=True, slots=True)
class StaticRecipe:
    """Teaching the static network to see at its small input what it saw at the full one, without labels.

    Attributes:
        optimization: of all its parameters but the classifier's.
        num_frames: frames per video in this stage.
    """

    optimization: Optimization = Optimization()
    num_frames: int = 16


@dataclass(frozen=True, slots=True)
class MetaRecipe:
    """Meta-learned weighting of the policy's losses (`training/meta.py`).

    Attributes:
        hidden: units of the meta network.
        learning_rate: of its Adam.
        weight_decay: L2, of its Adam.
        subset_size: training clips that an epoch's meta batches are drawn from.
        plain_decay: d of alpha = exp(-d * epoch^2), the share of the plain sum in the weights.
        efficiency_scale: of the cost in that sum and in what the meta network sees; 1 is the paper's.
    """

    hidden: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    subset_size: int = 500
    plain_decay: float = 0.005
    efficiency_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class PolicyRecipe:
    """Stage 2: static network, gate and fusion head, over the frozen dynamic network.

    Attributes:
        optimization: the base; each part has a multiplier of its learning rate.
        static_multiplier: of the static network.
        classifier_multiplier: of the static network's auxiliary classifier.
        gate_multiplier: of the gate.
        fusion_multiplier: of the fusion head.
        weighting: how cross entropy and efficiency are weighed: by `efficiency_weight`, or each frame's by
            what a meta network has learnt.
        efficiency_weight: of the cost of the widths chosen, in fixed weighting.
        highest_price: in nats, of a full-width frame. Each video's widths are drawn at a price between 0 and
            this, as a request's budget would set one, so that the gate and the fusion head learn every
            budget; 0 trains them at no price, as the method has it.
        price_growth: the cost weighs `exp(price_growth * price)` times as much where the price is higher.
        meta: the meta network's, in meta weighting.
        temperature: of the Gumbel-softmax.
        frozen_statistics: leave the static network's batch norm statistics as they were.
        diversity_weight: of the term that asks the supplement to say something else.
        label_smoothing: of the cross entropies.
        num_views: how many views of each clip both networks see once, before the first epoch, so that only
            the heads run from then on; the first view is the one that serving sees. Needs a frozen static
            network, and none with temporal shift. 0 draws new views every epoch.

    Raises:
        ValueError: nothing would learn, or views are to be remembered of a static network that learns.
    """

    optimization: Optimization = Optimization(epochs=50, warmup_epochs=0, milestones=(20, 40))
    static_multiplier: float = 0.5
    classifier_multiplier: float = 0.5
    gate_multiplier: float = 0.1
    fusion_multiplier: float = 5.0
    weighting: Literal["fixed", "meta"] = "fixed"
    efficiency_weight: float = 0.7
    highest_price: float = 0.0
    price_growth: float = 0.0
    meta: MetaRecipe = MetaRecipe()
    temperature: float = 5.0
    frozen_statistics: bool = False
    diversity_weight: float = 1.0
    label_smoothing: float = 0.0
    num_views: int = 0

    def __post_init__(self) -> None:
        multipliers = {
            name: getattr(self, name)
            for name in ("static_multiplier", "classifier_multiplier", "gate_multiplier", "fusion_multiplier")
        }
        if not any(multipliers.values()):
            raise ValueError(f"nothing would learn: one of {', '.join(multipliers)} must be above 0")
        if self.num_views and not (self.static_multiplier == 0 and self.frozen_statistics):
            raise ValueError(
                "num_views needs a frozen static network: static_multiplier=0, frozen_statistics=True"
            )


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run: the model, the data's augmentation, and the stages in their order.

    Attributes:
        name: of the model that comes out.
        model: its networks.
        augmentation: of training clips.
        supernet: stage 1.
        static: the static network learns its small input before stage 2; None leaves it out.
        policy: stage 2.
        gate: after it, the gate alone learns to choose at every price, while all else is frozen; None leaves
            it out.
        validation_share: of the training groups, held out to calibrate on.
        seed: of everything random.

    Raises:
        ValueError: views are to be remembered of a model with temporal shift, where what a frame says
            depends on the widths drawn for the others; or more than the gate would learn in the gate's own
            stage, or from other views than the policy's.
    """

    name: str
    model: ModelConfig
    augmentation: Augmentation
    supernet: SupernetRecipe
    policy: PolicyRecipe
    static: StaticRecipe | None = None
    gate: PolicyRecipe | None = None
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model.temporal_shift and self.policy.num_views:
            raise ValueError("views of a model with temporal shift cannot be remembered: num_views=0")
        if self.gate is not None:
            self._check_gate(self.gate)

    def _check_gate(self, gate: PolicyRecipe) -> None:
        multipliers = {
            name: getattr(gate, name)
            for name in ("static_multiplier", "classifier_multiplier", "fusion_multiplier")
        }
        if learning := {name: value for name, value in multipliers.items() if value}:
            raise ValueError(f"nothing but the gate learns in its own stage: {learning} must be 0")
        if not gate.frozen_statistics:
            raise ValueError("nothing but the gate learns in its own stage: frozen_statistics must be true")
        if gate.num_views != self.policy.num_views:
            raise ValueError(
                f"the gate's stage sees the policy's views: gate.num_views={gate.num_views} must be "
                f"policy.num_views={self.policy.num_views}"
            )

    @property
    def stages(self) -> dict[str, SupernetRecipe | StaticRecipe | PolicyRecipe]:
        """The stages that there are, in their order, by their names here."""
        named = {
            "supernet": self.supernet,
            "static": self.static,
            "policy": self.policy,
            "gate": self.gate,
        }
        return {name: stage for name, stage in named.items() if stage is not None}


def for_weights(recipe: Recipe, *, of_tensorflow: bool) -> Recipe:
    """Return the recipe with pixels normalised and padded as the weights that it starts from expect.

    Args:
        recipe: whose model may say otherwise.
        of_tensorflow: RGB in [-1, 1] and stride-2 layers padded as TensorFlow does; else as torchvision.
    """
    clip = recipe.model.clip
    conventions: dict[str, object] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    if not of_tensorflow:
        conventions = {name: ClipConfig.model_fields[name].default for name in ("mean", "std")}
    model = recipe.model.model_copy(
        update={"clip": clip.model_copy(update=conventions), "same_padding": of_tensorflow}
    )
    return replace(recipe, model=model)
