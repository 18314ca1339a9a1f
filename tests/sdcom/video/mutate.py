"""A seeded corpus of damaged files: what a broken disk, a cut line or an attacker makes of good ones."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.sdcom.video.videos import encode

_HEAD_BYTES = 1024  # boxes, elements and stream headers begin there
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Mutation = Callable[[bytearray, np.random.Generator], bytearray]


def seed_files(torture_dir: Path | None = None, most_bytes: int = 120_000) -> dict[str, bytes]:
    """Return good files of every container and the common codecs, and the small torture files."""
    size = (176, 144)
    seeds = {
        "h264.mp4": encode(size=size, options={"bf": "2", "g": "10"}),
        "hevc.mp4": encode(
            "libx265", size=size, num_frames=12, options={"x265-params": "log-level=none:pools=none"}
        ),
        "vp9.webm": encode(
            "libvpx-vp9", "webm", size=size, num_frames=12, options={"cpu-used": "8", "deadline": "realtime"}
        ),
        "mpeg4.avi": encode("mpeg4", "avi", size=size, num_frames=20),
        "mpeg2.ts": encode("mpeg2video", "mpegts", size=size, num_frames=20),
        "h264.mkv": encode(container="matroska", size=size),
        "rotated.mov": encode("mpeg4", "mov", size=size, turn=90, num_frames=20),
    }
    for path in sorted(torture_dir.iterdir()) if torture_dir else ():
        if path.suffix != ".tsv" and path.stat().st_size <= most_bytes:
            seeds[path.name] = path.read_bytes()
    return seeds


def mutants(seeds: dict[str, bytes], count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield `count` damaged files with names that say what was done to which.

    Args:
        seeds: name -> a good file.
        count: how many.
        seed: the same seed gives the same files.
    """
    rng = np.random.default_rng(seed)
    names = sorted(seeds)
    for number in range(count):
        name = names[number % len(names)]
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        damaged = mutation(bytearray(seeds[name]), rng)
        yield f"{number:04d}-{mutation.__name__.strip('_')}-{name}", bytes(damaged)


def _flip_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 64))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return data


def _flip_head_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 16))):
        data[int(rng.integers(min(_HEAD_BYTES, len(data))))] ^= 1 << int(rng.integers(8))
    return data


def _truncate(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: int(rng.integers(len(data)))]


def _remove_chunk(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 4096))
    return data[:start] + data[start + length :]


def _repeat_chunk(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 4096))
    return data[: start + length] + data[start:]


def _swap_chunks(data: bytearray, rng: np.random.Generator) -> bytearray:
    length = int(rng.integers(1, max(len(data) // 4, 2)))
    one, other = sorted(int(at) for at in rng.integers(max(len(data) - length, 1), size=2))
    data[one : one + length], data[other : other + length] = (
        data[other : other + length],
        data[one : one + length],
    )
    return data


def _write_noise(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 512))
    noise = rng.bytes(len(data[start : start + length]))
    data[start : start + length] = noise
    return data


def _write_extreme(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Overwrite up to four header fields with the smallest and largest numbers."""
    for _ in range(int(rng.integers(1, 5))):
        value = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
        size = max((value.bit_length() + 7) // 8, int(rng.choice([1, 2, 4])))
        start = _header_offset(data, rng)
        data[start : start + size] = value.to_bytes(size)
    return data


def _header_offset(data: bytearray, rng: np.random.Generator) -> int:
    """Return a place in the file's head, or behind an MP4 box's name, where sizes, counts and times stand."""
    tables = [
        data.find(name)
        for name in (b"mdhd", b"stsd", b"stts", b"ctts", b"stsz", b"stsc", b"stco", b"elst", b"tkhd", b"avcC")
    ]
    places = [at for at in tables if at > 0]
    if places and rng.random() < 0.7:
        return int(rng.choice(places)) + int(rng.integers(-4, 64))
    return int(rng.integers(min(_HEAD_BYTES, len(data))))


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _flip_head_bits,
    _truncate,
    _remove_chunk,
    _repeat_chunk,
    _swap_chunks,
    _write_noise,
    _write_extreme,
)
