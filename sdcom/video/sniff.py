"""Which container the first bytes are: an allow-list, so that nothing else ever reaches a demuxer.

The bytes alone decide, never the file's name or the request's content type. What is found here is forced on
the demuxer, so that a file that is two things at once is read as the accepted one.
"""

import re
from collections.abc import Callable

from sdcom.errors import UndecodableVideoError, UnsupportedContainerError

HEAD_BYTES = 4096
"""How many of the first bytes `sniff_container` looks at."""

ACCEPTED = "MP4/MOV/3GP, Matroska/WebM, AVI or MPEG-TS"

_FIRST_BOXES = frozenset(
    [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"sidx", b"moof"]
)
_IMAGE_BRANDS = frozenset(
    [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis", b"crx "]
)
_TS_PACKETS = ((188, 0), (192, 4))  # packet bytes, offset of the sync byte: plain, and M2TS with a timestamp
_TS_MIN_SYNCS = 3

_LOOKS_LIKE = (
    (re.compile(rb"#EXTM3U"), "an HLS playlist"),
    (re.compile(rb"\[playlist\]", re.IGNORECASE), "a PLS playlist"),
    (re.compile(rb"ffconcat version"), "an FFmpeg concat list"),
    (re.compile(rb"v=0\r?\n"), "an SDP session description"),
    (re.compile(rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<MPD[\s>]", re.DOTALL), "a DASH manifest"),
    (re.compile(rb"<"), "HTML or XML"),
    (re.compile(rb"FLV\x01"), "Flash video (FLV)"),
    (re.compile(rb"\x00\x00\x01[\xba\xb3]"), "an MPEG program or elementary stream"),
    (re.compile(rb"\x00\x00\x00?\x01"), "a raw H.264 or HEVC stream"),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "Windows Media (ASF/WMV)"),
    (re.compile(rb"OggS"), "Ogg"),
    (re.compile(rb"DKIF"), "IVF"),
    (re.compile(rb"YUV4MPEG2"), "Y4M"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "a WebP image"),
    (re.compile(rb"RIFF.{4}WAVE", re.DOTALL), "WAV audio"),
    (re.compile(rb"ID3|\xff[\xfb\xf3\xf2\xf1\xf9]"), "MP3 or AAC audio"),
    (re.compile(rb"fLaC"), "FLAC audio"),
    (re.compile(rb"\xff\xd8\xff"), "a JPEG image"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "a PNG image"),
    (re.compile(rb"GIF8[79]a"), "a GIF image"),
    (re.compile(rb"BM.{4}\x00{4}", re.DOTALL), "a BMP image"),
    (re.compile(rb".{4}jP  \r\n\x87\n", re.DOTALL), "a JPEG 2000 image"),
    (re.compile(rb"II\*\x00|MM\x00\*"), "a TIFF image"),
    (re.compile(rb"%PDF-"), "a PDF document"),
    (re.compile(rb"PK[\x03\x05]"), "a ZIP archive"),
    (re.compile(rb"\x1f\x8b"), "gzip data"),
    (re.compile(rb"7z\xbc\xaf\x27\x1c|Rar!|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd"), "a compressed archive"),
    (re.compile(rb"\x7fELF|MZ"), "a program"),
)


def sniff_container(head: bytes) -> str:
    """Return the container that a file's first bytes announce.

    Args:
        head: the first `HEAD_BYTES` bytes, or the whole file if it is shorter.

    Returns:
        "mp4" (with MOV and 3GP), "matroska" (with WebM), "avi" or "mpegts".

    Raises:
        UndecodableVideoError: there are no bytes.
        UnsupportedContainerError: they are not those of an accepted container; says what they look like.
    """
    if not head:
        raise UndecodableVideoError("the upload is empty")
    for name, matches in _CONTAINERS.items():
        if matches(head):
            return name
    raise UnsupportedContainerError(f"this looks like {_describe(head)}; send a video in {ACCEPTED}")


def _is_mp4(head: bytes) -> bool:
    size, kind = int.from_bytes(head[:4]), head[4:8]
    if kind not in _FIRST_BOXES:
        return False
    if size == 1:  # a 64-bit size follows the type
        return len(head) >= 16 and int.from_bytes(head[8:16]) >= 16
    if size == 0:  # the box runs to the end of the file, which only media data may
        return kind == b"mdat"
    if kind == b"ftyp":
        return size >= 16 and head[8:12] not in _IMAGE_BRANDS
    return size >= 8


def _is_matroska(head: bytes) -> bool:
    if not head.startswith(b"\x1a\x45\xdf\xa3"):
        return False
    # EBML's DocType element: its id, its length as a one-byte EBML number, its text (RFC 8794, 11.2.5)
    return re.search(rb"\x42\x82(\x88matroska|\x84webm)", head[:256]) is not None


def _is_avi(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def _is_mpegts(head: bytes) -> bool:
    for packet, offset in _TS_PACKETS:
        syncs = head[offset::packet]
        if len(syncs) >= _TS_MIN_SYNCS and not syncs.strip(b"\x47"):
            return True
    return False


_CONTAINERS: dict[str, Callable[[bytes], bool]] = {
    "mp4": _is_mp4,
    "matroska": _is_matroska,
    "avi": _is_avi,
    "mpegts": _is_mpegts,
}


def _describe(head: bytes) -> str:
    """Say in words what bytes that are no accepted container look like."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n") or head
    if head[4:8] == b"ftyp":
        return f"a still image or unknown file of brand {head[8:12]!r}"
    for pattern, name in _LOOKS_LIKE:
        if pattern.match(start):
            return name
    if re.fullmatch(rb"[\t\r\n\x20-\x7e\x80-\xff]*", head[:512]):
        return "text"
    return f"unknown data (first bytes {head[:8].hex(' ')})"
