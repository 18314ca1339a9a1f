"""Class folders: somebody's own videos, sorted by hand; what is wrong with them is said by name."""

from pathlib import Path

import pytest

from training.data import DataError
from training.data.folders import halves, read_class_folders


def _fill(folder: Path, num_clips: int, suffix: str = ".mp4") -> None:
    folder.mkdir(parents=True)
    for number in range(num_clips):
        (folder / f"clip{number}{suffix}").touch()


def test_each_folder_is_a_class_and_a_fifth_of_its_videos_is_the_test_side(tmp_path: Path) -> None:
    _fill(tmp_path / "wave", 10)
    _fill(tmp_path / "clap", 5, ".WEBM")
    (tmp_path / "wave" / "notes.txt").touch()
    (tmp_path / "wave" / ".hidden.mp4").touch()
    (tmp_path / ".cache").mkdir()
    split = read_class_folders(tmp_path)
    assert split.labels == ("clap", "wave")
    assert [clip.label for clip in split.train].count(1) == 8
    assert [clip.label for clip in split.test].count(1) == 2
    assert [clip.label for clip in split.test].count(0) == 1
    every = {clip.path for clip in split.train + split.test}
    assert len(every) == 15
    assert all(split.labels[clip.label] == clip.path.parent.name for clip in split.train + split.test)
    assert read_class_folders(tmp_path) == split, "the same every time"


def test_the_test_side_hardly_changes_when_a_video_is_added() -> None:
    names = [f"clip{number}.mp4" for number in range(50)]
    before, after = set(halves(names)[1]), set(halves([*names, "another.mp4"])[1])
    assert len(before ^ after) <= 1


def test_folders_of_frames_are_clips_too(tmp_path: Path) -> None:
    for label in ("clap", "wave"):
        for number in range(4):
            clip = tmp_path / label / f"clip{number}"
            clip.mkdir(parents=True)
            (clip / "img_00001.jpg").touch()
    (tmp_path / "wave" / "empty").mkdir()
    split = read_class_folders(tmp_path)
    assert len(split.train + split.test) == 8
    assert all(clip.path.is_dir() for clip in split.train)


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("training", "val")])
def test_train_and_test_folders_are_the_two_sides(tmp_path: Path, train: str, test: str) -> None:
    for label in ("clap", "wave"):
        _fill(tmp_path / train / label, 4)
        _fill(tmp_path / test / label, 1)
    split = read_class_folders(tmp_path)
    assert {clip.path.parts[-3] for clip in split.train} == {train}
    assert [clip.path.parts[-3] for clip in split.test] == [test, test]


def test_a_models_labels_decide_the_indices_and_others_are_refused(tmp_path: Path) -> None:
    for label in ("clap", "wave"):
        _fill(tmp_path / label, 4)
    split = read_class_folders(tmp_path, labels=("wave", "sit", "clap"))
    assert {clip.path.parent.name: clip.label for clip in split.train} == {"clap": 2, "wave": 0}
    with pytest.raises(DataError, match=r"clap is not one of the model's classes \(wave, sit"):
        read_class_folders(tmp_path, labels=("wave", "sit"))


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    _fill(tmp_path / "wave", 9)
    with pytest.raises(DataError, match="one class folder, 'wave': there is nothing to tell it from; add"):
        read_class_folders(tmp_path)


def test_a_folder_of_videos_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(DataError, match="holds no class folders: a folder of videos for each class"):
        read_class_folders(tmp_path)
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        read_class_folders(tmp_path / "nowhere")


def test_an_empty_class_is_named_with_the_kinds_of_videos_that_count(tmp_path: Path) -> None:
    _fill(tmp_path / "wave", 4)
    _fill(tmp_path / "clap", 4, ".wmv")
    with pytest.raises(DataError, match=r"clap holds no videos \(\.mp4, \.webm.*remove it or fill it"):
        read_class_folders(tmp_path)


def test_a_class_of_too_few_clips_is_named_with_both_numbers(tmp_path: Path) -> None:
    _fill(tmp_path / "wave", 4)
    _fill(tmp_path / "clap", 3)
    with pytest.raises(DataError, match=r"clap holds 3 clips; at least 4 are needed"):
        read_class_folders(tmp_path)
    assert len(read_class_folders(tmp_path, min_clips=3).labels) == 2
