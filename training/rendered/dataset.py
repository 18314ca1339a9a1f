"""Many clips as encoded files in one folder a class, with a manifest of groups and a split."""

import csv
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from sdcom.errors import UnknownNameError
from training.data.tracking import Track, not_shown
from training.rendered.actions import ACTIONS
from training.rendered.clip import FRAMES_PER_SECOND, render_clip
from training.rendered.scene import Scene

_WIDTH, _HEIGHT = 320, 240
_SHORTEST, _LONGEST = 20, 40
_CLIPS_PER_SCENE = (3, 4)
_TRAIN_SHARE = 0.7
_CRF = 25
_X264 = {"preset": "veryfast", "mbtree": "0"}
"""With one thread and without macroblock trees x264's output follows from its input alone. (Its assembler
for trees reads memory that nobody wrote: the same frames gave eight different files in twelve runs.)"""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One clip of a generated set.

    Attributes:
        file: path under the set's folder, with forward slashes.
        label: the action.
        group: the scene; clips of one scene are never on both sides of the split.
        split: "train" or "test".
    """

    file: str
    label: str
    group: str
    split: str


@dataclass(frozen=True, slots=True)
class _Job:
    """A scene to render: everything that its clips follow from."""

    label: str
    group: str
    seed: tuple[int, ...]
    paths: tuple[Path, ...]


def write_clip(
    path: Path, frames: npt.NDArray[np.uint8], fps: int = FRAMES_PER_SECOND, *, crf: int = _CRF
) -> None:
    """Encode frames as H.264 in MP4.

    Args:
        path: the file; its folder is made if need be.
        frames: RGB, uint8 [N, H, W, 3]. Odd sizes are allowed: they are kept by encoding 4:4:4.
        fps: frames per second.
        crf: quality, 0 (lossless) to 51.
    """
    height, width = frames.shape[1:3]
    even = height % 2 == 0 and width % 2 == 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=_X264 | {"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p" if even else "yuv444p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _render_scene(job: _Job) -> None:
    rng = np.random.default_rng(job.seed)
    scene = Scene.draw(ACTIONS[job.label], rng, _WIDTH, _HEIGHT)
    for path in job.paths:
        num_frames = int(rng.integers(_SHORTEST, _LONGEST + 1))
        frames = render_clip(job.label, rng, num_frames=num_frames, width=_WIDTH, height=_HEIGHT, scene=scene)
        write_clip(path, frames)


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _plan(
    out_dir: Path, label: str, clips_per_action: int, seed: int
) -> Iterator[tuple[_Job, list[ManifestRow]]]:
    """Yield the scenes of one action with their manifest rows."""
    # The label's bytes, not its position, seed it: adding an action leaves the others' clips as they were.
    root = (seed, *label.encode())
    rng = np.random.default_rng(root)
    sizes: list[int] = []
    while sum(sizes) < clips_per_action:
        sizes.append(
            min(
                int(rng.integers(_CLIPS_PER_SCENE[0], _CLIPS_PER_SCENE[1] + 1)), clips_per_action - sum(sizes)
            )
        )
    num_train = min(max(1, round(_TRAIN_SHARE * len(sizes))), max(1, len(sizes) - 1))
    in_train = set(rng.permutation(len(sizes))[:num_train].tolist())
    first = 0
    for scene, size in enumerate(sizes):
        group = f"{label}_s{scene:03d}"
        files = [f"{label}/{label}_{number:04d}.mp4" for number in range(first, first + size)]
        split = "train" if scene in in_train else "test"
        job = _Job(label, group, (*root, scene), tuple(out_dir / file for file in files))
        yield job, [ManifestRow(file, label, group, split) for file in files]
        first += size


def generate(
    out_dir: Path,
    *,
    clips_per_action: int,
    seed: int,
    actions: Sequence[str] = tuple(ACTIONS),
    num_processes: int | None = None,
    track: Track = not_shown,
) -> list[ManifestRow]:
    """Render a set of clips: `<label>/<label>_<number>.mp4` and the manifest `splits.tsv`.

    Three or four clips share a scene, as those of one source video do in JHMDB; each action's scenes are
    split 70/30. The same arguments give the same frames, whatever the number of processes.

    Args:
        out_dir: where to write.
        clips_per_action: clips of each action, at least 1.
        seed: not negative.
        actions: labels among `ACTIONS`.
        num_processes: None uses every core; 1 renders in this process.
        track: shows how many scenes are rendered.

    Returns:
        The manifest.

    Raises:
        UnknownNameError: there is no such action.
        ValueError: `clips_per_action` is below 1 or the seed is negative.
    """
    if clips_per_action < 1 or seed < 0:
        raise ValueError(f"need clips_per_action >= 1 and seed >= 0, got {clips_per_action=} {seed=}")
    for action in actions:
        if action not in ACTIONS:
            raise UnknownNameError("action", action, ACTIONS)
    planned = [entry for action in actions for entry in _plan(out_dir, action, clips_per_action, seed)]
    jobs = [job for job, _ in planned]
    processes = min(num_processes or os.cpu_count() or 1, len(jobs))
    if processes == 1:
        for job in track(jobs, len(jobs)):
            _render_scene(job)
    else:
        # Spawned, not forked: the caller may hold threads (torch, OpenCV) that a fork would break.
        with multiprocessing.get_context("spawn").Pool(processes, initializer=_one_thread) as pool:
            for _ in track(pool.imap_unordered(_render_scene, jobs), len(jobs)):
                pass
    rows = [row for _, scene_rows in planned for row in scene_rows]
    _write_manifest(out_dir / "splits.tsv", rows)
    return rows


def _write_manifest(path: Path, rows: Sequence[ManifestRow]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["file", "label", "group", "split"])
        writer.writerows([row.file, row.label, row.group, row.split] for row in rows)
