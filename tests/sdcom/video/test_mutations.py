"""Damaged files are answered or rejected in bounded time, and cost nobody else anything."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sdcom.config import ClipConfig
from sdcom.errors import DecoderKilledError, VideoRejectedError
from sdcom.sampling import Sampling
from sdcom.video import DecodeLimits, DecoderPool
from tests.sdcom.video.mutate import mutants, seed_files
from tests.sdcom.video.videos import encode, read_number

LIMITS = DecodeLimits(wall_clock_s=6.0, cpu_s=4.0)


def outcome(pool: DecoderPool, path: Path) -> str:
    """Return "decoded", or the name of the rejection; anything else is raised."""
    try:
        clip = pool.decode(path)
    except VideoRejectedError as exc:
        return exc.reason if isinstance(exc, DecoderKilledError) else "rejected"
    assert clip.frames_THWC.shape == (16, 224, 224, 3)
    assert np.isfinite([*clip.times_s, clip.duration_s]).all()
    assert len(clip.times_s) == 16
    return "decoded"


def test_the_same_seed_damages_files_in_the_same_way() -> None:
    seeds = {"a": encode(num_frames=4, size=(64, 64)), "b": b"x" * 5000}
    assert list(mutants(seeds, 40, seed=3)) == list(mutants(seeds, 40, seed=3))
    assert dict(mutants(seeds, 40, seed=3)) != dict(mutants(seeds, 40, seed=4))


@pytest.mark.parametrize("sampling", ["centers", "cheapest"])
def test_damaged_files_cost_nobody_anything(tmp_path: Path, sampling: Sampling) -> None:
    shared = Path(__file__).resolve().parents[4] / "shared" / "data" / "torture"
    seeds = seed_files(shared if shared.is_dir() else None)
    good = tmp_path / "good"
    good.write_bytes(encode(num_frames=16))
    paths = []
    for name, data in mutants(seeds, 150):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    started = time.monotonic()
    with (
        DecoderPool(ClipConfig(), LIMITS, num_workers=2, sampling=sampling) as pool,
        ThreadPoolExecutor(2) as threads,
    ):
        outcomes = list(threads.map(lambda path: outcome(pool, path), paths))
        assert [read_number(frame) for frame in pool.decode(good).frames_THWC] == list(range(16))
    assert outcomes.count("decoded") > 20
    assert outcomes.count("rejected") > 20
    assert time.monotonic() - started < 60
