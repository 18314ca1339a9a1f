"""Every torture file gives the answer written here, or the rejection written here, within seconds."""

import time
from pathlib import Path

import av
import numpy as np
import pytest

from sdcom.errors import UndecodableVideoError, UnsupportedContainerError, VideoRejectedError
from sdcom.sampling import segment_center_frames
from sdcom.video import DecoderPool
from sdcom.video.geometry import UInt8Array, center_crop
from sdcom.video.messages import DecoderName
from sdcom.video.probe import orientation_of
from sdcom.video.scale import Scaler
from tests.sdcom.video.videos import encode, read_number

# file: (frames, width, height, codec, decoder where decord is preferred), sizes upright, or the rejection
# and a word of its message
Answer = tuple[int, int, int, str, str] | tuple[type[VideoRejectedError], str]
ANSWERS: dict[str, Answer] = {
    "ExoPlayer__dolbyVision-hdr.MOV": (4, 720, 1280, "hevc", "pyav"),
    "ExoPlayer__h265_with_metadata_track.mp4": (3, 1080, 1920, "hevc", "pyav"),
    "ExoPlayer__portrait_4k60.mp4": (18, 2160, 3840, "h264", "pyav"),
    "ExoPlayer__sample.flv": (UnsupportedContainerError, "FLV"),
    "ExoPlayer__sample_fragmented.mp4": (30, 1080, 720, "h264", "decord"),
    "ExoPlayer__sample_h262_mpeg_audio.ts": (3, 640, 426, "mpeg2video", "pyav"),
    "ExoPlayer__sample_h265_rps_pred.ts": (16, 914, 686, "hevc", "pyav"),
    "ExoPlayer__sample_with_increasing_timestamps_320w_240h.mp4": (932, 320, 240, "h264", "decord"),
    "ExoPlayer__video_desks.3gp": (71, 352, 288, "h263", "pyav"),
    "decord__unordered.mov": (4, 50, 50, "h264", "decord"),
    "gen__1fps_60s.mp4": (60, 160, 120, "h264", "decord"),
    "gen__bitflips_mdat.mp4": (43, 320, 240, "h264", "pyav"),
    "gen__huge_dims_8k_1f.mp4": (1, 7680, 4320, "h264", "decord"),
    "gen__interlaced_mpeg2.mpg": (UnsupportedContainerError, "MPEG program"),
    "gen__prores_4444_alpha.mov": (25, 320, 240, "prores", "pyav"),
    "gen__rawvideo.avi": (10, 160, 120, "rawvideo", "pyav"),
    "gen__trunc_faststart_60pct.mp4": (33, 320, 240, "h264", "pyav"),
    "gen__very_wide.mp4": (25, 4096, 16, "h264", "pyav"),
    "gen__vp9_alpha.webm": (25, 320, 240, "vp9", "decord"),
    "libwebm__fixed_lacing_bad_lace_size.mkv": (UndecodableVideoError, "holds no video frames"),
    "libwebm__projection_float_overflow.webm": (UndecodableVideoError, "cannot be read"),
    "mmaction2__test.avi": (164, 320, 240, "mpeg4", "pyav"),
    "mp4parse-rust__chunk_out_of_range.mp4": (UndecodableVideoError, "cannot be read"),
    "mp4parse-rust__minimal.mp4": (1, 320, 240, "h264", "decord"),
    "mp4parse-rust__test_case_1185230.mp4": (UndecodableVideoError, "none of the 3"),
    "mp4parse-rust__zero_empty_stsc.mp4": (UndecodableVideoError, "none of the 2"),
    "torchcodec__av1_video.mkv": (125, 640, 360, "av1", "pyav"),
    "torchcodec__discard_first_keyframe.mp4": (25, 64, 64, "h264", "pyav"),
    "torchcodec__h265_video.mp4": (10, 128, 128, "hevc", "pyav"),
    "torchcodec__nasa_13013_rotated.mp4": (17, 270, 480, "h264", "pyav"),
    "torchcodec__test_non_zero_start.mp4": (12, 200, 112, "h264", "decord"),
    "torchcodec__testsrc2_mpeg4.mp4": (1, 64, 64, "mpeg4", "decord"),
    "torchcodec__testsrc2_odd_height_and_width_vp9.mp4": (25, 321, 241, "vp9", "decord"),
    "torchcodec__testsrc2_vp9.webm": (30, 1280, 720, "vp9", "decord"),
}
DAMAGED = {"gen__bitflips_mdat.mp4", "gen__trunc_faststart_60pct.mp4"}
UNDAMAGED = {name for name, answer in ANSWERS.items() if isinstance(answer[0], int)} - DAMAGED


@pytest.fixture(scope="module")
def torture_dir(shared_dir: Path) -> Path:
    return shared_dir / "data" / "torture"


@pytest.mark.shared
def test_the_table_covers_every_torture_file(torture_dir: Path) -> None:
    assert set(ANSWERS) == {path.name for path in torture_dir.iterdir()} - {"index.tsv"}


@pytest.mark.shared
@pytest.mark.parametrize("name", ANSWERS)
def test_a_torture_file_is_answered_or_rejected_as_expected(
    pool: DecoderPool, preferred: DecoderName, torture_dir: Path, name: str
) -> None:
    expected = ANSWERS[name]
    started = time.monotonic()
    if isinstance(expected[0], type):
        with pytest.raises(expected[0], match=str(expected[1])):
            pool.decode(torture_dir / name)
    else:
        clip = pool.decode(torture_dir / name)
        *facts, decoder = expected
        assert [clip.num_frames, clip.width, clip.height, clip.codec] == facts
        assert clip.decoder == (decoder if preferred == "decord" else "pyav")
    assert time.monotonic() - started < 10


def shown_at_centres(path: Path) -> list[UInt8Array]:
    """Return what a plain player shows: every frame decoded from the start, chosen by its own time."""
    with av.open(path, metadata_errors="ignore") as opened:
        frames = list(opened.decode(video=0))
    stores_times = path.suffix != ".avi"
    pts = np.array([frame.pts if stores_times else place for place, frame in enumerate(frames)])
    assert (np.diff(pts) > 0).all()
    duration = int(pts[-1] - pts[0] + (frames[-1].duration or np.diff(pts).mean()))
    scaler = Scaler(256)
    chosen = segment_center_frames(pts, duration, 16)
    return [
        center_crop(orientation_of(frames[k]).apply(scaler.scale(frames[k])), 224) for k in chosen.tolist()
    ]


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(UNDAMAGED))
def test_an_undamaged_file_shows_what_a_plain_player_shows(
    pool: DecoderPool, torture_dir: Path, name: str
) -> None:
    expected = np.stack(shown_at_centres(torture_dir / name))
    assert np.array_equal(pool.decode(torture_dir / name).frames_THWC, expected)


@pytest.mark.shared
def test_after_all_of_them_a_good_file_is_served(
    pool: DecoderPool, torture_dir: Path, tmp_path: Path
) -> None:
    for name in ANSWERS:
        try:
            pool.decode(torture_dir / name)
        except VideoRejectedError:
            continue
    path = tmp_path / "good.mp4"
    path.write_bytes(encode(num_frames=16))
    assert [read_number(frame) for frame in pool.decode(path).frames_THWC] == list(range(16))
