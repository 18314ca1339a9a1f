"""Every codec, container, order, rate, size and turn gives the very frames that were asked for."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sdcom.sampling import segment_centers
from sdcom.video import DecodedClip, TrustedVideo
from sdcom.video.messages import DecoderName
from tests.sdcom.video.videos import encode, paint, read_number

Decode = Callable[[bytes], DecodedClip]

T = 16
QUIET_X265 = {"x265-params": "log-level=none:pools=none:frame-threads=1"}
FAST_VP9 = {"cpu-used": "8", "deadline": "realtime"}
QUIET_AV1 = {"preset": "9", "crf": "20", "svtav1-params": "lp=1:enable-tf=0"}  # no blend of frames
B_FRAMES = {"bf": "3", "g": "12"}
OPEN_GOPS = {"x264-params": "open-gop=1:bframes=3:keyint=12"}


def numbers_in(clip: DecodedClip) -> list[int]:
    return [read_number(frame) for frame in clip.frames_THWC]


@pytest.mark.parametrize(
    ("decoder", "encoding"),
    [
        ("decord", ("libx264", "mp4", {})),
        ("decord", ("libx264", "matroska", {})),
        ("decord", ("libx265", "mp4", QUIET_X265)),
        ("decord", ("libvpx-vp9", "webm", FAST_VP9)),
        ("decord", ("libvpx", "webm", FAST_VP9)),
        ("decord", ("mpeg4", "mov", {})),
        ("pyav", ("libsvtav1", "mp4", QUIET_AV1)),
        ("pyav", ("libsvtav1", "webm", QUIET_AV1)),
        ("pyav", ("libx264", "mpegts", {})),
        ("pyav", ("mpeg2video", "mpegts", {"bf": "2"})),
        ("pyav", ("mpeg4", "avi", {})),
        ("pyav", ("mpeg4", "avi", {"bf": "2"})),
        ("pyav", ("libx264", "avi", {})),
        ("pyav", ("libx264", "mp4", {"flags": "+ildct+ilme"})),
        ("pyav", ("rawvideo", "avi", {})),
    ],
)
def test_each_codec_in_each_container_shows_the_segments_centre_frames(
    decode: Decode, preferred: DecoderName, decoder: str, encoding: tuple[str, str, dict[str, str]]
) -> None:
    codec, container, options = encoding
    clip = decode(encode(codec, container, num_frames=40, options=options))
    assert numbers_in(clip) == segment_centers(40, T).tolist()
    assert clip.decoder == (decoder if preferred == "decord" else "pyav")
    assert (clip.num_frames, clip.width, clip.height) == (40, 320, 240)
    assert clip.duration_s == pytest.approx(1.6, abs=0.05)
    assert clip.times_s == pytest.approx(segment_centers(40, T) / 25, abs=1e-3)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "avi"])
@pytest.mark.parametrize("options", [B_FRAMES, OPEN_GOPS], ids=["closed", "open"])
def test_seeking_across_groups_of_pictures_lands_on_the_right_frame(
    decode: Decode, container: str, options: dict[str, str]
) -> None:
    clip = decode(encode("libx264", container, num_frames=260, options=options))
    assert numbers_in(clip) == segment_centers(260, T).tolist()


@pytest.mark.parametrize("size", [(320, 240), (180, 320)])
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_video_comes_out_upright(decode: Decode, turn: int, size: tuple[int, int]) -> None:
    clip = decode(encode(turn=turn, size=size))
    assert numbers_in(clip) == segment_centers(50, T).tolist()
    assert (clip.width, clip.height, clip.decoder) == (*size, "pyav")


@pytest.mark.parametrize(
    ("codec", "container", "pixel_format"),
    [
        ("libvpx-vp9", "webm", "yuv420p"),
        ("libx264", "mp4", "yuv444p"),
        ("mpeg4", "avi", "yuv420p"),
        ("prores_ks", "mov", "yuva444p10le"),
    ],
)
def test_odd_sizes_and_alpha_are_read(decode: Decode, codec: str, container: str, pixel_format: str) -> None:
    options = FAST_VP9 if codec == "libvpx-vp9" else {}
    clip = decode(encode(codec, container, size=(321, 241), pixel_format=pixel_format, options=options))
    assert numbers_in(clip) == segment_centers(50, T).tolist()
    assert (clip.width, clip.height) == (321, 241)


def test_a_size_that_only_frames_tell_is_found_behind_much_sound(decode: Decode) -> None:
    buffer, sound = io.BytesIO(), np.zeros((1, 2 * 48_000), np.int16)
    with av.open(buffer, "w", format="mov") as output:
        heard = output.add_stream("pcm_s16le", rate=48_000, layout="stereo")
        seen = output.add_stream("h263", rate=25, width=352, height=288, pix_fmt="yuv420p")
        samples = av.AudioFrame.from_ndarray(sound, layout="stereo")
        samples.rate = 48_000
        output.mux(heard.encode(samples))
        for number in range(20):
            output.mux(seen.encode(av.VideoFrame.from_ndarray(paint(number, 352, 288))))
        output.mux(seen.encode(None))
    size_in_header = b"\x01\x60\x01\x20"
    assert buffer.getvalue().count(size_in_header) == 1
    clip = decode(buffer.getvalue().replace(size_in_header, b"\0\0\0\0"))
    assert numbers_in(clip) == segment_centers(20, T).tolist()
    assert (clip.width, clip.height) == (352, 288)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 15, 16, 17])
def test_a_short_video_repeats_its_frames_evenly(decode: Decode, num_frames: int) -> None:
    assert numbers_in(decode(encode(num_frames=num_frames))) == segment_centers(num_frames, T).tolist()


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("options", [{"bf": "0"}, B_FRAMES], ids=["in order", "reordered"])
def test_a_variable_rate_shows_what_is_on_screen_at_the_centre_times(
    decode: Decode, container: str, options: dict[str, str]
) -> None:
    gaps = np.random.default_rng(7).integers(10, 400, size=60)
    pts = [0, *np.cumsum(gaps[:-1]).tolist()]
    data = encode("libx264", container, num_frames=60, pts=pts, time_base=Fraction(1, 1000), options=options)
    clip = decode(data)
    end = clip.duration_s * 1000
    centres = [(2 * i + 1) * end / (2 * T) for i in range(T)]
    assert numbers_in(clip) == [max(k for k in range(60) if pts[k] <= centre) for centre in centres]
    assert clip.times_s == pytest.approx([pts[k] / 1000 for k in numbers_in(clip)], abs=2e-3)


def test_a_late_start_changes_nothing(decode: Decode) -> None:
    clip = decode(encode(pts=[k + 1000 for k in range(50)]))
    assert numbers_in(clip) == segment_centers(50, T).tolist()
    assert clip.times_s[0] == pytest.approx(1 / 25)


@pytest.mark.parametrize("container", ["mp4", "mpegts"])
def test_training_sees_every_frame_in_order(tmp_path: Path, container: str) -> None:
    path = tmp_path / "video"
    path.write_bytes(encode("libx264", container, num_frames=45, options=B_FRAMES))
    video = TrustedVideo(path)
    frames, times_s = video.read(np.arange(video.num_frames), 128), video.times_s
    assert frames.shape == (45, 128, 171, 3)
    assert [read_number(frame, short_side=128) for frame in frames] == list(range(45))
    assert times_s == pytest.approx(np.arange(45) / 25)


def test_training_and_serving_see_the_same_pixels(decode: Decode, tmp_path: Path) -> None:
    data = encode(num_frames=40)
    path = tmp_path / "video"
    path.write_bytes(data)
    video = TrustedVideo(path)
    frames = video.read(np.arange(video.num_frames), 256)
    cropped = frames[segment_centers(40, T), 16:240, 58:282]
    assert np.array_equal(cropped, decode(data).frames_THWC)
