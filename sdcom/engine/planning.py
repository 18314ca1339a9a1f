"""From what a request may cost to the widths or the price that keep within it (pure).

Shapes: T frames, K widths.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from sdcom.budget import Allowance, Currency, WidthPlan, plan_together
from sdcom.checkpoint import CalibrationPoint, ModelInfo
from sdcom.engine.backend import Float32Array
from sdcom.engine.composed import Planner
from sdcom.engine.hardware import HardwareCosts
from sdcom.errors import FlopsBelowFloorError, InvalidParameterError, TimeBelowFloorError
from sdcom.recognition import GIGA, Budget


def allowed_macs(info: ModelInfo, budget: Budget | None) -> int | None:
    """Return the MACs that a video's T frames may cost under a budget, or the model's default.

    None is no limit in MACs: there is no budget, or it is one in milliseconds.
    """
    if budget is None and info.default_budget is not None:
        budget = Budget(share=info.default_budget)
    if budget is None or budget.ms is not None:
        return None
    return budget.macs(info.macs.baseline(info.config.clip.num_frames))


def video_limit(info: ModelInfo, budget: Budget | None) -> int | None:
    """Return the MACs that a video may cost; None is no limit in MACs.

    Raises:
        FlopsBelowFloorError: the budget cannot pay for the static network, gate and fusion.
    """
    allowed = allowed_macs(info, budget)
    if allowed is None:
        return None
    macs, num_frames = info.macs, info.config.clip.num_frames
    baseline, floor = macs.baseline(num_frames), macs.floor(num_frames)
    if allowed < floor:
        raise FlopsBelowFloorError(allowed / GIGA, floor / GIGA, baseline / GIGA)
    return allowed


def video_allowance(
    info: ModelInfo,
    budget: Budget | None,
    *,
    hardware: HardwareCosts | None = None,
    max_budget: float = 1.0,
) -> Allowance:
    """Return what a budget and a ceiling leave to the dynamic network; both hold.

    Args:
        info: of the model.
        budget: what the video may cost; None is the model's default.
        hardware: what each part of it takes here; None is not measured.
        max_budget: share of the baseline's FLOPs that it may cost besides, whatever the currency of the
            budget; one below the floor leaves nothing, and 1 is no limit.

    Raises:
        BudgetBelowFloorError: the budget cannot pay for the static network, gate and fusion.
        InvalidParameterError: it is in milliseconds, which were not measured.
    """
    macs_K, num_frames = info.macs.dynamic_by_choice, info.config.clip.num_frames
    macs_left = None if max_budget >= 1 else _above_floor(info, max_budget)
    if budget is None or budget.microseconds is None:
        limit = video_limit(info, budget)
        left = None if limit is None else limit - info.macs.floor(num_frames)
        return Allowance(Currency.of_macs(macs_K), left, macs_left)
    if hardware is None:
        raise InvalidParameterError(
            "a budget in milliseconds needs the times of this machine: run `sdcom calibrate --hardware` on "
            "the model, with the engine, device, precision and threads that it is loaded with, and load it "
            "again"
        )
    left = budget.microseconds - hardware.floor_us(num_frames)
    if left < 0:
        raise TimeBelowFloorError(budget.microseconds / 1000, hardware.floor_us(num_frames) / 1000)
    return Allowance(Currency(hardware.dynamic_by_choice, macs_K), left, macs_left)


def _above_floor(info: ModelInfo, share: float) -> int:
    """Return the MACs that a share of the baseline's leaves to the dynamic network, at least 0."""
    macs, num_frames = info.macs, info.config.clip.num_frames
    return max(0, Budget(share=share).macs(macs.baseline(num_frames)) - macs.floor(num_frames))


def video_planner(
    info: ModelInfo,
    budget: Budget | None,
    *,
    hardware: HardwareCosts | None = None,
    max_budget: float = 1.0,
) -> Planner:
    """Return the function that turns a video's gate logits [T, K] into widths.

    Arguments and errors are those of `video_allowance`.
    """
    return video_allowance(info, budget, hardware=hardware, max_budget=max_budget)


def plan_each(videos: Sequence[tuple[Planner, Float32Array]]) -> list[WidthPlan | Exception]:
    """Return the plan of each video, or what its planner raised.

    Allowances of one currency are planned together: the same plans in a twentieth of the time.

    Args:
        videos: a planner and gate logits [T, K] of each.
    """
    alike: dict[tuple[Currency, tuple[int, ...]], dict[int, Allowance]] = defaultdict(dict)
    for number, (planner, logits_TK) in enumerate(videos):
        if isinstance(planner, Allowance):
            alike[planner.currency, logits_TK.shape][number] = planner
    plans: dict[int, WidthPlan] = {}
    for allowances in alike.values():
        with suppress(Exception):  # which video is to blame comes out below
            together = plan_together([*allowances.values()], [videos[number][1] for number in allowances])
            plans.update(zip(allowances, together, strict=True))
    return [plans.get(number) or _plan_or_error(*video) for number, video in enumerate(videos)]


def _plan_or_error(planner: Planner, logits_TK: Float32Array) -> WidthPlan | Exception:
    try:
        return planner(logits_TK)
    except Exception as exc:  # whatever it is, it is this video's
        return exc


def stream_price(info: ModelInfo, budget: Budget | None) -> float:
    """Return the price that keeps a stream within a budget on average.

    A stream has no video to plan over: the calibration table's smallest price whose mean cost is within the
    budget counts, or the largest price where none is. What the table does not count, the gate's new run over
    the window at every frame, is set aside first.

    Raises:
        FlopsBelowFloorError: the budget named cannot pay for the static network, gate and fusion.
        InvalidParameterError: a budget is named and the model was never calibrated, or it is in milliseconds.
    """
    if budget is not None and budget.ms is not None:
        raise InvalidParameterError(
            "a stream's budget is a share or GFLOPs: its frames come one by one, and what was measured in "
            "milliseconds are whole videos"
        )
    allowed = allowed_macs(info, budget)
    if allowed is None:
        return 0.0
    if not info.calibration:
        raise InvalidParameterError(
            f"{info.full_name} has no calibration table, which a stream's budget needs"
        )
    num_frames = info.config.clip.num_frames
    baseline, floor = info.macs.baseline(num_frames), info.macs.stream_floor(num_frames)
    # The model's own default was chosen for videos; a caller who names no budget has nothing to correct.
    if budget is not None and allowed < floor:
        raise FlopsBelowFloorError(allowed / GIGA, floor / GIGA, baseline / GIGA, whose="a stream's")
    return _smallest_price_within(info.calibration, (allowed - (floor - info.macs.floor(num_frames))) / GIGA)


def _smallest_price_within(points: Sequence[CalibrationPoint], max_gmacs: float) -> float:
    """Return the smallest price whose mean cost is within the limit, or the largest where none is."""
    fitting = [point.lam for point in points if point.gmacs <= max_gmacs]
    return min(fitting) if fitting else max(point.lam for point in points)
