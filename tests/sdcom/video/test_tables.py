"""An MP4's tables tell what reading all of its packets would tell, or nothing."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from sdcom.errors import VideoRejectedError
from sdcom.video import DecodeLimits
from sdcom.video.opening import open_video
from sdcom.video.probe import demux, read_index
from sdcom.video.source import FileView, open_memory_file
from sdcom.video.storage import StoredPacket
from sdcom.video.tables import tabled_packets
from tests.sdcom.video.mutate import mutants
from tests.sdcom.video.videos import encode

Told = tuple[int | None, int | None, int, int, bool]  # shown, decoded, for how long; bytes, keyframe

SIZE = (96, 64)
UNEVEN = (0, *np.cumsum(np.random.default_rng(5).integers(1, 9, 59)).tolist())
X264 = "keyint=12:bframes=3:b-adapt=0"
X265 = "log-level=none:pools=none:keyint=12:bframes=3"


@cache
def x264(params: str = "", container: str = "mp4", pts: Sequence[int] = range(60)) -> bytes:
    options = {"x264-params": f"{X264}{params}"}
    return encode("libx264", container, num_frames=60, size=SIZE, pts=pts, options=options)


@cache
def x265(params: str = "") -> bytes:
    return encode("libx265", num_frames=60, size=SIZE, options={"x265-params": f"{X265}{params}"})


def remuxed(data: bytes, movflags: str) -> bytes:
    with NamedTemporaryFile(suffix=".mp4") as file:
        with (
            av.open(io.BytesIO(data), "r") as source,
            av.open(file.name, "w", format="mp4", options={"movflags": movflags}) as output,
        ):
            copied = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = copied
                    output.mux(packet)
        return Path(file.name).read_bytes()


def patched(box: bytes, offset: int, number: int) -> bytes:
    """Return a file with a 32-bit number of a box changed, counted from the box's kind."""
    data = x264()
    place = data.index(box) + offset
    return data[:place] + number.to_bytes(4) + data[place + 4 :]


def hybrid() -> bytes:
    """Return a file with one group in its tables, the others in fragments, and an index of these before them.

    FFmpeg believes that index, and reads no further until packets are asked for.
    """
    noise_NHWC = np.random.default_rng(0).integers(256, size=(24, 240, 320, 3), dtype=np.uint8)
    with NamedTemporaryFile(suffix=".mp4") as file:
        muxing = {"movflags": "frag_keyframe+default_base_moof"}
        with av.open(file.name, "w", format="mp4", options=muxing) as output:
            stream = output.add_stream("libx264", rate=25, options={"x264-params": X264})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for noise_HWC in noise_NHWC:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(noise_HWC)))
            output.mux(stream.encode(None))
        data = Path(file.name).read_bytes()
    boxes, place = list[tuple[bytes, int]](), 0
    while place < len(data):
        boxes.append((data[place + 4 : place + 8], place))
        place += int.from_bytes(data[place : place + 4])
    starts = [start for kind, start in boxes if kind == b"moof"]
    end = next(start for kind, start in boxes if kind == b"mfra")
    ends = [*starts[1:], end]
    fragments = [(end - start, 12 * 512, 9 << 28) for start, end in zip(starts, ends, strict=True)]
    numbers = [0, 1, 12_800, 12 * 512, 0, 0, len(fragments), *(each for row in fragments for each in row)]
    sizes = [4] * 5 + [2, 2] + [4] * 3 * len(fragments)
    body = b"".join(number.to_bytes(size) for number, size in zip(numbers, sizes, strict=True))
    index = (8 + len(body)).to_bytes(4) + b"sidx" + body
    return data[: starts[0]] + index + data[starts[0] : end]


