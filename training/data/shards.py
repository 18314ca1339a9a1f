"""Tar shards of JPEG frames, with an index, so that reading a few frames reads nothing else.

A shard is a plain tar in the layout of the webdataset convention: the members of a clip share a name up to
its first dot, `00000012.json` (its record) and `00000012.00000.jpg`, `00000012.00001.jpg`, ... (its frames).
Beside `shard-000000.tar` stands `shard-000000.jsonl` with a line for each of its clips, which says where the
frames are. It is written last: a shard without it is not finished.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sdcom.sampling import Int64Array
from sdcom.video.geometry import UInt8Array
from training.data.clips import Clip, DataError, Split
from training.data.frames import decode_image, scaled, stacked
from training.data.rows import Place, filled_lines, read_json

SHARD_SUFFIX = ".tar"
INDEX_SUFFIX = ".jsonl"
PACK_RECORD = "pack.json"
TAR_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class PackedRecord:
    """What the index says of a clip.

    Attributes:
        name: of its members, up to the first dot.
        file: what it was packed from.
        labels: class indices.
        group: of the clip.
        side: train or test.
        offset: bytes from the shard's start to the first frame's tar header.
        sizes: bytes of each frame's JPEG file, in order; none if the clip could not be read.
        problem: why it could not.
    """

    name: str
    file: str
    labels: tuple[int, ...]
    group: str
    side: str
    offset: int
    sizes: tuple[int, ...]
    problem: str = ""

    def to_line(self) -> str:
        """Return the record as a line of the index."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def starts(self) -> Int64Array:
        """Return where each frame's JPEG file begins in the shard: headers and files fill whole blocks."""
        blocks = 1 + (np.array(self.sizes, dtype=np.int64) + TAR_BLOCK_BYTES - 1) // TAR_BLOCK_BYTES
        before = np.concatenate([[0], np.cumsum(blocks)[:-1]])
        starts: Int64Array = self.offset + TAR_BLOCK_BYTES * (before + 1)
        return starts


def read_packed(root: Path) -> Split:
    """Read a folder that `sdcom data pack` wrote.

    Raises:
        DataError: packing is not finished, or an index is malformed; the message names the line.
    """
    record, _ = read_json(root / PACK_RECORD)
    if not isinstance(record, dict) or not {"labels", "num_shards"} <= record.keys():
        raise DataError(
            f'{root / PACK_RECORD} line 1: a JSON object with "labels" and "num_shards" was expected'
        )
    indexes = sorted(root.glob(f"shard-*{INDEX_SUFFIX}"))
    if len(indexes) != record["num_shards"]:
        raise DataError(
            f"{root} has {len(indexes)} of {record['num_shards']} shards: packing was interrupted; "
            "run the same sdcom data pack again to finish it"
        )
    sides: dict[str, list[Clip]] = {"train": [], "test": []}
    for index in indexes:
        for packed in read_index(index).values():
            if packed.problem:
                continue
            path = index.with_suffix(SHARD_SUFFIX) / packed.name
            sides[packed.side].append(Clip(path, packed.labels, packed.group, len(packed.sizes)))
    return Split(tuple(record["labels"]), tuple(sides["train"]), tuple(sides["test"]))


def read_index(path: Path) -> dict[str, PackedRecord]:
    """Return a shard's records by name.

    Raises:
        DataError: the index is missing or malformed; the message names the line.
    """
    records = (_record(place, line) for place, line in filled_lines(path))
    return {record.name: record for record in records}


def _find_record(path: Path, name: str) -> PackedRecord:
    """Return one record of a shard's index, without parsing the others."""
    begins = f'{{"name":"{name}",'
    for place, line in filled_lines(path):
        if line.startswith(begins):
            return _record(place, line)
    raise DataError(f"{path.with_suffix(SHARD_SUFFIX) / name} is missing: {path} does not list it")


def _record(place: Place, line: str) -> PackedRecord:
    try:
        fields = json.loads(line)
        return PackedRecord(**(fields | {name: tuple(fields[name]) for name in ("labels", "sizes")}))
    except (ValueError, TypeError, KeyError) as exc:
        raise place.error(f"not a clip's record; remove {place.path} and pack again") from exc


class PackedClip:
    """A clip in a shard.

    Args:
        path: `shard.tar/name`.

    Raises:
        DataError: there is no such clip.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        record = _find_record(path.parent.with_suffix(INDEX_SUFFIX), path.name)
        self._sizes, self._starts = record.sizes, record.starts()
        self.num_frames = len(self._sizes)

    def read(self, indices_T: Int64Array, short_side: int) -> UInt8Array:
        """Return frames [T, H, W, 3], uint8 RGB, scaled to the short side.

        Raises:
            DataError: the shard is missing, cut off or damaged.
        """
        try:
            with self._path.parent.open("rb") as shard:
                images = {
                    int(i): self._image(shard.fileno(), int(i), short_side) for i in np.unique(indices_T)
                }
        except FileNotFoundError as exc:
            raise DataError(f"{self._path.parent} is missing: its index stands beside it") from exc
        return stacked([images[int(index)] for index in indices_T], self._path)

    def _image(self, fd: int, index: int, short_side: int) -> UInt8Array:
        data = os.pread(fd, self._sizes[index], int(self._starts[index]))
        return scaled(decode_image(data, f"frame {index} of {self._path}"), short_side)
