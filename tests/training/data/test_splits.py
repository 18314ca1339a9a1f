"""Lists of clips: malformed ones are refused by line, and groups stay whole."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data import Clip, DataError, hold_out_groups, read_split

HEADER = "file\tlabel\tgroup\tsplit1\n"

some_clips = st.lists(
    st.builds(
        Clip,
        st.just(Path("clip.mp4")),
        st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True).map(tuple),
        st.sampled_from([f"group {index}" for index in range(12)]),
    ),
    max_size=40,
)


def _write(folder: Path, text: str) -> Path:
    (folder / "splits.tsv").write_text(text)
    return folder


def test_a_split_is_read_with_labels_in_alphabetical_order(tmp_path: Path) -> None:
    text = HEADER + "w/1.mp4\twave\tfilm1\ttrain\nc/1.mp4\tclap\tfilm2\ttest\nw/2.mp4\twave\tfilm1\ttrain\n"
    split = read_split(_write(tmp_path, text), "split1")
    group = f"{tmp_path.name}/film1"
    assert split.labels == ("clap", "wave")
    assert split.train == (
        Clip(tmp_path / "w/1.mp4", (1,), group),
        Clip(tmp_path / "w/2.mp4", (1,), group),
    )
    assert split.test == (Clip(tmp_path / "c/1.mp4", (0,), f"{tmp_path.name}/film2"),)


def test_a_models_labels_decide_the_indices(tmp_path: Path) -> None:
    folder = _write(tmp_path, HEADER + "1.mp4\twave\tfilm\ttrain\n")
    split = read_split(folder, "split1", labels=("stand", "wave", "clap"))
    assert split.labels == ("stand", "wave", "clap")
    assert split.train[0].label == 1


def test_groups_of_two_datasets_are_never_the_same(tmp_path: Path) -> None:
    groups = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        split = read_split(_write(tmp_path / name, HEADER + "1.mp4\twave\tfilm\ttrain\n"), "split1")
        groups.add(split.train[0].group)
    assert len(groups) == 2


def test_a_folder_without_a_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"splits\.tsv is missing"):
        read_split(tmp_path, "split1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no rows"),
        (HEADER, "it has no rows"),
        ("file\tlabel\n1.mp4\twave\n", "needs the columns file, label, group and split1; it has file, label"),
        (HEADER + "1.mp4\twave\tfilm\ttrain\n2.mp4\twave\tfilm\tval\n", "line 3: split1 is 'val', train or"),
        (HEADER + "1.mp4\twave\tfilm\ttrain\n\n2.mp4\n", "line 4: fewer than 4 columns"),
    ],
)
def test_a_malformed_list_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_split(_write(tmp_path, text), "split1")


def test_a_label_that_the_model_does_not_have_is_refused_by_line(tmp_path: Path) -> None:
    folder = _write(tmp_path, HEADER + "1.mp4\twave\tfilm\ttrain\n2.mp4\tdance\tfilm\ttest\n")
    with pytest.raises(DataError, match=r"line 3: label 'dance' is not one of the model's labels$"):
        read_split(folder, "split1", labels=("clap", "wave"))
    _write(tmp_path, HEADER + "1.mp4\twvae\tfilm\ttrain\n")
    with pytest.raises(DataError, match=r"line 2: label 'wvae' .*; did you mean 'wave'"):
        read_split(folder, "split1", labels=("clap", "wave"))


def test_a_split_that_does_not_exist_is_told_apart_from_those_that_do(tmp_path: Path) -> None:
    folder = _write(tmp_path, HEADER + "1.mp4\twave\tfilm\ttrain\n")
    with pytest.raises(DataError, match="split9; it has file, label, group, split1"):
        read_split(folder, "split9")


@pytest.mark.shared
def test_the_real_clips_have_no_group_on_both_sides(shared_dir: Path) -> None:
    for column in ("split1", "split2", "split3"):
        split = read_split(shared_dir / "data" / "jhmdb", column)
        assert len(split.labels) == 21
        assert len(split.train) + len(split.test) == 928
        assert not {clip.group for clip in split.train} & {clip.group for clip in split.test}
        assert all(clip.path.is_file() for clip in split.test)


def _labels(clips: Iterable[Clip]) -> set[int]:
    return {label for clip in clips for label in clip.labels}


def _groups(clips: Iterable[Clip]) -> set[str]:
    return {clip.group for clip in clips}


def _could_be_spared(group: str, kept: Sequence[Clip]) -> bool:
    """Whether every class of a group would still be learnt from others."""
    rest = [clip for clip in kept if clip.group != group]
    return _labels(clip for clip in kept if clip.group == group) <= _labels(rest)


@given(some_clips, st.floats(0, 0.99), st.integers(0, 5))
def test_holding_out_never_splits_a_group_and_loses_no_clip_and_no_class(
    clips: list[Clip], share: float, seed: int
) -> None:
    kept, held = hold_out_groups(clips, share, np.random.default_rng(seed))
    assert not _groups(kept) & _groups(held)
    assert len(kept) + len(held) == len(clips)
    assert _labels(kept) == _labels(clips)
    missing = round(share * len(_groups(clips))) - len(_groups(held))
    assert missing >= 0
    assert missing == 0 or not any(_could_be_spared(group, kept) for group in _groups(kept))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.floats(0, 0.99), st.integers(0, 5))
def test_every_class_that_can_spare_a_group_has_one_held_out_as_far_as_the_share_goes(
    num_groups: list[int], share: float, seed: int
) -> None:
    clips = [
        Clip(Path("clip.mp4"), (label,), f"group {label}.{number}")
        for label, count in enumerate(num_groups)
        for number in range(count)
    ]
    _, held = hold_out_groups(clips, share, np.random.default_rng(seed))
    can_spare = sum(count > 1 for count in num_groups)
    assert len(_labels(held)) == min(can_spare, round(share * len(clips)))


def test_a_clip_of_several_labels_is_held_out_for_each_of_them() -> None:
    both = [Clip(Path("clip.mp4"), (0, 1), f"both {number}") for number in range(2)]
    single = [Clip(Path("clip.mp4"), (number % 2,), f"single {number}") for number in range(8)]
    for seed in range(5):
        _, held = hold_out_groups([*single, *both], 0.1, np.random.default_rng(seed))
        assert len(held) == 1
        assert held[0].labels == (0, 1)


def test_a_classs_only_group_is_never_held_out_however_small_the_data() -> None:
    one_film_each = [
        Clip(Path(f"{number}.mp4"), (number % 10,), f"film {number % 10}") for number in range(40)
    ]
    assert hold_out_groups(one_film_each, 0.1, np.random.default_rng(0)) == (tuple(one_film_each), ())
    one_more = [*one_film_each, Clip(Path("more.mp4"), (3,), "another film")]
    kept, held = hold_out_groups(one_more, 0.1, np.random.default_rng(0))
    assert _labels(kept) == set(range(10))
    assert _labels(held) == {3}


@given(some_clips, st.integers(0, 5))
def test_holding_out_is_the_same_for_the_same_seed_whatever_the_order(clips: list[Clip], seed: int) -> None:
    one = hold_out_groups(clips, 0.3, np.random.default_rng(seed))
    again = hold_out_groups(clips, 0.3, np.random.default_rng(seed))
    backwards = hold_out_groups(clips[::-1], 0.3, np.random.default_rng(seed))
    assert one == again
    assert _groups(one[1]) == _groups(backwards[1])


def test_holding_out_nothing_keeps_everything() -> None:
    clips = [Clip(Path("clip.mp4"), (0,), f"group {index}") for index in range(9)]
    assert hold_out_groups(clips, 0, np.random.default_rng(0)) == (tuple(clips), ())
