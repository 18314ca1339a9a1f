"""CSV and TSV tables: read to the letter, refused by line."""

from pathlib import Path

import pytest

from training.data import Clip, DataError
from training.data.tables import read_table

TABLE = """path,label,group,split
a/1.mp4,wave,film1,train
a/2.mp4,clap;wave,film1,Train
"b/3, second take.webm", clap ,film2,test
b/4.mp4,wave,film2,val
"""


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_table_gives_paths_labels_groups_and_sides(tmp_path: Path) -> None:
    split = read_table(_write(tmp_path / "clips.csv", TABLE), Path("/videos"))
    assert split.labels == ("clap", "wave")
    assert split.train == (
        Clip(Path("/videos/a/1.mp4"), (1,), "clips/film1"),
        Clip(Path("/videos/a/2.mp4"), (0, 1), "clips/film1"),
    )
    assert split.test == (
        Clip(Path("/videos/b/3, second take.webm"), (0,), "clips/film2"),
        Clip(Path("/videos/b/4.mp4"), (1,), "clips/film2"),
    )


def test_tabs_and_another_order_of_columns_do_as_well_and_a_byte_order_mark_is_no_letter(
    tmp_path: Path,
) -> None:
    text = "\ufefflabel\tpath\nwave\t1.mp4\nclap\t2.mp4\n\nwave\t3.mp4\nclap\t4.mp4\n"
    split = read_table(_write(tmp_path / "clips.tsv", text))
    assert {clip.path.name: clip.label for clip in split.train + split.test} == {
        "1.mp4": 1,
        "2.mp4": 0,
        "3.mp4": 1,
        "4.mp4": 0,
    }
    assert split.train[0].path.parent == tmp_path


def test_without_a_split_whole_groups_of_each_class_are_the_test_side(tmp_path: Path) -> None:
    rows = [
        f"{label}{number}.mp4,{label},{label}{number // 2}" for label in ("a", "b") for number in range(20)
    ]
    split = read_table(_write(tmp_path / "clips.csv", "path,label,group\n" + "\n".join(rows)))
    assert not {clip.group for clip in split.train} & {clip.group for clip in split.test}
    assert [clip.label for clip in split.test] == [0] * 4 + [1] * 4
    assert len(split.train) == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: the first line must name the columns path, label; it is empty"),
        ("1.mp4,wave\n2.mp4,clap\n", r"line 1: the first line must name .* it is 1\.mp4, wave"),
        ("path,label\n", r"lists no clips"),
        ("path,label\n1.mp4,wave\n2.mp4\n", r"line 3: 1 columns; 2 were expected \(path, label\)"),
        ("path,label\n1.mp4,wave\n\n2.mp4,a,b\n", r"line 4: 3 columns; 2 were expected"),
        ("path,label\n,wave\n", r"line 2: the path is empty"),
        ("path,label\n1.mp4,\n", r"line 2: label '' is empty"),
        ("path,label\n1.mp4,wave;\n", r"line 2: label 'wave;' is empty, or one of several is"),
        ("path,label,split\n1.mp4,wave,train\n2.mp4,wave,dev\n", r"line 3: split is 'dev'; train or test"),
    ],
)
def test_a_malformed_table_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(_write(tmp_path / "clips.csv", text))


def test_a_label_that_the_model_does_not_have_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = _write(tmp_path / "clips.csv", "path,label\n1.mp4,wave\n2.mp4,wvae\n")
    with pytest.raises(
        DataError, match="line 3: label 'wvae' is not one of the 2 classes; did you mean 'wave'"
    ):
        read_table(path, labels=("clap", "wave"))


def test_a_table_of_another_kind_and_one_in_another_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has the suffix '\.xlsx'; \.csv or \.tsv was expected"):
        read_table(_write(tmp_path / "clips.xlsx", TABLE))
    (tmp_path / "clips.csv").write_bytes("path,label\n1.mp4,wink\n2.mp4,gähnen\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 3: not UTF-8 text"):
        read_table(tmp_path / "clips.csv")
    with pytest.raises(DataError, match=r"gone\.csv is missing"):
        read_table(tmp_path / "gone.csv")
