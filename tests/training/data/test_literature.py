"""Lists of ActivityNet, FCVID, Mini-Kinetics and Something-Something, on samples true to their formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.data import Clip, DataError, Split
from training.data.activitynet import read_activitynet
from training.data.kinetics import read_kinetics
from training.data.numbered import read_classes, read_numbered_lists
from training.data.something import read_something

ACTIVITYNET: dict[str, Any] = {
    "version": "VERSION 1.3",
    "taxonomy": [{"parentName": "Root", "nodeName": "Sports", "nodeId": 1, "parentId": 0}],
    "database": {
        "sJFgo9H6zNo": {
            "annotations": [],
            "duration": 128.17,
            "resolution": "1280x720",
            "subset": "testing",
            "url": "https://www.youtube.com/watch?v=sJFgo9H6zNo",
        },
        "V1zhqaGFY2A": {
            "annotations": [
                {"label": "Surfing", "segment": [0.01, 9.1]},
                {"label": "Cricket", "segment": [20.0, 30.0]},
                {"label": "Surfing", "segment": [50.0, 60.1]},
            ],
            "duration": 130.1,
            "resolution": "320x180",
            "subset": "training",
            "url": "https://www.youtube.com/watch?v=V1zhqaGFY2A",
        },
        "JDg--pjY5gg": {
            "annotations": [{"label": "Cricket", "segment": [2.0, 9.0]}],
            "duration": 11.2,
            "resolution": "640x480",
            "subset": "validation",
            "url": "https://www.youtube.com/watch?v=JDg--pjY5gg",
        },
    },
}

KINETICS = """label,youtube_id,time_start,time_end,split,is_cc
clapping,--07WQ2iBlw,1,11,train,0
"making a cake",-3B32lodo2M,59,69,train,0
clapping,3E7Jib8Yq5M,118,128,validate,0
"""

TEMPLATES = (
    "Holding something",
    "Pushing something from left to right",
    "Pushing something from right to left",
)
SOMETHING = [
    {
        "id": "78687",
        "label": "pushing potato from left to right",
        "template": "Pushing [something] from left to right",
        "placeholders": ["potato"],
    },
    {"id": "42326", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]},
]


def _write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


def test_activitynet_gives_distinct_labels_in_order_and_the_sides_that_have_any(tmp_path: Path) -> None:
    (tmp_path / "v_V1zhqaGFY2A.mkv").touch()
    (tmp_path / "v_JDg--pjY5gg").mkdir()
    split = read_activitynet(_write(tmp_path / "activity_net.json", ACTIVITYNET), tmp_path)
    assert split == Split(
        ("Cricket", "Surfing"),
        (Clip(tmp_path / "v_V1zhqaGFY2A.mkv", (1, 0), "ActivityNet/V1zhqaGFY2A"),),
        (Clip(tmp_path / "v_JDg--pjY5gg", (0,), "ActivityNet/JDg--pjY5gg"),),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda video: video.update(subset="train"),
            r"line 32: video 'V1zhqaGFY2A' has the subset 'train'; one of",
        ),
        (lambda video: video.update(annotations=[]), r"line 32: video .* has no \"annotations\""),
        (
            lambda video: video.update(annotations=[{"segment": [0, 1]}]),
            r"line 32: .*a \"label\" was expected",
        ),
    ],
)
def test_a_malformed_activitynet_video_is_refused_by_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    document = json.loads(json.dumps(ACTIVITYNET))
    change(document["database"]["V1zhqaGFY2A"])
    text = json.dumps(document, indent=1)
    line = text[: text.index('"V1zhqaGFY2A"')].count("\n") + 1
    with pytest.raises(DataError, match=message.replace("32", str(line))):
        read_activitynet(_write(tmp_path / "activity_net.json", text), tmp_path)


def test_a_file_that_is_not_activitynets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='line 1: a JSON object with a "database" of videos'):
        read_activitynet(_write(tmp_path / "a.json", ["v_1"]), tmp_path)
    with pytest.raises(DataError, match="line 2: not JSON: Expecting"):
        read_activitynet(_write(tmp_path / "a.json", '{"database":\n}'), tmp_path)


def test_numbered_lists_give_frames_and_every_label_once(tmp_path: Path) -> None:
    (tmp_path / "music" / "7eSg").mkdir(parents=True)
    classes = _write(tmp_path / "classes.txt", "0,Applying sunscreen\n1,Archery\n2,Arm wrestling, seated\n")
    train = _write(tmp_path / "train.txt", "v_PeLK7r6pT84,7117,2,2,0\nmusic/7eSg, 304, 1, -1, -1\n\n")
    test = _write(tmp_path / "test.txt", "v_JDg--pjY5gg,3153,1\n")
    split = read_numbered_lists(train, test, classes, tmp_path)
    root = tmp_path.name
    assert split.labels == ("Applying sunscreen", "Archery", "Arm wrestling, seated")
    assert split.train == (
        Clip(tmp_path / "v_PeLK7r6pT84.mp4", (2, 0), f"{root}/v_PeLK7r6pT84", 7117),
        Clip(tmp_path / "music" / "7eSg", (1,), f"{root}/music/7eSg", 304),
    )
    assert split.test == (Clip(tmp_path / "v_JDg--pjY5gg.mp4", (1,), f"{root}/v_JDg--pjY5gg", 3153),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v_1 300 4", r"line 2: 'v_1 300 4'; ID,frames,label\[,label\.\.\.\] was expected"),
        ("v_1,300", "line 2: 'v_1,300'; ID,frames"),
        (",300,0", "line 2: ',300,0'; ID,frames"),
        ("v_1,many,0", "line 2: the number of frames is 'many'; an integer from 1"),
        ("v_1,0,0", "line 2: the number of frames is '0'"),
        ("v_1,300,2", "line 2: label '2'; an index from 0 to 1 was expected"),
        ("v_1,300,Archery", "line 2: label 'Archery'; an index"),
        ("v_1,300,-1", "line 2: 'v_1,300,-1' has no label"),
    ],
)
def test_a_malformed_line_of_a_numbered_list_is_refused(tmp_path: Path, line: str, message: str) -> None:
    classes = _write(tmp_path / "classes.txt", "0,a\n1,b\n")
    good, bad = _write(tmp_path / "good.txt", "v_0,9,1\n"), _write(tmp_path / "bad.txt", f"v_0,9,1\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_numbered_lists(bad, good, classes, tmp_path)
    with pytest.raises(DataError, match=message):
        read_numbered_lists(good, bad, classes, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,a\nb\n", "line 2: 'b'; index,name was expected, such as"),
        ("0,a\n1,\n", "line 2: '1,'; index,name"),
        ("0,a\n0,b\n", "line 2: index 0 is 'a' already"),
        ("0,a\n2,b\n", "index 1 is missing"),
        ("\n", "there is no class"),
    ],
)
def test_malformed_classes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_classes(_write(tmp_path / "classes.txt", text))


def test_kinetics_names_files_by_id_and_seconds_in_a_class_folder_or_not(tmp_path: Path) -> None:
    (tmp_path / "making a cake").mkdir()
    (tmp_path / "3E7Jib8Yq5M_000118_000128.webm").touch()
    split = read_kinetics([_write(tmp_path / "mini.csv", KINETICS)], tmp_path)
    assert split == Split(
        ("clapping", "making a cake"),
        (
            Clip(tmp_path / "--07WQ2iBlw_000001_000011.mp4", (0,), "Kinetics/--07WQ2iBlw"),
            Clip(tmp_path / "making a cake/-3B32lodo2M_000059_000069.mp4", (1,), "Kinetics/-3B32lodo2M"),
        ),
        (Clip(tmp_path / "3E7Jib8Yq5M_000118_000128.webm", (0,), "Kinetics/3E7Jib8Yq5M"),),
    )


def test_kinetics_sides_may_be_files_of_their_own(tmp_path: Path) -> None:
    lines = KINETICS.splitlines()
    one = _write(tmp_path / "train.csv", "\n".join(lines[:3]))
    other = _write(tmp_path / "val.csv", "\n".join([lines[0], lines[3]]))
    whole = read_kinetics([_write(tmp_path / "mini.csv", KINETICS)], tmp_path)
    assert read_kinetics([one, other], tmp_path) == whole


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("clapping,--07WQ2iBlw,1,11,dev,0", "line 2: split is 'dev'; train, val or test"),
        ("clapping,--07WQ2iBlw,1,1m,train,0", "line 2: time_end is '1m'; whole seconds"),
        ("clapping,--07WQ2iBlw,11,1,train,0", "line 2: time_end is 1, not after time_start, which is 11"),
        ("clapping,,1,11,train,0", "line 2: youtube_id is empty"),
        ("clapping,--07WQ2iBlw,1,11,train", "line 2: 5 columns; 6 were expected"),
    ],
)
def test_a_malformed_kinetics_row_is_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_kinetics([_write(tmp_path / "mini.csv", f"{KINETICS.splitlines()[0]}\n{row}\n")], tmp_path)


def _something(tmp_path: Path, entries: object, classes: object = None) -> Split:
    numbered = {name: str(number) for number, name in enumerate(TEMPLATES)} if classes is None else classes
    good = _write(tmp_path / "validation.json", SOMETHING[1:])
    return read_something(
        _write(tmp_path / "train.json", entries), good, _write(tmp_path / "labels.json", numbered), tmp_path
    )


def test_something_something_finds_the_class_by_its_template(tmp_path: Path) -> None:
    (tmp_path / "78687.webm").touch()
    split = _something(tmp_path, SOMETHING)
    assert split.labels == TEMPLATES
    assert [(clip.path.name, clip.labels) for clip in split.train] == [
        ("78687.webm", (1,)),
        ("42326.mp4", (0,)),
    ]
    assert [clip.label for clip in split.test] == [0]


def test_pushing_to_the_left_is_pushing_to_the_right_in_a_mirror(tmp_path: Path) -> None:
    assert _something(tmp_path, SOMETHING).mirrored == (0, 2, 1)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"id": "5", "template": "Eating [something]"},
            r"video 5 has the template 'Eating \[something\]', which is",
        ),
        ({"id": "5", "label": "holding"}, 'video 5 has no "template"'),
        ({"template": "Holding [something]"}, 'an object with an "id" in digits was expected'),
        ("5", 'an object with an "id" in digits'),
    ],
)
def test_a_malformed_something_entry_is_refused_by_line(tmp_path: Path, entry: object, message: str) -> None:
    entries = [*SOMETHING, entry]
    first = json.dumps(SOMETHING, indent=1).count("\n") + 1
    with pytest.raises(DataError, match=rf"train\.json line {first}: .*{message}"):
        _something(tmp_path, entries)


@pytest.mark.parametrize("numbers", [("0", "1", "1"), ("0", "1", "3"), ("0", "1", "x")])
def test_classes_of_something_something_are_numbered_without_gaps(
    tmp_path: Path, numbers: tuple[str, ...]
) -> None:
    with pytest.raises(
        DataError, match=r"labels\.json line 4: class 'Pushing something from right to left' has"
    ):
        _something(tmp_path, SOMETHING, dict(zip(TEMPLATES, numbers, strict=True)))


def test_lists_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a JSON list of videos was expected"):
        _something(tmp_path, {"id": "5"})
    with pytest.raises(DataError, match="a JSON object of classes was expected"):
        _something(tmp_path, SOMETHING, list(TEMPLATES))
