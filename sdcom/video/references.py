"""Which frames no other frame refers to, read off the first bytes of their packets. Pure.

A decoder that walks past such a frame may leave it out, and what comes after is the same to the last bit.
Only H.264 and HEVC say so in a place that is worth reading; of other codecs' frames none is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

Payload = bytes | memoryview


class Reference(NamedTuple):
    """What a packet says of its frame.

    Attributes:
        is_referred: other frames of its own or a lower temporal layer may refer to it.
        layer: its temporal layer, 0 where there are none; frames of higher ones may refer to it anyway.
    """

    is_referred: bool
    layer: int = 0


REFERRED = Reference(is_referred=True)
_MAX_NALS = 1000  # HEVC allows 600 slices a picture


def reference_reader(codec: str, extradata: bytes) -> Callable[[Payload], Reference] | None:
    """Return what tells whether other frames may refer to a packet's, or None for a codec that does not say.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: the decoder configuration, from which the packets' form is known.
    """
    reader = {"h264": _of_h264, "hevc": _of_hevc}.get(codec)
    if reader is None:
        return None
    length_bytes = _length_bytes(codec, extradata)

    def read(payload: Payload) -> Reference:
        nals = _delimited(payload) if length_bytes == 0 else _counted(payload, length_bytes)
        heads = list(islice(nals, _MAX_NALS))
        if len(heads) == _MAX_NALS or any(len(head) < 2 for head in heads):
            return REFERRED
        return reader(heads)

    return read


def _of_h264(heads: list[Payload]) -> Reference:
    """ITU-T H.264, 7.4.1: nal_ref_idc is 0 in all slices of a picture or in none."""
    slices = [head[0] for head in heads if 1 <= head[0] & 0x1F <= 5]
    return Reference(is_referred=not slices or any(header & 0x60 for header in slices))


def _of_hevc(heads: list[Payload]) -> Reference:
    """ITU-T H.265, 7.4.2.2: even types below 16 are sub-layer non-reference pictures."""
    headers = [(head[0] >> 1 & 0x3F, head[1] & 7) for head in heads]
    slices = [(kind, layer) for kind, layer in headers if kind < 32]
    if not slices:
        return REFERRED
    is_referred = any(kind >= 16 or kind % 2 for kind, _ in slices)
    return Reference(is_referred, max(max(layer for _, layer in slices) - 1, 0))


def _length_bytes(codec: str, extradata: bytes) -> int:
    """Return of how many bytes a NAL unit's length is, or 0 where start codes stand between them."""
    place = 4 if codec == "h264" else 21  # ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1
    if len(extradata) <= place or extradata.startswith((b"\0\0\1", b"\0\0\0\1")):
        return 0
    return (extradata[place] & 3) + 1


def _counted(payload: Payload, length_bytes: int) -> Iterator[Payload]:
    """Yield the first two bytes of each NAL unit."""
    position = 0
    while position + length_bytes < len(payload):
        start = position + length_bytes
        position = start + int.from_bytes(payload[position:start])
        yield payload[start : start + 2]


def _delimited(payload: Payload) -> Iterator[Payload]:
    """Yield the first two bytes of each NAL unit."""
    data = bytes(payload)
    start = data.find(b"\0\0\1")
    while start >= 0:
        yield data[start + 3 : start + 5]
        start = data.find(b"\0\0\1", start + 3)
