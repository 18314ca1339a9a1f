"""The decoding benchmark times every way on every clip, and its clips are the same every time."""

from pathlib import Path

import numpy as np

from sdcom.video.bench import WAYS, decode_bench
from sdcom.video.bench_clips import BenchClip, film, write_clip
from sdcom.video.decoders import load_decord


def test_every_way_is_timed_on_every_clip_and_the_cheapest_decodes_the_fewest_frames(tmp_path: Path) -> None:
    clip = BenchClip("h264", 160, 120, 4, 30)
    rows = decode_bench([clip], tmp_path, repeats=1)
    assert [row.way for row in rows] == list(WAYS)
    for row in rows:
        assert row.clip == clip.name
        assert row.mbit_per_s > 0
        if row.way.startswith("decord") and load_decord() is None:
            assert row.cpu_ms is None
        else:
            assert row.cpu_ms is not None
            assert row.repeats_ms == (row.cpu_ms,)
    every, passing, cheapest, affordable = (row.num_decoded for row in rows[1:])
    assert every is not None
    assert passing is not None
    assert cheapest is not None
    assert every > passing > cheapest
    assert affordable == passing, "all of so small a video is affordable"


def test_a_clip_is_generated_once(tmp_path: Path) -> None:
    clip = BenchClip("h264", 64, 64, 1, 10)
    path = write_clip(clip, tmp_path)
    written = path.stat().st_mtime_ns
    assert write_clip(clip, tmp_path).stat().st_mtime_ns == written
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_films_are_alike_and_their_frames_are_not() -> None:
    first, again = list(film(96, 64, 3)), list(film(96, 64, 3))
    assert first[0].shape == (96, 96)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])
