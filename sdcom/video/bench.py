"""What decoding the frames of a clip costs, by each way of doing it: `sdcom bench decode`.

Times are processor time, each taken in a fresh process that has decoded one small clip before, as a decode
worker has when its first upload comes.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sdcom.config import ClipConfig
from sdcom.processors import num_processors, processor_name
from sdcom.sampling import Sampling, segment_centers
from sdcom.video.bench_clips import BenchClip, write_clip
from sdcom.video.clip import decode_clip, sampled_frames
from sdcom.video.decoders import PyAVDecoder, load_decord
from sdcom.video.geometry import center_crop, scaled_size
from sdcom.video.limits import DecodeLimits
from sdcom.video.opening import open_video
from sdcom.video.probe import VideoIndex, probe, read_index
from sdcom.video.sniff import HEAD_BYTES, sniff_container
from sdcom.video.source import FileView

SHORT = tuple(BenchClip("h264", 1280, 720, 10, gop) for gop in (250, 60, 30))
LONG = tuple(BenchClip("h264", 1920, 1080, 60, gop) for gop in (250, 60, 30))
OTHERS = tuple(BenchClip(codec, 1280, 720, 10, gop) for codec in ("hevc", "vp9", "av1") for gop in (250, 60))
"""At most so many frames from keyframe to keyframe: x264's default; two seconds, as streams have; one, as
phones have."""

SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)

_CLIP = ClipConfig()
_LIMITS = DecodeLimits()
_WARM_UP = BenchClip("h264", 64, 64, 1, 10)


@dataclass(frozen=True, slots=True)
class Row:
    """What one way of decoding T frames of one clip costs.

    Attributes:
        clip: the clip's name.
        mbit_per_s: its rate.
        way: one of `WAYS`.
        num_decoded: frames that must be decoded for the T; None where the model does not say.
        cpu_ms: median of the repeats, in milliseconds of processor time; None if this way cannot read it.
        repeats_ms: each repeat.
        ratio: how many times less than the clip's first way.
    """

    clip: str
    mbit_per_s: float
    way: str
    num_decoded: int | None
    cpu_ms: float | None
    repeats_ms: tuple[float, ...]
    ratio: float | None


def decode_bench(
    clips: Sequence[BenchClip], folder: Path, *, num_frames: int = 16, repeats: int = 5
) -> list[Row]:
    """Time each way on each clip, turn by turn, every time in a process of its own.

    Args:
        clips: what to decode; generated into the folder where they are not there yet.
        folder: of the clips.
        num_frames: T, to be decoded of each.
        repeats: processes for each clip and way.
    """
    progress = partial(track, console=Console(stderr=True), transient=True)
    files = [write_clip(clip, folder) for clip in progress(clips, "generating clips")]
    warm_up = write_clip(_WARM_UP, folder)
    turns = [
        (clip, path, way)
        for clip, path in zip(clips, files, strict=True)
        for _ in range(repeats)
        for way in WAYS
    ]
    times: dict[tuple[str, str], list[float | None]] = {}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for clip, path, way in progress(turns, "decoding"):
            done = processes.submit(_cpu_ms, way, num_frames, clip, path, warm_up).result()
            times.setdefault((clip.name, way), []).append(done)
    return [
        row for clip, path in zip(clips, files, strict=True) for row in _rows(num_frames, clip, path, times)
    ]


def _rows(
    num_frames: int, clip: BenchClip, path: Path, times: dict[tuple[str, str], list[float | None]]
) -> Iterator[Row]:
    repeats = {way: tuple(t for t in times[clip.name, way] if t is not None) for way in WAYS}
    medians = {way: statistics.median(done) if done else None for way, done in repeats.items()}
    reference = next(iter(medians.values()))
    index = _index(path)
    for way, cpu_ms in medians.items():
        yield Row(
            clip=clip.name,
            mbit_per_s=path.stat().st_size * 8e-6 / clip.seconds,
            way=way,
            num_decoded=_num_decoded(index, num_frames, way),
            cpu_ms=cpu_ms,
            repeats_ms=repeats[way],
            ratio=None if reference is None or cpu_ms is None else reference / cpu_ms,
        )


def _cpu_ms(way: str, num_frames: int, clip: BenchClip, path: Path, warm_up: Path) -> float | None:
    """Return the processor time of one decoding in this process; None if this way cannot read the clip."""
    WAYS[way](num_frames, _WARM_UP, warm_up)
    started = time.process_time()
    done = WAYS[way](num_frames, clip, path)
    return (time.process_time() - started) * 1e3 if done else None


def _by_decord(num_frames: int, clip: BenchClip, path: Path) -> bool:
    decord = load_decord()
    if decord is None:
        return False
    width, height = scaled_size(clip.width, clip.height, _CLIP.short_side)
    try:
        reader = decord.VideoReader(str(path), width=width, height=height, num_threads=1)
        frames_THWC = reader.get_batch(segment_centers(len(reader), num_frames)).asnumpy()
    except decord.DECORDError:
        return False
    return np.stack([center_crop(frame, _CLIP.crop) for frame in frames_THWC]).size > 0


def _as_served(sampling: Sampling, num_frames: int, _: BenchClip, path: Path) -> bool:
    out_THWC = np.empty((num_frames, _CLIP.crop, _CLIP.crop, 3), dtype=np.uint8)
    with path.open("rb") as file:
        source, container = _source(file.fileno())
        decode_clip(source, container, _CLIP.short_side, _LIMITS, out_THWC, sampling=sampling)
    return True


def _past_nothing(num_frames: int, _: BenchClip, path: Path) -> bool:
    with path.open("rb") as file:
        source, container = _source(file.fileno())
        with open_video(source, container, _LIMITS) as opened:
            index = _without_passing(read_index(source, opened, container, _LIMITS))
            decoder = PyAVDecoder(_LIMITS, opened)
            wanted_K = np.unique(sampled_frames(index, num_frames, "centers"))
            pictures = decoder.read(source, index, wanted_K, _CLIP.short_side)
            crops = [center_crop(picture.frame_HWC, _CLIP.crop) for picture in pictures]
            return np.stack(crops).size > 0


Way = Callable[[int, BenchClip, Path], bool]

WAYS: dict[str, Way] = {
    "decord, centres": _by_decord,
    "PyAV, centres, every frame": _past_nothing,
    **{sampling: partial(_as_served, sampling) for sampling in SAMPLINGS},
}
"""The last three are what is served; the one before them decodes all frames on the way."""


def _source(fd: int) -> tuple[FileView, str]:
    source = FileView(fd, os.fstat(fd).st_size)
    return source, sniff_container(source.rewound().read(HEAD_BYTES))


def _index(path: Path) -> VideoIndex:
    with path.open("rb") as file:
        source, container = _source(file.fileno())
        return probe(source, container, _LIMITS)


def _without_passing(index: VideoIndex) -> VideoIndex:
    if index.storage is None:
        return index
    nothing = np.zeros_like(index.storage.passable_P)
    return replace(index, storage=replace(index.storage, passable_P=nothing))


def _num_decoded(index: VideoIndex, num_frames: int, way: str) -> int | None:
    if index.storage is None or way == "decord, centres":
        return None
    sampling = next((sampling for sampling in SAMPLINGS if sampling == way), None)
    frames_T = sampled_frames(index, num_frames, sampling or "centers")
    storage = (index if sampling else _without_passing(index)).storage
    assert storage is not None
    one_each = replace(storage, num_bytes_P=np.zeros_like(storage.num_bytes_P))
    costs = one_each.costs(index.keyframe_pts_K, num_pixels=0)
    return None if costs is None else costs.of(frames_T)


def _table(rows: Sequence[Row], num_frames: int) -> Table:
    title = f"{num_frames} frames, processor time"
    table = Table("clip", "Mbit/s", "way", "decoded", "ms", "times less", title=title, box=None)
    for row in rows:
        is_first = row.way == next(iter(WAYS))
        table.add_row(
            row.clip if is_first else "",
            f"{row.mbit_per_s:.1f}" if is_first else "",
            row.way,
            "" if row.num_decoded is None else str(row.num_decoded),
            "-" if row.cpu_ms is None else f"{row.cpu_ms:.0f}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
        )
    return table


def _machine() -> dict[str, str]:
    return {
        "processors": f"{num_processors()} cores, {processor_name()}",
        "python": platform.python_version(),
        **{
            package: version(package)
            for package in ("av", "decord", "numpy")
            if package != "decord" or load_decord()
        },
    }


def main(
    *,
    long: Annotated[
        bool, typer.Option(help="1080p, 60 s of H.264 as well; generating takes minutes.")
    ] = True,
    others: Annotated[bool, typer.Option(help="HEVC, VP9 and AV1 as well.")] = True,
    frames: Annotated[int, typer.Option(min=1, help="Frames to decode of each clip.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Processes for each clip and way.")] = 5,
    clips: Annotated[Path | None, typer.Option(help="Folder to keep the generated clips in.")] = None,
    output: Annotated[Path | None, typer.Option(help="File for the rows, as JSON.")] = None,
) -> None:
    """Time the ways of decoding a few frames of generated clips."""
    chosen = (*SHORT, *(LONG if long else ()), *(OTHERS if others else ()))
    with tempfile.TemporaryDirectory() as temporary:
        folder = clips or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = decode_bench(chosen, folder, num_frames=frames, repeats=repeats)
    Console().print(_table(rows, frames))
    if output is not None:
        record = {"machine": _machine(), "num_frames": frames, "rows": [asdict(row) for row in rows]}
        output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
