"""What is over a limit, or holds no video, is refused with words that say so."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from sdcom.config import ClipConfig
from sdcom.errors import UndecodableVideoError, VideoLimitError
from sdcom.video import DecodedClip, DecodeLimits, DecoderPool
from tests.sdcom.video.videos import encode

Decode = Callable[[bytes], DecodedClip]


def flat_video(codec: str, container: str, width: int, height: int, pixel_format: str = "yuv420p") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25, width=width, height=height, pix_fmt=pixel_format)
        assert isinstance(stream, VideoStream)
        frame = av.VideoFrame(width, height, pixel_format)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def audio_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def patched(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """Return an MP4 with bytes of its first box of a kind replaced, counted from the box's type."""
    at = data.index(box) + offset
    return data[:at] + value + data[at + len(value) :]


def test_an_empty_upload_is_refused(decode: Decode) -> None:
    with pytest.raises(UndecodableVideoError, match="empty"):
        decode(b"")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 200)])
def test_a_video_too_small_to_show_anything_is_refused(decode: Decode, width: int, height: int) -> None:
    with pytest.raises(VideoLimitError, match=rf"{width}x{height}; each side must have at least 16"):
        decode(flat_video("rawvideo", "avi", width, height))


def test_a_frame_of_8192_by_8192_is_refused(decode: Decode) -> None:
    with pytest.raises(VideoLimitError, match="8192x8192; the limits are 8192 pixels a side and 35389440"):
        decode(flat_video("ffv1", "matroska", 8192, 8192, "gray"))


def test_a_claimed_duration_of_100_hours_is_refused(decode: Decode) -> None:
    claim = struct.pack(">d", 100 * 3600 * 1000.0)  # Matroska's Duration, in milliseconds
    with pytest.raises(VideoLimitError, match=r"lasts 360000 s; the limit is 14400 s"):
        decode(patched(encode("libx264", "matroska", num_frames=10), b"\x44\x89\x88", 3, claim))


def test_a_sample_table_that_claims_100_hours_is_refused(decode: Decode) -> None:
    data = encode(num_frames=10)
    scale = int.from_bytes(data[data.index(b"mdhd") + 16 :][:4])
    with pytest.raises(VideoLimitError, match=r"lasts \d+ s; the limit is 14400 s"):
        decode(patched(data, b"stts", 16, (10 * 3600 * scale).to_bytes(4)))


def test_a_wrong_duration_that_no_frame_bears_out_is_ignored(decode: Decode) -> None:
    hundred_hours = (1000).to_bytes(4) + (100 * 3600 * 1000).to_bytes(4)
    clip = decode(patched(encode(num_frames=10), b"mvhd", 16, hundred_hours))
    assert clip.duration_s == pytest.approx(0.4)


def test_frames_that_really_span_100_hours_are_refused(decode: Decode) -> None:
    with pytest.raises(VideoLimitError, match="the limit is 14400 s"):
        decode(encode("ffv1", "matroska", num_frames=3, pts=[0, 25, 100 * 3600 * 25]))


def test_too_many_frames_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "video"
    path.write_bytes(encode("libx264", "matroska", num_frames=40))
    with (
        DecoderPool(ClipConfig(), DecodeLimits(max_frames=39), num_workers=1) as pool,
        pytest.raises(VideoLimitError, match="at least 40 frames; the limit is 39"),
    ):
        pool.decode(path)


def test_a_file_with_sound_alone_is_refused(decode: Decode) -> None:
    with pytest.raises(UndecodableVideoError, match=r"no video stream in the file \(streams: audio\)"):
        decode(audio_only())


def test_a_file_without_frames_is_refused(decode: Decode) -> None:
    data = encode(num_frames=10)
    with pytest.raises(UndecodableVideoError):
        decode(patched(data, b"stsz", 12, bytes(4)))


def test_a_file_cut_off_in_its_header_is_refused(decode: Decode) -> None:
    with pytest.raises(UndecodableVideoError, match="cannot be read"):
        decode(encode(num_frames=10)[:100])


def test_a_file_whose_frames_are_noise_is_refused(decode: Decode) -> None:
    data = encode(num_frames=40)
    start = data.index(b"mdat") + 4
    noise = np.random.default_rng(0).bytes(data.index(b"moov") - 4 - start)
    with pytest.raises(UndecodableVideoError, match="damaged or cut off"):
        decode(data[:start] + noise + data[start + len(noise) :])


def test_frames_that_grow_in_the_middle_are_refused_or_scaled(decode: Decode) -> None:
    small, large = (
        encode("mpeg2video", "mpegts", num_frames=20, size=size) for size in ((176, 144), (352, 288))
    )
    clip = decode(small + large)
    assert clip.frames_THWC.shape == (16, 224, 224, 3)


def test_a_stream_of_an_unknown_codec_is_refused(decode: Decode) -> None:
    data = encode("libx264", "matroska", num_frames=10)
    with pytest.raises(UndecodableVideoError, match="codec is unknown"):
        decode(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/XYZ"))


def test_an_mp4_of_an_unknown_codec_is_refused(decode: Decode) -> None:
    data = encode("libx264", "mp4", num_frames=10)
    with pytest.raises(UndecodableVideoError, match="codec is unknown"):
        decode(data.replace(b"avc1", b"xyz9").replace(b"avcC", b"xyzC"))


def test_an_extreme_aspect_is_cropped_before_it_is_scaled(decode: Decode) -> None:
    clip = decode(flat_video("mpeg4", "mp4", 8000, 16))
    assert (clip.width, clip.height) == (8000, 16)


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0" + bytes(300)])
def test_bytes_that_are_no_jpeg_are_refused(pool: DecoderPool, data: bytes) -> None:
    with pytest.raises(UndecodableVideoError, match="JPEG"):
        pool.decode_image(data)
