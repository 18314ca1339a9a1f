"""Writing shards (`training/data/shards.py`): in parallel, and again from where it was killed."""

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from sdcom.sampling import segment_centers
from sdcom.video.geometry import UInt8Array
from training.data.checking import Checked, Problem
from training.data.clips import Clip, DataError, Split
from training.data.disk import whole_file
from training.data.media import open_media
from training.data.prefetch import map_ahead
from training.data.rows import read_json
from training.data.shards import INDEX_SUFFIX, PACK_RECORD, SHARD_SUFFIX, PackedRecord, read_index
from training.data.tracking import Track

_FRAMES_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How clips are packed.

    Attributes:
        short_side: pixels of the frames' short side.
        max_frames: of each clip, evenly spaced; 0 keeps all.
        quality: of the JPEG files, 1 to 100.
        clips_per_shard: clips in a tar; what is lost at most when packing is killed.
    """

    short_side: int = 256
    max_frames: int = 128
    quality: int = 90
    clips_per_shard: int = 128


@dataclass(frozen=True, slots=True)
class _Item:
    """A clip to pack, and its name in the shards."""

    name: str
    side: str
    clip: Clip


def pack(split: Split, out: Path, packing: Packing, *, num_threads: int, track: Track) -> Checked:
    """Write every readable clip of a split into shards below `out`; leave those that are there.

    Args:
        split: what to pack.
        out: folder to write; afterwards a dataset by itself (`read_packed`).
        packing: how.
        num_threads: clips at once.
        track: shows the progress.

    Returns:
        Clips that were packed, and those that could not be read.

    Raises:
        DataError: `out` holds shards of other clips, or packed otherwise; or the disk is full.
    """
    sides = [("train", clip) for clip in split.train] + [("test", clip) for clip in split.test]
    items = [_Item(f"{number:08d}", side, clip) for number, (side, clip) in enumerate(sides)]
    step = packing.clips_per_shard
    shards = [items[start : start + step] for start in range(0, len(items), step)]
    out.mkdir(parents=True, exist_ok=True)
    _begin(out / PACK_RECORD, split, items, packing, len(shards))

    def packed() -> Iterator[None]:
        for number, of_shard in enumerate(shards):
            path = out / f"shard-{number:06d}{SHARD_SUFFIX}"
            if path.with_suffix(INDEX_SUFFIX).exists():
                yield from (None for _ in of_shard)
            else:
                yield from _write_shard(path, of_shard, packing, num_threads)

    for _ in track(packed(), len(items)):
        pass
    return _outcome(out, items, len(shards))


def _begin(path: Path, split: Split, items: Sequence[_Item], packing: Packing, num_shards: int) -> None:
    """Write the record of what is being packed, or hold it against the one that is there."""
    listed = json.dumps(
        [[item.side, str(item.clip.path), item.clip.labels, item.clip.group] for item in items]
    )
    record = {
        "labels": list(split.labels),
        "num_shards": num_shards,
        "packing": asdict(packing),
        "clips_sha256": hashlib.sha256(listed.encode()).hexdigest(),
    }
    if path.exists():
        begun, _ = read_json(path)
        differing = [name for name, value in record.items() if begun.get(name) != value]
        if differing:
            raise DataError(
                f"{path.parent} was begun with other {', '.join(differing)} ({path.name}); "
                "pack into an empty folder, or give the same list and options to go on"
            )
        return
    with whole_file(path) as file:
        file.write(json.dumps(record, indent=1).encode())


def _write_shard(path: Path, items: Sequence[_Item], packing: Packing, num_threads: int) -> Iterator[None]:
    """Write a shard and then its index; yield after each clip."""
    records = []
    encoded = map_ahead(
        lambda item: _jpegs(item.clip, packing),
        ([item] for item in items),
        num_threads=num_threads,
        num_ahead=2 * num_threads,
    )
    with whole_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for item, (jpegs,) in zip(items, encoded, strict=True):
            records.append(_add(tar, item, jpegs))
            yield
    with whole_file(path.with_suffix(INDEX_SUFFIX)) as file:
        file.write("".join(record.to_line() + "\n" for record in records).encode())


def _jpegs(clip: Clip, packing: Packing) -> list[bytes] | str:
    """Return a clip's frames as JPEG files, or why it cannot be read."""
    try:
        media = open_media(clip.path)
        kept = np.arange(media.num_frames)
        if packing.max_frames and media.num_frames > packing.max_frames:
            kept = segment_centers(media.num_frames, packing.max_frames)
        jpegs = []
        for start in range(0, len(kept), _FRAMES_AT_ONCE):
            frames_NHWC = media.read(kept[start : start + _FRAMES_AT_ONCE], packing.short_side)
            jpegs += [_jpeg(frame_HWC, packing.quality) for frame_HWC in frames_NHWC]
    except (DataError, OSError) as error:
        return str(error)
    return jpegs


def _jpeg(frame_HWC: UInt8Array, quality: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    written, data = cv2.imencode(".jpg", cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR), options)
    assert written
    return data.tobytes()


def _add(tar: tarfile.TarFile, item: _Item, jpegs: list[bytes] | str) -> PackedRecord:
    """Add a clip's members, none if it could not be read; return its record."""
    clip = item.clip
    unread = PackedRecord(
        name=item.name,
        file=str(clip.path),
        labels=clip.labels,
        group=clip.group,
        side=item.side,
        offset=tar.offset,
        sizes=(),
    )
    if isinstance(jpegs, str):
        return replace(unread, problem=jpegs)
    said = {"file": unread.file, "labels": clip.labels, "group": clip.group, "side": item.side}
    _add_member(tar, f"{item.name}.json", json.dumps(said).encode())
    offset = tar.offset
    for number, jpeg in enumerate(jpegs):
        _add_member(tar, f"{item.name}.{number:06d}.jpg", jpeg)
    return replace(unread, offset=offset, sizes=tuple(map(len, jpegs)))


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))


def _outcome(out: Path, items: Sequence[_Item], num_shards: int) -> Checked:
    records: dict[str, PackedRecord] = {}
    for number in range(num_shards):
        records |= read_index(out / f"shard-{number:06d}{INDEX_SUFFIX}")
    problems = [
        Problem(item.clip, records[item.name].problem) for item in items if records[item.name].problem
    ]
    usable = [item.clip for item in items if not records[item.name].problem]
    return Checked(tuple(usable), tuple(problems))
