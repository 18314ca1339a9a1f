"""The first bytes alone decide which demuxer, if any, a file reaches."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcom.errors import UndecodableVideoError, UnsupportedContainerError, VideoRejectedError
from sdcom.video import sniff_container
from tests.sdcom.video.videos import encode

PLAYLISTS = {
    "an HLS playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n",
    "an SDP session description": (
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n"
    ),
    "an FFmpeg concat list": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a PLS playlist": b"[playlist]\nFile1=http://127.0.0.1/a.ts\n",
    "a DASH manifest": b'<?xml version="1.0"?>\n<!-- x -->\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>',
}


@pytest.mark.parametrize(
    ("codec", "muxer", "container"),
    [
        ("mpeg4", "mp4", "mp4"),
        ("mpeg4", "mov", "mp4"),
        ("mpeg4", "3gp", "mp4"),
        ("mpeg4", "matroska", "matroska"),
        ("libvpx", "webm", "matroska"),
        ("mpeg4", "avi", "avi"),
        ("mpeg2video", "mpegts", "mpegts"),
    ],
)
def test_an_accepted_container_is_named(codec: str, muxer: str, container: str) -> None:
    data = encode(codec, muxer, num_frames=4, size=(176, 144))
    assert sniff_container(data[:4096]) == container
    if container == "mpegts":  # M2TS: four bytes of time before each packet
        packets = (bytes(4) + data[at : at + 188] for at in range(0, len(data), 188))
        assert sniff_container(b"".join(packets)[:4096]) == "mpegts"


@pytest.mark.parametrize(
    "head", [b"\x00\x00\x00\x01mdat" + (32).to_bytes(8), b"\x00\x00\x00\x00mdat", b"\x00\x00\x00\x08wide"]
)
def test_a_quicktime_file_may_start_with_its_media(head: bytes) -> None:
    assert sniff_container(head) == "mp4"


@pytest.mark.parametrize(
    "head",
    [
        b"\x00\x00\x00\x07moov",
        b"\x00\x00\x00\x00ftypisom",
        b"\x00\x00\x00\x01mdat" + (15).to_bytes(8),
        b"\x00\x00\x00\x08ftyp",
        b"\x1a\x45\xdf\xa3" + b"\x42\x82\x85xhtml",
        b"RIFF\x00\x00\x00\x00",
        b"\x47" + bytes(500),
    ],
)
def test_a_header_that_only_begins_like_an_accepted_one_is_refused(head: bytes) -> None:
    with pytest.raises(UnsupportedContainerError):
        sniff_container(head)


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b" \r\n\t"], ids=["plain", "marked", "spaced"])
def test_a_playlist_is_refused_by_its_name(name: str, prefix: bytes) -> None:
    with pytest.raises(UnsupportedContainerError, match=name) as caught:
        sniff_container(prefix + PLAYLISTS[name])
    assert "MP4/MOV/3GP, Matroska/WebM, AVI or MPEG-TS" in str(caught.value)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"FLV\x01\x05", "FLV"),
        (b"\x00\x00\x01\xba\x44", "MPEG program"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF89a", "GIF"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "WAV"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "WebP"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "still image"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00", "still image"),
        (b"PK\x03\x04", "ZIP"),
        (b"%PDF-1.7", "PDF"),
        (b"OggS\x00", "Ogg"),
        (b"hello, world", "text"),
        (b"<html></html>", "HTML"),
        (b"\x7fELF\x02", "program"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08\x09", "01 02 03 04 05 06 07 08"),
    ],
)
def test_something_else_is_refused_by_its_name(head: bytes, name: str) -> None:
    with pytest.raises(UnsupportedContainerError, match=name):
        sniff_container(head)


def test_an_empty_upload_is_called_empty() -> None:
    with pytest.raises(UndecodableVideoError, match="the upload is empty"):
        sniff_container(b"")


@given(st.binary(max_size=600))
def test_any_bytes_are_named_or_rejected(head: bytes) -> None:
    with suppress(VideoRejectedError):
        assert sniff_container(head) in {"mp4", "matroska", "avi", "mpegts"}
