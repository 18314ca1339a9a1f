"""Prices in stage 2, and the stage in which the gate alone learns to choose at each of them."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdcom.budget import choose_widths
from sdcom.cost import model_macs
from sdcom.models.composition import SDCOM
from sdcom.preprocess import normalize
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import batches_of, patterned_store
from training.batches import Augmentation
from training.checkpoints import Checkpoints, Identity
from training.data.tracking import ItemT, Track
from training.draws import drawn_prices
from training.loop import LoopOptions
from training.optimize import build_optimizer
from training.policy import Course, PolicyStage, frame_losses, priced, train_policy
from training.recipes import Optimization, PolicyRecipe
from training.records import EpochStart, Journal, StepRecord
from training.views import PolicyBatch, RememberedViews, every_width

B, T = 2, TINY_CONFIG.clip.num_frames
QUICK = Optimization(learning_rate=0.02, epochs=2, batch_size=4, warmup_epochs=0, milestones=())
POLICY = PolicyRecipe(
    optimization=QUICK, num_views=2, static_multiplier=0.0, gate_multiplier=1.0, frozen_statistics=True
)
GATE = replace(POLICY, classifier_multiplier=0.0, fusion_multiplier=0.0, highest_price=10.0, price_growth=0.3)
NEW_VIEWS = replace(POLICY, num_views=0, static_multiplier=0.5, frozen_statistics=False)


class _KilledError(Exception):
    """Raised where a run is to end."""


class _Watch:
    """Notes steps and what the networks are when a stage begins; ends the run after a step, if told to."""

    def __init__(self, networks: SDCOM, killed_after: tuple[str, int, int] | None = None) -> None:
        self._networks = networks
        self._killed_after = killed_after
        self.steps: list[tuple[str, int, int, Mapping[str, float]]] = []
        self.began: dict[str, Mapping[str, torch.Tensor]] = {}

    def on_start(self, start: EpochStart) -> None:
        if start.stage not in self.began:
            self.began[start.stage] = copy.deepcopy(self._networks.state_dict())

    def on_step(self, record: StepRecord) -> None:
        place = (record.stage, record.epoch, record.step)
        self.steps.append((*place, record.losses))
        if place == self._killed_after:
            raise _KilledError

    def on_epoch(self, _stage: str, _epoch: int, _losses: Mapping[str, float]) -> None:
        pass


@pytest.fixture(scope="module")
def pristine() -> SDCOM:
    return lively_networks(TINY_CONFIG)


@pytest.fixture
def networks(pristine: SDCOM) -> SDCOM:
    return copy.deepcopy(pristine)


def _courses(policy: PolicyRecipe, gate: PolicyRecipe) -> list[Course]:
    augmentation = Augmentation(time_order_share=0.5)
    source = patterned_store(8)
    return [
        Course(name, recipe, batches_of(source, TINY_CONFIG.clip, augmentation, stage=stage))
        for name, recipe, stage in (("policy", policy, 2), ("gate", gate, 5))
    ]


def _train(
    networks: SDCOM,
    policy: PolicyRecipe,
    directory: Path | None = None,
    killed_after: tuple[str, int, int] | None = None,
) -> _Watch:
    watch = _Watch(networks, killed_after)
    loop = LoopOptions(
        journal=Journal([watch]),
        checkpoints=None if directory is None else Checkpoints(directory, Identity("a recipe", "data")),
        log_interval=1,
        checkpoint_interval=1,
    )
    train_policy(networks, _courses(policy, replace(GATE, num_views=policy.num_views)), loop)
    return watch


def _seen(networks: SDCOM, price: float) -> PolicyBatch:
    torch.manual_seed(1)
    frames_NCHW = torch.randn(B * T, 3, TINY_CONFIG.clip.crop, TINY_CONFIG.clip.crop)
    noise_NK = torch.zeros(B * T, TINY_CONFIG.num_widths)
    price_N = torch.full((B * T,), price)
    return PolicyBatch(
        frames_NCHW, *every_width(networks, frames_NCHW), noise_NK, price_N, torch.eye(3)[[2, 0]]
    )


def test_a_price_leads_to_the_choices_that_serving_makes_at_it() -> None:
    macs = model_macs(TINY_CONFIG)
    logits_NK = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 5)) * 4)
    cheaper = []
    for lam in (0.0, 0.5, 3.0, 10.0):
        priced_NK = priced(logits_NK, torch.full((300,), lam, dtype=torch.float64), macs)
        plan = choose_widths(logits_NK.numpy(), macs.dynamic_by_choice, lam)
        assert priced_NK.argmax(dim=1).tolist() == list(plan.choices)
        cheaper.append(plan.macs)
    assert cheaper == sorted(cheaper, reverse=True)
    assert len(set(cheaper)) == 4


def test_at_a_price_the_policy_learns_from_fewer_macs(networks: SDCOM) -> None:
    recipe = PolicyRecipe()
    free, dear = (
        frame_losses(networks, _seen(networks, price), recipe, "fp32").efficiency_N for price in (0.0, 1e6)
    )
    assert free.detach().any()
    torch.testing.assert_close(dear.detach(), torch.zeros(B * T), atol=1e-6, rtol=0)


def test_the_cost_weighs_more_where_the_price_is_higher(networks: SDCOM) -> None:
    flat, growing = (
        frame_losses(
            networks, _seen(networks, 0.5), PolicyRecipe(highest_price=1.0, price_growth=growth), "fp32"
        )
        for growth in (0.0, 0.6)
    )
    assert flat.efficiency_N.detach().any()
    torch.testing.assert_close(growing.efficiency_N, flat.efficiency_N * np.exp(0.6 * 0.5))
    torch.testing.assert_close(growing.cross_entropy_N, flat.cross_entropy_N)
    torch.testing.assert_close(growing.diversity, flat.diversity)


@pytest.mark.parametrize("policy", [POLICY, NEW_VIEWS], ids=["remembered", "new"])
def test_in_the_gates_stage_nothing_but_the_gate_changes(networks: SDCOM, policy: PolicyRecipe) -> None:
    watch = _train(networks, policy)
    before = watch.began["gate"]
    moved = {name for name, value in networks.state_dict().items() if not torch.equal(value, before[name])}
    learned = {f"gate.{name}" for name, _ in networks.gate.named_parameters()}
    assert moved >= learned
    assert {name.partition(".")[0] for name in moved} == {"gate"}
    of_policy = {
        name for name, value in before.items() if not torch.equal(value, watch.began["policy"][name])
    }
    assert "fusion.norm.running_mean" in of_policy, "its statistics moved as long as it learnt"


def test_in_the_gates_stage_dropout_stays_on_and_the_optimiser_has_the_gate_alone(networks: SDCOM) -> None:
    _, course = _courses(POLICY, GATE)
    views = RememberedViews(networks, course.batches, GATE.num_views, "fp32")
    stage = PolicyStage(networks, views, course.batches, course.recipe, name=course.name)
    optimizer = build_optimizer(stage.parts(), QUICK)
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert moved == {id(parameter) for parameter in networks.gate.parameters()}
    stage.begin_epoch(0)
    fusion = networks.fusion
    assert (fusion.dropout.training, fusion.norm.training, networks.static.training) == (True, False, False)


def test_the_gates_stage_sees_the_policys_views(networks: SDCOM) -> None:
    of_policy, of_gate = (course.batches for course in _courses(POLICY, GATE))
    views = RememberedViews(networks.eval(), of_policy, 1, "fp32")
    chosen_SB = of_gate.chosen(0)
    (recalled,) = views.split(of_gate, 0, next(views.draw(of_gate, 0, 0, chosen_SB)), 1, GATE.highest_price)
    order_T = of_gate.feeding_order(0, 0)
    ours, its_own = (
        every_width(
            networks,
            torch.cat(
                [normalize(drawn.view(0, clip, order_T).frames_THWC, drawn.clip) for clip in chosen_SB[0]]
            ),
        )[0]
        for drawn in (of_policy, of_gate)
    )
    torch.testing.assert_close(recalled.supplements_KND, ours, rtol=2e-3, atol=2e-3)
    assert not torch.allclose(ours, its_own, rtol=0.1, atol=0.1), "its own would have been other crops"
    torch.testing.assert_close(
        recalled.price_N, drawn_prices(of_gate, 0, torch.tensor(chosen_SB[0]), GATE.highest_price)
    )


def test_the_views_are_remembered_once_for_both_courses(networks: SDCOM) -> None:
    shown: list[str] = []

    def tracked(description: str) -> Track:
        def track(items: Iterable[ItemT], total: int) -> Iterator[ItemT]:
            shown.extend([description] * total)
            yield from items

        return track

    courses = [
        replace(course, batches=replace(course.batches, tracked=tracked)) for course in _courses(POLICY, GATE)
    ]
    train_policy(networks, courses, LoopOptions())
    assert shown == 8 * ["remembering views of clips"]


@pytest.mark.parametrize(
    ("policy", "killed_after"),
    [(POLICY, ("policy", 1, 1)), (POLICY, ("gate", 1, 0)), (NEW_VIEWS, ("gate", 0, 0))],
    ids=["remembered views, policy", "remembered views, gate", "new views, gate"],
)
def test_a_policy_killed_in_either_course_ends_with_the_same_weights_bit_for_bit(
    pristine: SDCOM, tmp_path: Path, policy: PolicyRecipe, killed_after: tuple[str, int, int]
) -> None:
    undisturbed, killed, resumed = (copy.deepcopy(pristine) for _ in range(3))
    whole = _train(undisturbed, policy)
    with pytest.raises(_KilledError):
        _train(killed, policy, tmp_path, killed_after)
    rest = _train(resumed, policy, tmp_path)
    assert 0 < len(rest.steps) < len(whole.steps)
    assert rest.steps == whole.steps[-len(rest.steps) :]
    ours = resumed.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in undisturbed.state_dict().items())
