"""What nothing refers to is known by its packet's first bytes; in doubt, something does."""

import av
import pytest

from sdcom.video.references import Reference, reference_reader

AVCC = bytes([1, 100, 0, 30, 0xFF, 0xE1, 0, 0])
HVCC = bytes([1] + [0] * 20 + [3, 0])


def counted(*nals: bytes) -> bytes:
    return b"".join(len(nal).to_bytes(4) + nal for nal in nals)


def delimited(*nals: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + nal for nal in nals)


SEI, SLICE, LONE_SLICE, IDR = b"\x06\x05\x01", b"\x41\x9a", b"\x01\x9e", b"\x65\x88"


@pytest.mark.parametrize(
    ("nals", "is_referred"),
    [
        ([IDR], True),
        ([SEI, SLICE], True),
        ([SEI, LONE_SLICE], False),
        ([LONE_SLICE, LONE_SLICE], False),
        ([LONE_SLICE, SLICE], True),
        ([SEI], True),
    ],
)
def test_h264_says_so_in_each_slice(nals: list[bytes], is_referred: bool) -> None:
    by_length, by_start_code = reference_reader("h264", AVCC), reference_reader("h264", b"")
    assert by_length is not None
    assert by_start_code is not None
    assert by_length(counted(*nals)) == by_start_code(delimited(*nals)) == Reference(is_referred)


@pytest.mark.parametrize(
    ("kind", "layer", "expected"),
    [
        (0, 0, Reference(False)),
        (1, 0, Reference(True)),
        (2, 2, Reference(False, 2)),
        (19, 0, Reference(True)),
    ],
)
def test_hevc_says_so_for_one_temporal_layer(kind: int, layer: int, expected: Reference) -> None:
    read = reference_reader("hevc", HVCC)
    assert read is not None
    assert read(counted(bytes([35 << 1, 1, 0x50]), bytes([kind << 1, layer + 1, 0x80]))) == expected


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", b"\0\0\0\5\x01", b"\0" * 40_000, b"\xff" * 50])
def test_what_makes_no_sense_is_referred_to(payload: bytes) -> None:
    for codec, extradata in (("h264", AVCC), ("h264", b""), ("hevc", HVCC), ("hevc", b"")):
        read = reference_reader(codec, extradata)
        assert read is not None
        assert read(payload).is_referred


def test_other_codecs_do_not_say() -> None:
    for codec in ("vp9", "av1", "mpeg4", "mpeg2video"):
        assert codec in av.codecs_available
        assert reference_reader(codec, b"") is None
