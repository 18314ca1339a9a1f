"""Fields of a recipe by dotted names: typed, and refused with what would be right."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from sdcom.errors import InvalidParameterError, UnknownNameError
from training.overrides import assignments_of, field_names, override
from training.published import something_v2
from training.recipes import Optimization, Recipe
from training.small import own_videos, tiny

RECIPE = tiny(("clap", "wave"))


def test_fields_of_any_depth_and_type_are_set_and_the_rest_stays() -> None:
    changed = override(
        RECIPE,
        [
            "policy.optimization.epochs=5",
            "supernet.optimization.learning_rate = 3e-4",
            "policy.frozen_statistics=true",
            "policy.weighting=meta",
            "policy.meta.subset_size=20",
            "augmentation.scales=1,0.8",
            "model.clip.mean=0.5, 0.5, 0.5",
            "model.widths=(0, 0.5, 1)",
            "model.static=mobilenet_v4_conv_small",
            "name=mine=yours",
        ],
    )
    policy = replace(
        RECIPE.policy,
        optimization=replace(RECIPE.policy.optimization, epochs=5),
        frozen_statistics=True,
        weighting="meta",
        meta=replace(RECIPE.policy.meta, subset_size=20),
    )
    optimization = replace(RECIPE.supernet.optimization, learning_rate=3e-4)
    clip = RECIPE.model.clip.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    model = {"clip": clip, "widths": (0.0, 0.5, 1.0), "static": "mobilenet_v4_conv_small"}
    expected = replace(
        RECIPE,
        name="mine=yours",
        policy=policy,
        supernet=replace(RECIPE.supernet, optimization=optimization),
        augmentation=replace(RECIPE.augmentation, scales=(1.0, 0.8)),
        model=RECIPE.model.model_copy(update=model),
    )
    assert changed == expected
    assert isinstance(changed.policy.optimization.epochs, int)
    assert all(isinstance(scale, float) for scale in changed.augmentation.scales)


def test_nothing_set_leaves_the_recipe_as_it_was() -> None:
    assert override(RECIPE, []) == RECIPE


@pytest.mark.parametrize(("text", "milestones"), [("", ()), ("()", ()), ("3,", (3,)), ("3, 5", (3, 5))])
def test_tuples_of_any_length_can_be_written(text: str, milestones: tuple[int, ...]) -> None:
    changed = override(RECIPE, [f"policy.optimization.milestones={text}"])
    assert changed.policy.optimization.milestones == milestones


@dataclass(frozen=True)
class Run:
    """A recipe with a stage that may be left out."""

    first: Optimization | None = field(default_factory=Optimization)


def test_an_optional_group_can_be_left_out_or_set_field_by_field() -> None:
    assert override(Run(), ["first=none"]) == Run(first=None)
    assert override(Run(), ["first.epochs=7"]) == Run(first=Optimization(epochs=7))
    with pytest.raises(InvalidParameterError, match="set it to none, or its fields one by one"):
        override(Run(), ["first=yes"])


def test_an_optional_text_can_be_given_and_taken_away() -> None:
    given = override(RECIPE, ["supernet.teacher=runs/big"])
    assert given.supernet.teacher == "runs/big"
    assert override(given, ["supernet.teacher=none"]) == RECIPE


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("policy.optimisation.epochs", "policy.optimization.epochs"),
        ("policy.efficiency_wieght", "policy.efficiency_weight"),
        ("model.clip.num_frame", "model.clip.num_frames"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(
        UnknownNameError, match=f"unknown field of the recipe '{name}'; did you mean '{nearest}'"
    ):
        override(RECIPE, [f"{name}=1"])


def test_a_name_without_its_groups_is_told_the_few_fields_that_end_so_and_where_all_are() -> None:
    few = (
        "'static.optimization.epochs', 'policy.optimization.epochs' or 'supernet.optimization.epochs'"
        r"\? sdcom train --fields RECIPE lists them all$"
    )
    with pytest.raises(UnknownNameError, match=f"'epochs'; did you mean .*{few}"):
        override(own_videos(("clap", "wave")), ["epochs=1"])
    with pytest.raises(UnknownNameError, match=r"'policy\.optimization\.batch_size' or 'supernet\.optim"):
        override(RECIPE, ["batchsize=1"])


def test_a_name_like_no_field_is_told_where_all_are_instead_of_all_of_them() -> None:
    with pytest.raises(UnknownNameError, match=r"'zzz'; sdcom train --fields RECIPE lists them all$"):
        override(RECIPE, ["zzz=1"])


@pytest.mark.parametrize("recipe", [tiny, own_videos, something_v2])
def test_a_recipe_written_out_field_by_field_is_that_recipe(recipe: Callable[..., Recipe]) -> None:
    written = recipe(("clap", "wave"))
    assert override(written, assignments_of(written)) == written
    other = override(written, ["policy.optimization.epochs=99", "augmentation.flip=false"])
    assert override(written, assignments_of(other)) == other


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("policy.optimization.epochs=five", "'five'; expected a whole number"),
        ("policy.optimization.epochs=5.5", r"'5\.5'; expected a whole number"),
        ("policy.optimization.epochs=", "''; expected a whole number"),
        ("policy.temperature=nan", "'nan'; expected a finite number"),
        ("policy.temperature=warm", "'warm'; expected a finite number"),
        ("policy.frozen_statistics=perhaps", "'perhaps'; expected true or false"),
        ("policy.optimization.optimizer=adam", "'adam'; expected one of sgd, adamw"),
        ("augmentation.scales=1,big", "separated by commas, any number of them, each a finite number"),
        ("model.clip.std=1,1", "separated by commas, 3 of them, each a finite number"),
    ],
)
def test_a_wrong_type_is_refused_with_what_is_expected(assignment: str, expected: str) -> None:
    name = assignment.partition("=")[0]
    with pytest.raises(InvalidParameterError, match=f"{name} is .*{expected}"):
        override(RECIPE, [assignment])


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["policy.optimization.epochs"], "NAME=VALUE expected"),
        (["seed=1", "seed=2"], "seed is set twice"),
        (["policy.meta=1"], r"policy\.meta is a group of fields; set one of them: policy\.meta\.hidden, "),
        (["model.labels=a,b"], "it comes from the data"),
        (["=1"], "unknown field of the recipe ''"),
    ],
)
def test_an_assignment_that_is_none_is_refused(assignments: list[str], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        override(RECIPE, assignments)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("policy.optimization.batch_size=0", r"policy\.optimization: batch_size must be at least 1, got 0"),
        ("policy.num_views=3", "policy: num_views needs a frozen static network"),
        ("model.static_resolution=8", r"model\.static_resolution: .*greater than or equal to 32"),
        ("model.temporal_shift=true", "model: .*needs frames in the order of time, got 'coarse_to_fine'"),
        ("model.widths=0,0.5", "model: .*widths must ascend from 0 to 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_the_recipe_itself(assignment: str, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        override(RECIPE, [assignment])


def test_fields_that_need_each_other_are_set_together() -> None:
    frozen = ["policy.num_views=2", "policy.static_multiplier=0", "policy.frozen_statistics=yes"]
    assert override(RECIPE, frozen).policy.num_views == 2
    shifting = override(RECIPE, ["model.temporal_shift=on", "model.clip.order=time"])
    assert shifting.model.temporal_shift
    with pytest.raises(InvalidParameterError, match="recipe: views of a model with temporal shift"):
        override(something_v2(("a", "b")), frozen)


def test_every_field_but_the_labels_can_be_named() -> None:
    names = field_names(RECIPE)
    assert {"name", "seed", "model.clip.crop", "supernet.optimization.epochs"} <= set(names)
    assert "model.labels" not in names
    assert not any(isinstance(_at(RECIPE, name), dict) for name in names)


def _at(recipe: Recipe, name: str) -> object:
    value: object = recipe
    for part in name.split("."):
        value = getattr(value, part)
    return value
