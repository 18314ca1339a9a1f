"""The check before training: what is missing or broken is counted, named, and refused above a share."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.data.conftest import WriteVideo
from training.data import Clip, DataError, Split
from training.data.checking import check_classes, check_clips, usable_split
from training.data.formats import Dataset, read_dataset
from training.data.tracking import ItemT


@pytest.fixture
def clips(tmp_path: Path, write_video: WriteVideo) -> list[Clip]:
    """Eight clips that can be read, of two classes."""
    return [Clip(write_video(tmp_path / f"{number}.mp4"), (number % 2,), f"g{number}") for number in range(8)]


def test_missing_and_broken_clips_are_told_from_usable_ones(tmp_path: Path, clips: list[Clip]) -> None:
    (tmp_path / "broken.mp4").write_bytes(clips[0].path.read_bytes()[:500])
    broken, missing = (Clip(tmp_path / name, (0,), "g") for name in ("broken.mp4", "missing.mp4"))
    checked = check_clips([*clips[:3], broken, *clips[3:], missing], num_threads=2)
    assert checked.usable == tuple(clips)
    assert [problem.clip for problem in checked.problems] == [broken, missing]
    assert "missing.mp4 is missing" in checked.problems[1].reason
    assert checked.share == 0.2


def test_a_folder_with_fewer_frames_than_its_list_says_is_broken(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(3):
        assert cv2.imwrite(str(tmp_path / "frames" / f"{number}.jpg"), np.zeros((32, 32, 3), np.uint8))
    clip = Clip(tmp_path / "frames", (0,), "g", num_frames=4)
    (problem,) = check_clips([clip], num_threads=1).problems
    assert problem.reason.endswith("frames holds 3 frames; its list says 4")
    assert check_clips([replace(clip, num_frames=3)], num_threads=1).usable


@pytest.mark.parametrize("max_share", [0.1, 0.2])
def test_a_share_is_tolerated_and_more_is_refused_with_a_report(
    tmp_path: Path, clips: list[Clip], max_share: float
) -> None:
    gone = [Clip(tmp_path / f"gone{number}.mp4", (0,), "g") for number in range(2)]
    split, report = Split(("a", "b"), (*clips, gone[0]), (gone[1],)), tmp_path / "unusable.tsv"
    if max_share < 0.2:
        with pytest.raises(
            DataError,
            match=r"2 of 10 clips cannot be used \(20.0%\), more than the 10.0% .*unusable\.tsv names",
        ):
            usable_split(split, report, num_threads=1, max_share=max_share)
    else:
        usable = usable_split(split, report, num_threads=1, max_share=max_share)
        assert (usable.train, usable.test) == (tuple(clips), ())
    assert [line.split("\t")[0] for line in report.read_text().splitlines()[1:]] == [
        str(c.path) for c in gone
    ]


def test_a_report_is_written_only_of_problems(tmp_path: Path, clips: list[Clip]) -> None:
    split = Split(("a", "b"), tuple(clips), ())
    assert usable_split(split, tmp_path / "unusable.tsv", num_threads=1) == split
    assert not (tmp_path / "unusable.tsv").exists()


def test_every_clip_is_tracked(clips: list[Clip]) -> None:
    seen = []

    def track(items: Iterable[ItemT], total: int) -> Iterator[ItemT]:
        for item in items:
            seen.append(total)
            yield item

    check_clips(clips, num_threads=2, track=track)
    assert seen == [8] * 8


def test_one_class_and_misspelt_labels_are_refused() -> None:
    clips = tuple(Clip(Path(f"{number}.mp4"), (number % 2,), "g") for number in range(8))
    with pytest.raises(DataError, match="there is one class, 'wave': at least two are needed"):
        check_classes(Split(("wave",), clips[::2], ()))
    with pytest.raises(
        DataError, match=r"1 of 3 classes have fewer than 2 training clips: 'wvae' has 1 .*; .*misspelt"
    ):
        check_classes(Split(("clap", "wave", "wvae"), (*clips, Clip(Path("x.mp4"), (2,), "g")), ()))
    check_classes(Split(("clap", "wave"), clips, ()))


@pytest.mark.parametrize("name", ["clips.csv", "splits.tsv"])
def test_a_label_misspelt_in_a_list_is_named_by_line_with_the_nearest_before_any_clip_is_opened(
    tmp_path: Path, name: str
) -> None:
    rows = [("file" if name == "splits.tsv" else "path", "label", "group", "split")]
    rows += [(f"{number}.mp4", ("clap", "wave")[number % 2], f"g{number}", "train") for number in range(8)]
    rows.insert(4, ("4.mp4", "wvae", "g4", "train"))
    path = tmp_path / name
    path.write_text("".join(("," if name == "clips.csv" else "\t").join(row) + "\n" for row in rows))
    listed = read_dataset(Dataset(path if name == "clips.csv" else tmp_path, split="split"))
    with pytest.raises(DataError, match=rf"'wvae' has 1 \(.*{name} line 5; did you mean 'wave'\?\); add"):
        usable_split(listed, tmp_path / "unusable.tsv", num_threads=1)
    assert not (tmp_path / "unusable.tsv").exists()
