"""The reference composition: plain torch, frames of one video grouped by width, deterministic.

Every faster engine must agree with this one. A video is computed alone, so that the same bytes give the
same answer to the last digit whatever else is in flight.

Shapes: T frames in feeding order, H W pixels, L labels, D features, K widths.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcom.budget import WidthPlan
from sdcom.checkpoint import Model
from sdcom.engine.composed import Composed, Planner
from sdcom.engine.ledger import Ledger, Part
from sdcom.models.composition import SDCOM
from sdcom.models.temporal_shift import earlier_rows
from sdcom.preprocess import normalize

__all__ = ["Composed", "Planner", "compose"]


@torch.inference_mode()
def compose(model: Model, frames_THWC: npt.NDArray[np.uint8], choose: Planner) -> Composed:
    """Run one video through the composition.

    Args:
        model: in inference mode.
        frames_THWC: the resized, cropped RGB frames in feeding order.
        choose: turns the gate's logits into a width for every frame.
    """
    config, macs, networks = model.info.config, model.info.macs, model.networks
    num_frames = len(frames_THWC)
    ledger = Ledger(baseline_macs=macs.baseline(num_frames))
    stage_s: dict[Part, float] = {}
    device = next(networks.parameters()).device

    with _timed(stage_s, Part.STATIC, device):
        frames_TCHW = normalize(torch.from_numpy(frames_THWC).to(device), config.clip)
        view = networks.look(frames_TCHW)
    ledger.macs[Part.STATIC] += macs.static * num_frames

    with _timed(stage_s, Part.GATE, device):
        embeddings_TF = networks.gate.embed(view.map_NCHW)
        gate_logits_BTK, _ = networks.gate.decide(embeddings_TF[None])
        plan = choose(gate_logits_BTK[0].float().cpu().numpy())
    ledger.macs[Part.GATE] += macs.gate * num_frames
    ledger.lam = plan.lam

    with _timed(stage_s, Part.DYNAMIC, device):
        dynamic_TD = _fill_by_width(networks, frames_TCHW, plan)
    for choice in plan.choices:
        ledger.width_counts[config.widths[choice]] += 1
    ledger.macs[Part.DYNAMIC] += plan.macs

    with _timed(stage_s, Part.FUSION, device):
        logits_TL = networks.fusion(view.features_ND[None], dynamic_TD[None])[0]
    ledger.macs[Part.FUSION] += macs.fusion * num_frames
    return Composed(logits_TL.float().cpu().numpy(), plan, ledger, stage_s)


def _fill_by_width(networks: SDCOM, frames_TCHW: Tensor, plan: WidthPlan) -> Tensor:
    """Run the dynamic network once per width chosen, on all of that width's frames; return [T, Dd].

    Frames of one width follow each other as they were fed: in time, where the network shifts between them.
    """
    choices_T = torch.tensor(plan.choices, device=frames_TCHW.device)
    features_TD = frames_TCHW.new_zeros(len(frames_TCHW), networks.dynamic.num_features)
    for choice in sorted(set(plan.choices)):
        width = networks.config.widths[choice]
        if width > 0:
            rows = (choices_T == choice).nonzero()[:, 0]
            one_before_another = earlier_rows(torch.arange(len(rows), device=rows.device) - 1)
            features_TD[rows] = networks.fill(frames_TCHW[rows], width, one_before_another)
    return features_TD


@contextmanager
def _timed(stage_s: dict[Part, float], part: Part, device: torch.device) -> Iterator[None]:
    started = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    stage_s[part] = time.perf_counter() - started