TABLED: dict[str, Callable[[], bytes]] = {
    "closed groups": x264,
    "open groups": lambda: x264(":open-gop=1"),
    "many slices": lambda: x264(":slices=4"),
    "references only": lambda: x264(":bframes=0"),
    "variable rate": lambda: x264(pts=UNEVEN),
    "QuickTime": lambda: x264(container="mov"),
    "header first": lambda: remuxed(x264(), "faststart"),
    "HEVC": x265,
    "HEVC, open groups": lambda: x265(":open-gop=1"),
    "HEVC, temporal layers": lambda: x265(":temporal-layers=1"),
}
UNSURE: dict[str, Callable[[], bytes]] = {
    "in fragments": lambda: remuxed(x264(), "frag_keyframe+empty_moov"),
    "in fragments to come": hybrid,
    "cut off": lambda: remuxed(x264(), "faststart")[:-500],
    "frames hidden by an edit": lambda: patched(b"elst", 16, 10 * 512),
    "an empty edit, as it starts late": lambda: x264(pts=range(9, 69)),
    "no table of keyframes": lambda: x264().replace(b"stss", b"free"),
    "a keyframe that is none": lambda: patched(b"stss", 16, 14),
    "one delay too many": lambda: patched(b"ctts", 12, 2),
    "another codec": lambda: encode("mpeg4", num_frames=20, size=SIZE),
}


def told(data: bytes) -> tuple[list[Told] | None, list[Told]]:
    """Return what an MP4's tables tell of its packets, and what FFmpeg does that has read them."""
    with open_memory_file("video", data) as file:
        source = FileView(file.fileno(), len(data))
        with open_video(source, "mp4", DecodeLimits()) as opened:
            coming = demux(*opened)
            first = next(coming)
            tabled = tabled_packets(source, opened.stream, first)
            read = [(p.pts, p.dts, p.duration or 0, p.size, p.is_keyframe) for p in (first, *coming)]
    return None if tabled is None else [_columns(packet) for packet in tabled], read


def _columns(packet: StoredPacket) -> Told:
    assert not packet.discarded
    assert packet.has_own_time
    return packet.time, packet.seek, packet.duration, packet.num_bytes, packet.is_key


@pytest.mark.parametrize("name", TABLED)
def test_tables_tell_what_the_packets_do(name: str) -> None:
    tabled, read = told(TABLED[name]())
    assert len(read) == 60
    assert tabled == read


@pytest.mark.parametrize("name", TABLED)
def test_an_index_is_the_same_by_tables_and_by_packets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TABLED[name]()

    def index() -> object:
        with open_memory_file("video", data) as file:
            source = FileView(file.fileno(), len(data))
            with open_video(source, "mp4", DecodeLimits()) as opened:
                return read_index(source, opened, "mp4", DecodeLimits())

    by_tables = repr(index())
    monkeypatch.setattr("sdcom.video.probe.tabled_packets", lambda *_: None)
    assert repr(index()) == by_tables


@pytest.mark.parametrize("name", UNSURE)
def test_tables_that_may_not_be_all_there_is_tell_nothing(name: str) -> None:
    assert told(UNSURE[name]())[0] is None


def test_fragments_to_come_are_not_in_the_tables() -> None:
    data = hybrid()
    with (
        open_memory_file("video", data) as file,
        open_video(FileView(file.fileno(), len(data)), "mp4", DecodeLimits()) as opened,
    ):
        assert len(opened.stream.index_entries) == opened.stream.frames < 24
    assert len(told(data)[1]) == 24


def test_damaged_tables_tell_what_the_packets_do_or_nothing() -> None:
    outcomes = Counter[str]()
    for _, data in mutants({"h264": x264(), "hevc": x265(), "open": x264(":open-gop=1")}, 400):
        try:
            tabled, read = told(data)
        except (VideoRejectedError, StopIteration, MemoryError):
            continue
        outcomes["nothing" if tabled is None else "something"] += 1
        # A keyframe whose first bytes are sound and no others is none to FFmpeg; walks find out.
        assert tabled is None or [columns[:4] for columns in tabled] == [columns[:4] for columns in read]
    assert min(outcomes["nothing"], outcomes["something"]) > 20
