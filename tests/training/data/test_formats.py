"""`sdcom data`: the right reader for a dataset, by its files or as named."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdcom.__main__ import app as sdcom
from sdcom.errors import InvalidParameterError
from tests.training.data.conftest import WriteVideo
from training.cli.data import app
from training.data import DataError
from training.data.formats import Dataset, Format, read_dataset

HEADER = "file\tlabel\tgroup\tsplit2\n"


@pytest.fixture
def videos(tmp_path: Path, write_video: WriteVideo) -> Path:
    """Class folders: five clips each of two classes."""
    for label in ("clap", "wave"):
        for number in range(5):
            write_video(tmp_path / "videos" / label / f"{number}.mp4")
    return tmp_path / "videos"


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_folders_tables_splits_and_packed_clips_are_told_by_their_files(videos: Path, tmp_path: Path) -> None:
    listed = read_dataset(Dataset(videos))
    assert (len(listed.train), len(listed.test)) == (8, 2)
    rows = [(clip.path.relative_to(videos), listed.labels[clip.label]) for clip in listed.train + listed.test]
    (tmp_path / "clips.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    (videos / "splits.tsv").write_text(
        HEADER + "".join(f"{path}\t{label}\tg\ttrain\n" for path, label in rows)
    )
    _run("pack", videos, tmp_path / "packed", "--split", "split2", "--short-side", 32)
    for dataset in (
        Dataset(tmp_path / "clips.csv", videos=videos),
        Dataset(videos, split="split2"),
        Dataset(tmp_path / "packed"),
    ):
        split = read_dataset(dataset)
        assert split.labels == ("clap", "wave")
        assert len(split.train + split.test) == 10


def test_check_counts_each_class_and_names_what_is_broken(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "10 clips listed, usable  8      2" in _run("check", videos)
    (videos / "wave" / "0.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 10 clips cannot be used \(10\.0%\).*0\.mp4"):
        _run("check", videos)
    output = _run("check", videos, "--max-unusable", 0.1, "--report", "bad.tsv")
    assert "1 clips cannot be used; bad.tsv names them" in output
    assert "wave/0.mp4" in Path("bad.tsv").read_text()


def test_pack_reports_the_unreadable_and_refuses_too_many(videos: Path, tmp_path: Path) -> None:
    (videos / "wave" / "0.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 10 clips cannot be used .*unreadable\.tsv names them"):
        _run("pack", videos, tmp_path / "packed", "--short-side", 32)
    assert "9 clips are in" in _run(
        "pack", videos, tmp_path / "packed", "--short-side", 32, "--max-unusable", 0.2
    )


def test_a_format_that_needs_another_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="--format numbered needs --test FILE"):
        read_dataset(Dataset(tmp_path / "train.txt", Format.NUMBERED))
    with pytest.raises(InvalidParameterError, match="--format something needs --classes FILE"):
        read_dataset(Dataset(tmp_path / "train.json", Format.SOMETHING, test=tmp_path / "validation.json"))


def test_numbered_classes_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    for name, text in (("classes.txt", "0,clap\n1,wave\n"), ("list.txt", "v_1,9,0\n")):
        (tmp_path / name).write_text(text)
    path = tmp_path / "list.txt"
    dataset = Dataset(path, Format.NUMBERED, test=path, classes=tmp_path / "classes.txt")
    assert read_dataset(dataset, labels=("clap", "wave")).labels == ("clap", "wave")
    with pytest.raises(
        InvalidParameterError, match=r"has the classes clap, wave, \.\.\.; the model's are wave, clap"
    ):
        read_dataset(dataset, labels=("wave", "clap"))


def test_the_command_line_has_the_group() -> None:

    assert "data" in CliRunner().invoke(sdcom, ["--help"]).output
    assert "pack" in CliRunner().invoke(app, ["--help"]).output
