"""From what the networks say of a video to its answer: what was asked, what is to come, and what is told."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from sdcom.cancellation import Cancellation
from sdcom.checkpoint import ModelInfo
from sdcom.engine.composed import Composed
from sdcom.recognition import FrameResult, Recognition, VideoFacts, leaders, top_predictions
from sdcom.sampling import feeding_order
from sdcom.video import DecodedClip


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller wants to know, and until when."""

    top_k: int
    max_budget: float
    deadline: float | None
    cancellation: Cancellation


@dataclass(frozen=True, slots=True)
class Submitted:
    """A decoded video that the networks have, whose answer is to come.

    Attributes:
        composed: what they will say; may be cancelled.
        answer: turns it into the answer.
    """

    composed: Future[Composed]
    answer: Callable[[Composed], Recognition]

    def result(self) -> Recognition:
        """Wait for the answer.

        Raises:
            DeadlineExceededError: the deadline passed first.
            OverloadedError: the recognizer was closed first.
        """
        return self.answer(self.composed.result())


def answerer(
    info: ModelInfo, clip: DecodedClip, asked: Asked, waits_s: Mapping[str, float]
) -> Callable[[Composed], Recognition]:
    """Return what makes the answer of what the networks say of a clip; it does not keep the frames.

    Args:
        info: of the model.
        clip: decoded.
        asked: for what.
        waits_s: seconds of `queue`, before the networks took the frames in, and `decode`.
    """
    times_s, labels, widths = clip.times_s, info.config.labels, info.config.widths
    order = feeding_order(info.config.clip.num_frames, info.config.clip.order).tolist()
    facts = VideoFacts(
        duration_s=clip.duration_s,
        width=clip.width,
        height=clip.height,
        container=clip.container,
        codec=clip.codec,
        decoder=clip.decoder,
        num_unreadable_frames=clip.num_unreadable_frames,
        num_missing_frames=clip.num_missing_frames,
    )

    def answer(composed: Composed) -> Recognition:
        composed.ledger.max_budget = asked.max_budget
        timing_ms = {stage: seconds * 1e3 for stage, seconds in waits_s.items()}
        timing_ms["queue"] += composed.queue_s * 1e3
        timing_ms |= {str(part): seconds * 1e3 for part, seconds in composed.stage_s.items()}
        best_T = leaders(composed.logits_TL, labels)
        by_place = {
            place: FrameResult(times_s[place], widths[choice], best.label, best.score)
            for place, choice, best in zip(order, composed.plan.choices, best_T, strict=False)
        }
        return Recognition(
            model=info.full_name,
            predictions=top_predictions(composed.logits_TL[-1], labels, asked.top_k),
            frames=tuple(by_place[place] for place in sorted(by_place)),
            ledger=composed.ledger,
            timing_ms=timing_ms,
            video=facts,
        )

    return answer
