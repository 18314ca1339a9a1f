"""One scaler for both decoders, for streams and for training; frames stand upright."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcom.config import ClipConfig
from sdcom.errors import InvalidParameterError
from sdcom.video import DecodeLimits, DecoderPool, resize_and_crop
from sdcom.video.decoders import DecordDecoder, PyAVDecoder
from sdcom.video.geometry import Orientation, scaled_size, tamed_size
from sdcom.video.probe import probe
from sdcom.video.source import FileView
from tests.sdcom.video.videos import TURNS, encode, paint, read_number

sides = st.integers(16, 8192)


@given(sides, sides, st.integers(32, 1024))
def test_scaling_keeps_the_aspect_and_fits_the_short_side(width: int, height: int, short_side: int) -> None:
    scaled = scaled_size(width, height, short_side)
    assert min(scaled) == short_side
    assert max(scaled) == pytest.approx(max(width, height) * short_side / min(width, height), abs=0.5)


@given(sides, sides)
def test_no_aspect_makes_a_scaled_frame_large(width: int, height: int) -> None:
    tamed = tamed_size(width, height)
    assert max(tamed) <= 4 * min(tamed)
    assert min(tamed) == min(width, height)


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx264", "mp4", {"bf": "2"}),
        ("libvpx-vp9", "webm", {"cpu-used": "8", "deadline": "realtime"}),
        ("mpeg4", "mp4", {}),
    ],
)
@pytest.mark.parametrize("size", [(320, 240), (426, 240), (180, 320)])
def test_decord_and_pyav_give_the_same_pixels(
    tmp_path: Path, codec: str, container: str, options: dict[str, str], size: tuple[int, int]
) -> None:
    path = tmp_path / "video"
    path.write_bytes(encode(codec, container, num_frames=20, size=size, options=options))
    with path.open("rb") as file:
        source = FileView(file.fileno(), path.stat().st_size)
        index = probe(source, "mp4" if container == "mp4" else "matroska", DecodeLimits())
        decord, pyav = DecordDecoder(DecodeLimits()), PyAVDecoder(DecodeLimits())
        if not decord.serves(source, index):
            pytest.skip("decord is not installed: it has wheels for Linux on x86_64 only")
        wanted = np.arange(0, 20, 3)
        by_decord, by_pyav = (
            np.stack([picture.frame_HWC for picture in decoder.read(source, index, wanted, 256)])
            for decoder in (decord, pyav)
        )
    assert np.array_equal(by_decord, by_pyav)


def test_a_raw_frame_is_scaled_as_a_videos_frames_are() -> None:
    picture = paint(1234, 640, 480)
    assert read_number(resize_and_crop(picture, ClipConfig())) == 1234
    assert read_number(resize_and_crop(picture[::2, ::2], ClipConfig())) == 1234
    assert read_number(resize_and_crop(paint(7, 32, 32), ClipConfig())) == 7


@pytest.mark.parametrize("size", [(1, 1), (8192, 1), (3, 8192)])
def test_extreme_raw_frames_are_scaled_too(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 77, np.uint8)
    assert (resize_and_crop(frame, ClipConfig()) == 77).all()


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((10, 10, 3), np.float32),
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((0, 10, 3), np.uint8),
        np.zeros((8193, 1, 3), np.uint8),
    ],
    ids=lambda frame: f"{frame.dtype} {frame.shape}",
)
def test_a_raw_frame_of_another_kind_is_refused(frame: np.ndarray) -> None:
    with pytest.raises(InvalidParameterError, match="a raw frame"):
        resize_and_crop(frame, ClipConfig())


@pytest.mark.parametrize("turn", TURNS)
def test_a_display_matrix_turns_as_its_definition_says(turn: int) -> None:
    a, b, c, d = TURNS[turn]
    orientation = Orientation.from_display_matrix(struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
    stored = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    shown = orientation.apply(stored)
    assert np.array_equal(shown, np.rot90(stored, -turn // 90))
    assert orientation == Orientation.from_rotation(-turn)
    assert orientation.size(4, 3) == shown.shape[1::-1]


def test_a_mirrored_video_is_mirrored_back() -> None:
    mirror = Orientation.from_display_matrix(struct.pack("=9i", -65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    assert mirror == Orientation(flip_x=True)


def jpeg(picture: np.ndarray, exif_orientation: int) -> bytes:
    codec = av.VideoCodecContext.create("mjpeg", "w")
    codec.height, codec.width, codec.pix_fmt = *picture.shape[:2], "yuvj420p"
    codec.time_base = Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame = frame.reformat(format="yuvj420p", dst_color_range="JPEG")
    data = b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, exif_orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + data[2:]


@pytest.mark.parametrize(("exif_orientation", "turn"), [(1, 0), (6, 90), (3, 180), (8, 270)])
def test_a_photo_comes_out_upright(pool: DecoderPool, exif_orientation: int, turn: int) -> None:
    stored = np.rot90(paint(77, 240, 320), turn // 90)
    assert read_number(pool.decode_image(jpeg(stored, exif_orientation))) == 77


def test_a_cut_off_photo_is_scaled_or_refused_but_never_wrong(pool: DecoderPool) -> None:
    whole = jpeg(paint(77, 320, 240), 1)
    picture = pool.decode_image(whole[: len(whole) - 20])
    assert read_number(picture) == 77
