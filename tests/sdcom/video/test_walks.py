"""Walks leave frames out, and the frames that they are for come out right to the last one."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sdcom.config import ClipConfig
from sdcom.sampling import frames_of_segments
from sdcom.video import DecodeLimits, DecoderPool, TrustedVideo
from sdcom.video.clip import decode_clip
from sdcom.video.forward import ForwardReader
from sdcom.video.probe import VideoIndex, decode, probe
from sdcom.video.sniff import sniff_container
from sdcom.video.source import FileView
from tests.sdcom.video.videos import UInt8Array, encode, read_number, without_vui

NUM_FRAMES = 130
T = 16
QUIET = "log-level=none:pools=none:frame-threads=1"
UNEVEN = [0, *np.cumsum(np.random.default_rng(3).integers(10, 400, NUM_FRAMES - 1)).tolist()]


@dataclass(frozen=True)
class Made:
    """How a video is encoded, and whether some of its frames may be left out."""

    codec: str
    container: str
    options: dict[str, str] = field(default_factory=dict)
    has_passable: bool = True
    pts: list[int] | None = None

    def data(self) -> bytes:
        time_base = Fraction(1, 25) if self.pts is None else Fraction(1, 1000)
        return encode(
            self.codec,
            self.container,
            num_frames=NUM_FRAMES,
            pts=self.pts,
            time_base=time_base,
            options=self.options,
        )


def x264(params: str) -> dict[str, str]:
    return {"x264-params": params}


def x265(params: str) -> dict[str, str]:
    return {"x265-params": f"{QUIET}:{params}"}


PYRAMID = "keyint=40:bframes=7:b-pyramid=normal:b-adapt=0:scenecut=0"
MADE = {
    "closed groups": Made("libx264", "mp4", x264("keyint=24:bframes=3:b-adapt=0:open-gop=0")),
    "open groups": Made("libx264", "mp4", x264("keyint=24:bframes=3:b-adapt=0:open-gop=1")),
    "pyramid": Made("libx264", "mp4", x264(PYRAMID)),
    "open pyramid in Matroska": Made("libx264", "matroska", x264(f"{PYRAMID}:open-gop=1")),
    "pyramid in a transport stream": Made("libx264", "mpegts", x264(PYRAMID)),
    "references only": Made("libx264", "mp4", x264("keyint=40:bframes=0"), has_passable=False),
    "variable rate": Made("libx264", "mp4", x264(PYRAMID), pts=UNEVEN),
    "variable rate, open, in Matroska": Made(
        "libx264", "matroska", x264(f"{PYRAMID}:open-gop=1"), pts=UNEVEN
    ),
    "HEVC": Made("libx265", "mp4", x265("keyint=40:bframes=4:b-adapt=0:open-gop=0")),
    "HEVC, open": Made("libx265", "mp4", x265("keyint=24:min-keyint=24:bframes=4:b-adapt=0:open-gop=1")),
    "HEVC, temporal layers": Made("libx265", "mp4", x265("keyint=40:bframes=4:b-adapt=0:temporal-layers=1")),
    "HEVC in a transport stream": Made("libx265", "mpegts", x265("keyint=40:bframes=4:b-adapt=0")),
    "MPEG-4 in AVI": Made("mpeg4", "avi", {"g": "12", "bf": "2"}, has_passable=False),
    "VP9": Made(
        "libvpx-vp9", "webm", {"cpu-used": "8", "deadline": "realtime", "g": "40"}, has_passable=False
    ),
    "AV1": Made(
        "libsvtav1",
        "mp4",
        {"preset": "9", "crf": "20", "g": "40", "svtav1-params": "lp=1:enable-tf=0"},
        has_passable=False,
    ),
}


@pytest.fixture(scope="module", params=MADE)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    how = MADE[request.param]
    path = tmp_path_factory.mktemp("made") / "video"
    path.write_bytes(how.data())
    return how, path


@pytest.fixture(scope="module")
def thrifty() -> Iterator[DecoderPool]:
    with DecoderPool(ClipConfig(), num_workers=1, sampling="cheapest") as pool:
        yield pool


def index_of(path: Path) -> VideoIndex:
    with path.open("rb") as file:
        data = path.stat().st_size
        return probe(FileView(file.fileno(), data), sniff_container(path.read_bytes()[:4096]), DecodeLimits())


def numbers_in(frames_THWC: UInt8Array) -> list[int]:
    return [read_number(frame) for frame in frames_THWC]


def test_any_frames_are_read_right_whatever_is_left_out_between_them(made: tuple[Made, Path]) -> None:
    _, path = made
    video, rng = TrustedVideo(path), np.random.default_rng(0)
    for num_wanted in (1, 1, 2, 3, 8, 40):
        wanted = np.sort(rng.choice(NUM_FRAMES, num_wanted, replace=False))
        frames = video.read(wanted, 64)
        assert [read_number(frame, short_side=64) for frame in frames] == wanted.tolist()


def test_only_what_nothing_refers_to_can_be_left_out(made: tuple[Made, Path]) -> None:
    how, path = made
    storage = index_of(path).storage
    assert how.has_passable == (storage is not None and bool(storage.passable_P.any()))


def test_the_cheapest_frames_are_shown_at_their_own_times(
    made: tuple[Made, Path], thrifty: DecoderPool
) -> None:
    how, path = made
    index, clip = index_of(path), thrifty.decode(path)
    shown = np.array(numbers_in(clip.frames_THWC))
    pts = np.arange(NUM_FRAMES) / 25 if how.pts is None else np.array(how.pts) / 1000
    assert clip.times_s == pytest.approx(pts[shown], abs=2e-3)
    first_T, center_T, last_T = frames_of_segments(index.pts_N, index.duration, T)
    assert (first_T <= shown).all()
    assert (shown <= last_T).all()
    costs = index.costs()
    if costs is None:
        assert shown.tolist() == center_T.tolist()
    else:
        assert costs.of(shown) < costs.of(center_T)


def test_affordable_frames_are_shown_at_their_own_times(
    made: tuple[Made, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    how, path = made
    index, frames_THWC = index_of(path), np.zeros((T, 224, 224, 3), np.uint8)
    monkeypatch.setattr("sdcom.affordable.AFFORDABLE", 1)
    monkeypatch.setattr("sdcom.affordable.MIN_KEYFRAMES", 3)
    with path.open("rb") as file:
        source = FileView(file.fileno(), path.stat().st_size)
        facts = decode_clip(source, index.container, 256, DecodeLimits(), frames_THWC, sampling="affordable")
    shown = np.array(numbers_in(frames_THWC))
    pts = np.arange(NUM_FRAMES) / 25 if how.pts is None else np.array(how.pts) / 1000
    assert facts.times_s == pytest.approx(pts[shown], abs=2e-3)
    costs = index.costs()
    if costs is not None:
        assert costs.of(shown) <= 3 * costs.walk_N.min()


def test_frames_come_in_order_where_a_stream_does_not_say_how_far_they_are_reordered(tmp_path: Path) -> None:
    path = tmp_path / "video"
    path.write_bytes(without_vui(MADE["open pyramid in Matroska"].data()))
    frames = TrustedVideo(path).read(np.arange(NUM_FRAMES), 64)
    assert [read_number(frame, short_side=64) for frame in frames] == list(range(NUM_FRAMES))


def test_a_walk_decodes_as_many_frames_as_the_model_says(
    made: tuple[Made, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    how, path = made
    index, wanted = index_of(path), np.array([50, 53, 85])
    if index.storage is None or how.container == "mpegts":  # whose keyframes are found by searching
        return
    decoded: list[object] = []

    def noting(packet: object, *rest: object) -> object:
        decoded.append(packet)
        return decode(packet, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("sdcom.video.forward.decode", noting)
    with path.open("rb") as file:
        source = FileView(file.fileno(), path.stat().st_size)
        with ForwardReader(source, index, DecodeLimits()) as reader:
            assert [exact for _, exact in reader.read(wanted)] == [True, True, True]
    one_each = replace(index.storage, num_bytes_P=np.zeros_like(index.storage.num_bytes_P))
    costs = one_each.costs(index.keyframe_pts_K, num_pixels=0)
    assert costs is not None
    assert sum(packet is not None for packet in decoded) == costs.of(wanted)


def test_frames_that_an_edit_list_hides_are_walked_past(tmp_path: Path, thrifty: DecoderPool) -> None:
    path = tmp_path / "edited.mp4"
    path.write_bytes(without_the_first(10, MADE["closed groups"].data()))
    index, clip = index_of(path), thrifty.decode(path)
    assert len(index.pts_N) == NUM_FRAMES - 10
    assert numbers_in(clip.frames_THWC)[0] >= 10
    shown = np.array(numbers_in(clip.frames_THWC)) - 10
    assert clip.times_s == pytest.approx(shown / 25, abs=2e-3)
    frames = TrustedVideo(path).read(np.arange(0, NUM_FRAMES - 10, 7), 64)
    assert [read_number(frame, short_side=64) - 10 for frame in frames] == list(range(0, NUM_FRAMES - 10, 7))


def without_the_first(num_hidden: int, data: bytes) -> bytes:
    """Return the video with its first frames hidden by an edit list."""
    buffer = io.BytesIO()
    muxing = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with (
        av.open(io.BytesIO(data), "r") as source,
        av.open(buffer, "w", format="mp4", options=muxing) as output,
    ):
        (stream,) = source.streams.video
        copied = output.add_stream_from_template(stream)
        assert stream.time_base is not None
        shift = int(num_hidden / 25 / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copied
                output.mux(packet)
    return buffer.getvalue()
