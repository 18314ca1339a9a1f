"""Clips answered one at a time, as serving does: to hold a server's answers against, and to time.

The rows of an evaluation come from `training.evidence`, many clips at once; the tests hold the two together.
"""

import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

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
