"""Shards: standard tars, a dataset by themselves, resumed where packing was killed."""

import csv
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.data.conftest import WriteVideo
from training.data import Clip, DataError, Split
from training.data.checking import Checked
from training.data.folders import read_class_folders
from training.data.media import open_media
from training.data.packing import Packing, pack
from training.data.shards import read_packed
from training.data.tracking import ItemT

PACKING = Packing(short_side=48, max_frames=6, clips_per_shard=2)


@pytest.fixture
def split(tmp_path: Path, write_video: WriteVideo) -> Split:
    """Five clips, one of which cannot be read."""
    videos = tmp_path / "videos"
    paths = [write_video(videos / f"{number}.mp4") for number in range(4)]
    (videos / "broken.mp4").write_bytes(b"broken")
    train = [Clip(path, (number % 2,), f"g{number}") for number, path in enumerate(paths[:3])]
    return Split(
        ("clap", "wave"), (*train, Clip(videos / "broken.mp4", (1,), "b")), (Clip(paths[3], (1, 0), "g3"),)
    )


def _pack(split: Split, out: Path, packing: Packing = PACKING) -> Checked:
    return pack(split, out, packing, num_threads=2, track=lambda items, _total: items)


def test_what_is_packed_is_a_dataset_of_the_same_labels_groups_and_sides(
    tmp_path: Path, split: Split
) -> None:
    _pack(split, tmp_path / "packed")
    packed = read_packed(tmp_path / "packed")
    assert packed.labels == split.labels
    for ours, theirs in ((packed.train, split.train[:3]), (packed.test, split.test)):
        assert [(c.labels, c.group) for c in ours] == [(c.labels, c.group) for c in theirs]
        assert all(clip.num_frames == 6 for clip in ours)


def test_unreadable_clips_are_left_out_and_reported(tmp_path: Path, split: Split) -> None:
    outcome = _pack(split, tmp_path / "packed")
    assert [problem.clip.path.name for problem in outcome.problems] == ["broken.mp4"]
    outcome.write_report(tmp_path / "report.tsv")
    lines = (tmp_path / "report.tsv").read_text().splitlines()
    assert lines[0] == "file\treason"
    ((file, reason),) = csv.reader(lines[1:], delimiter="\t")
    assert file.endswith("broken.mp4")
    assert "broken.mp4: " in reason


def test_shards_follow_the_webdataset_convention(tmp_path: Path, split: Split) -> None:
    _pack(split, tmp_path / "packed")
    with tarfile.open(tmp_path / "packed" / "shard-000000.tar") as tar:
        names = tar.getnames()
        frames = [f"{number:06d}.jpg" for number in range(6)]
        assert names == [f"0000000{clip}.{field}" for clip in range(2) for field in ["json", *frames]]
        record = tar.extractfile("00000001.json")
        jpeg = tar.extractfile("00000001.000003.jpg")
        assert record is not None
        assert jpeg is not None
        assert json.load(record)["labels"] == [1]
        image = cv2.imdecode(np.frombuffer(jpeg.read(), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert image.shape == (48, 64, 3)


def test_packing_goes_on_where_it_was_stopped_and_ends_the_same(tmp_path: Path, split: Split) -> None:
    _pack(split, tmp_path / "whole")

    class _StoppedError(Exception):
        pass

    def stop_at_third(items: Iterable[ItemT], _total: int) -> Iterable[ItemT]:
        for number, item in enumerate(items):
            if number == 2:
                raise _StoppedError
            yield item

    out = tmp_path / "stopped"
    with pytest.raises(_StoppedError):
        pack(split, out, PACKING, num_threads=2, track=stop_at_third)
    with pytest.raises(DataError, match=r"has 1 of 3 shards: packing was interrupted; run the same"):
        read_packed(out)
    first = (out / "shard-000000.tar").stat().st_mtime_ns
    assert _pack(split, out) == _pack(split, tmp_path / "whole")
    assert (out / "shard-000000.tar").stat().st_mtime_ns == first, "what was finished is not packed again"
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert all((out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def test_a_killed_packing_resumes(tmp_path: Path, write_video: WriteVideo) -> None:
    for label in ("clap", "wave"):
        for number in range(40):
            write_video(tmp_path / "videos" / label / f"{number}.mp4")
    out = tmp_path / "packed"
    options = ["--clips-per-shard", "4", "--short-side", "32", "--threads", "1"]
    command = [sys.executable, "-m", "sdcom", "data", "pack", str(tmp_path / "videos"), str(out), *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(list(out.glob("*.jsonl")))
    assert 2 <= done < 20
    again = Packing(short_side=32, clips_per_shard=4)
    assert not _pack(read_class_folders(tmp_path / "videos"), out, again).problems
    packed = read_packed(out)
    assert len(packed.train) == 64
    assert len(packed.test) == 16
    assert not list(out.glob("*.partial"))


def test_a_folder_begun_with_another_list_or_other_options_is_refused(tmp_path: Path, split: Split) -> None:
    _pack(split, tmp_path / "packed")
    with pytest.raises(DataError, match=r"was begun with other packing \(pack\.json\); pack into an empty"):
        _pack(split, tmp_path / "packed", replace(PACKING, quality=50))
    with pytest.raises(DataError, match="was begun with other num_shards, clips_sha256"):
        _pack(replace(split, test=()), tmp_path / "packed", replace(PACKING, clips_per_shard=2))


def test_a_full_disk_is_said_and_leaves_no_half_shard(tmp_path: Path, split: Split) -> None:
    out = tmp_path / "packed"
    out.mkdir()
    (out / "shard-000001.tar.partial").symlink_to("/dev/full")
    with pytest.raises(
        DataError, match=r"the disk is full: .*shard-000001\.tar could not be written, .* MB are"
    ):
        _pack(split, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "pack.json",
        "shard-000000.jsonl",
        "shard-000000.tar",
    ]
    assert len(_pack(split, out).usable) == 4, "with room, the same call goes on"


def test_a_damaged_shard_or_index_is_named(tmp_path: Path, split: Split) -> None:
    _pack(split, tmp_path / "packed")
    clip = read_packed(tmp_path / "packed").train[1]
    shard = clip.path.parent
    os.truncate(shard, 2000)

    with pytest.raises(
        DataError, match=r"frame 5 of .*shard-000000\.tar/00000001 \(0 bytes\) is not an image"
    ):
        open_media(clip.path).read(np.array([5]), 48)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-000000\.tar is missing"):
        open_media(clip.path).read(np.array([5]), 48)
    index = tmp_path / "packed" / "shard-000002.jsonl"
    index.write_text('{"name": "00000004"}\n')
    with pytest.raises(
        DataError, match=r"shard-000002\.jsonl line 1: not a clip's record; remove .* and pack again"
    ):
        read_packed(tmp_path / "packed")
