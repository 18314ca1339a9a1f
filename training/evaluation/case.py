"""One model on one set of clips: what a way of answering got right and what it cost.

Shapes: B clips, T frames in feeding order, K widths, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcom.model import Model
from sdcom.recognition import GIGA
from sdcom.sampling import Int64Array
from training.calibration import accuracy_interval
from training.evaluation.metrics import Accuracy, accuracy
from training.evaluation.record import Method, Row
from training.evidence import Evidence, planned_logits

STATIC_CLASSIFIER = "static classifier"
DYNAMIC_CLASSIFIER = "dynamic classifier"
"""The networks' own classifiers: parts of the controls, never of the composition."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """A model, in inference mode, and what its networks said of the clips to score."""

    model: Model
    evidence: Evidence

    @property
    def num_frames(self) -> int:
        """T."""
        return self.model.info.config.clip.num_frames

    def part_macs(self) -> dict[str, int]:
        """Return the MACs a frame of every part, by the names that rows and timings use."""
        networks, macs = self.model.networks, self.model.info.macs
        num_labels = self.model.info.config.num_labels
        return {
            "static": macs.static,
            "gate": macs.gate,
            "fusion": macs.fusion,
            **{dynamic_at(width): count for width, count in macs.dynamic.items() if width > 0},
            STATIC_CLASSIFIER: networks.static.num_features * num_labels,
            DYNAMIC_CLASSIFIER: networks.dynamic.num_features * num_labels,
        }

    def logits(self, choices_BT: Int64Array) -> FloatArray:
        """Return the composition's anytime logits [B, T, L] at these widths."""
        logits_BTL = planned_logits(self.model.networks, self.evidence, choices_BT)
        return np.asarray(logits_BTL.float().cpu().numpy())

    def score(self, logits_BL: FloatArray) -> Accuracy:
        """Return how often logits are right."""
        return accuracy(logits_BL, self.evidence.labels)

    def row(
        self,
        method: Method,
        setting: float | None,
        scored: Accuracy,
        frames: dict[str, float],
        *,
        top1_spread: float = 0.0,
    ) -> Row:
        """Return a row whose cost is that of these mean frames through each part."""
        macs = self.part_macs()
        return Row(
            method=method,
            setting=setting,
            accuracy=scored,
            frames=frames,
            gflops={part: count * macs[part] / GIGA for part, count in frames.items()},
            top1_spread=top1_spread,
            top1_interval=accuracy_interval(scored.top1, len(self.evidence.labels)),
        )

    def composed_frames(
        self, choices_BT: Int64Array, fed_B: Int64Array | None = None, *, gated: bool = True
    ) -> dict[str, float]:
        """Return the mean frames of a video that each part of the composition sees.

        Args:
            choices_BT: indices into the widths.
            fed_B: how many frames of each video are fed, the first ones; None feeds all.
            gated: whether a gate chose the widths; controls need none, and are not charged for it.
        """
        num_clips, num_frames = choices_BT.shape
        fed_B = np.full(num_clips, num_frames) if fed_B is None else fed_B
        fed_BT = np.arange(num_frames)[None] < fed_B[:, None]
        widths = self.model.info.config.widths
        counts_K = np.bincount(choices_BT[fed_BT], minlength=len(widths)) / num_clips
        fed = float(fed_B.mean())
        return {
            "static": fed,
            **({"gate": fed} if gated else {}),
            **{dynamic_at(widths[k]): float(counts_K[k]) for k in range(len(widths)) if widths[k] > 0},
            "fusion": fed,
        }


def dynamic_at(width: float) -> str:
    """Return the name of the dynamic network at a width, as `sdcom bench` gives it."""
    return f"dynamic at {width:g}"


def running_mean(logits_BTL: FloatArray) -> FloatArray:
    """Return what a TSN says after each frame: the mean of the logits so far."""
    counts_T = np.arange(1, logits_BTL.shape[1] + 1, dtype=np.float32)
    return np.asarray(np.cumsum(logits_BTL, axis=1) / counts_T[:, None])


def frame_counts(num_frames: int) -> Sequence[int]:
    """Return how many first frames are tried: each up to 16, beyond that about as many."""
    return sorted({round(count) for count in np.linspace(1, num_frames, min(num_frames, 16))})
