"""How often a model is right and what that costs, through the composition that serves.

One clip at a time and on the serving decoders, so that a server's answers can be held against these, clip
by clip.
"""

import json
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from sdcom.preprocess import normalize
from sdcom.recognition import GIGA, Budget
from sdcom.recognizer import Recognizer
from training.data import Clip

UNLIMITED = Budget(gflops=1e6)
"""More than any video costs: the trained policy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was said of one clip: the class index, and the GFLOPs it took."""

    predicted: int
    gflops: float


@dataclass(frozen=True, slots=True)
class Score:
    """A row of the table: how often right, and the mean GFLOPs of a video."""

    name: str
    top1: float
    gflops: float
    share: float


Answer = Callable[[Clip], Outcome]


def offline(recognizer: Recognizer, budget: Budget | None) -> Answer:
    """Answer with the recognizer itself, within a budget (None: the model's default)."""

    def answer(clip: Clip) -> Outcome:
        recognition = recognizer.recognize(clip.path, top_k=1, budget=budget)
        return Outcome(recognition.predictions[0].index, recognition.ledger.total_macs / GIGA)

    return answer


def over_http(url: str, budget: Budget | None) -> Answer:
    """Answer by posting the file to a running server, within a budget (None: the model's default)."""
    named = {} if budget is None else {"budget": budget.share, "max_gflops": budget.gflops}
    query = "&".join(f"{name}={value}" for name, value in named.items() if value is not None)

    def answer(clip: Clip) -> Outcome:
        request = urllib.request.Request(  # noqa: S310 - the caller's own server
            f"{url}/recognize?{query}", data=clip.path.read_bytes(), headers={"Content-Type": "video/mp4"}
        )
        with urllib.request.urlopen(request) as response:  # noqa: S310
            document = json.load(response)
        return Outcome(document["predictions"][0]["index"], document["compute"]["gflops"])

    return answer


def full_width(recognizer: Recognizer) -> Answer:
    """Answer with the baseline: the dynamic network at full width on every frame, logits averaged (TSN)."""
    networks, macs = recognizer.model.networks, recognizer.model.info.macs
    clip_config = recognizer.model.info.config.clip

    @torch.inference_mode()
    def answer(clip: Clip) -> Outcome:
        frames_THWC = recognizer.decoders.decode(clip.path).frames_THWC
        logits_TL = networks.dynamic(normalize(torch.from_numpy(frames_THWC), clip_config), 1.0)
        return Outcome(int(logits_TL.mean(dim=0).argmax()), macs.baseline(len(frames_THWC)) / GIGA)

    return answer


def static_alone(recognizer: Recognizer) -> Answer:
    """Answer with the static network and its auxiliary classifier on every frame, logits averaged."""
    networks, info = recognizer.model.networks, recognizer.model.info
    classifier_macs = networks.static.num_features * info.config.num_labels

    @torch.inference_mode()
    def answer(clip: Clip) -> Outcome:
        frames_THWC = recognizer.decoders.decode(clip.path).frames_THWC
        view = networks.look(normalize(torch.from_numpy(frames_THWC), info.config.clip))
        logits_L = networks.static.classify(view.features_ND).mean(dim=0)
        macs = len(frames_THWC) * (info.macs.static + classifier_macs)
        return Outcome(int(logits_L.argmax()), macs / GIGA)

    return answer


def score(name: str, clips: Sequence[Clip], outcomes: Iterable[Outcome], baseline_gflops: float) -> Score:
    """Sum up outcomes, one a clip: the share is of GFLOPs summed, never of ratios averaged."""
    outcomes = list(outcomes)
    right = sum(outcome.predicted == clip.label for clip, outcome in zip(clips, outcomes, strict=True))
    gflops = sum(outcome.gflops for outcome in outcomes)
    return Score(name, right / len(clips), gflops / len(clips), gflops / (baseline_gflops * len(clips)))
