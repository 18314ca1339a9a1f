"""Which frames no other frame refers to, read off the first bytes of their packets. Pure.

A decoder that walks past such a frame may leave it out, and what comes after is the same to the last bit.
Only H.264 and HEVC say so in a place that is worth reading; of other codecs' frames none is passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, reduce
from operator import or_
from typing import NamedTuple

Nals = tuple[bytes, ...]
"""The first two bytes of each NAL unit of a packet."""


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
_TELLING = {"h264": 4, "hevc": 21}
"""Codecs that say so, and where their decoder configuration says how NAL units are counted (ISO/IEC 14496-15,
5.3.3.1 and 8.3.3.1)."""


def reference_reader(codec: str, extradata: bytes) -> Callable[[bytes | memoryview], Reference] | None:
    """Return what tells whether other frames may refer to a packet's, or None for a codec that does not say.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: the decoder configuration, from which the packets' form is known.
    """
    if codec not in _TELLING:
        return None
    length_bytes = nal_length_bytes(codec, extradata)

    def read(payload: bytes | memoryview) -> Reference:
        nals = (
            counted_nals(lambda start, stop: bytes(payload[start:stop]), 0, len(payload), length_bytes)
            if length_bytes
            else _delimited_nals(bytes(payload))
        )
        return reference_of(codec, nals)

    return read


def nal_length_bytes(codec: str, extradata: bytes) -> int:
    """Return of how many bytes a NAL unit's length is, or 0 where start codes stand between them."""
    place = _TELLING[codec]
    if len(extradata) <= place or extradata.startswith((b"\0\0\1", b"\0\0\0\1")):
        return 0
    return (extradata[place] & 3) + 1


def counted_nals(read: Callable[[int, int], bytes], start: int, stop: int, length_bytes: int) -> Nals:
    """Return what begins the NAL units of a packet; less of the last one if it is cut off.

    Args:
        read: returns the bytes between two places.
        start: where the packet starts.
        stop: where it ends.
        length_bytes: of how many bytes a unit's length is.
    """
    nals = list[bytes]()
    while start + length_bytes < stop and len(nals) < _MAX_NALS:
        head = read(start, min(start + length_bytes + 2, stop))
        start += length_bytes + int.from_bytes(head[:length_bytes])
        nals.append(head[length_bytes:])
    return tuple(nals)


def _delimited_nals(payload: bytes) -> Nals:
    nals, start = list[bytes](), payload.find(b"\0\0\1")
    while start >= 0 and len(nals) < _MAX_NALS:
        nals.append(payload[start + 3 : start + 5])
        start = payload.find(b"\0\0\1", start + 3)
    return tuple(nals)


@lru_cache(256)  # most packets begin alike
def reference_of(codec: str, nals: Nals) -> Reference:
    """Return what the NAL units of an H.264 or HEVC packet say of its frame."""
    if len(nals) == _MAX_NALS or any(len(nal) < 2 for nal in nals):
        return REFERRED
    return _of_h264(nals) if codec == "h264" else _of_hevc(nals)


@lru_cache(256)
def begins_group(nals: Nals) -> bool:
    """Tell whether decoding H.264 can start here, as FFmpeg's parser does.

    It can at an IDR picture (ITU-T H.264, 7.4.1) and where a recovery point is announced (D.2.8).
    """
    kinds = [nal[0] & 0x1F for nal in nals]
    return 5 in kinds or any(nal[1:] == b"\6" for nal, kind in zip(nals, kinds, strict=True) if kind == 6)


def _of_h264(nals: Nals) -> Reference:
    """ITU-T H.264, 7.4.1: nal_ref_idc is 0 in all slices of a picture or in none."""
    slices = [nal[0] for nal in nals if 1 <= nal[0] & 0x1F <= 5]
    return Reference(is_referred=not slices or bool(reduce(or_, slices) & 0x60))


def _of_hevc(nals: Nals) -> Reference:
    """ITU-T H.265, 7.4.2.2: even types below 16 are sub-layer non-reference pictures."""
    headers = [(nal[0] >> 1 & 0x3F, nal[1] & 7) for nal in nals]
    slices = [(kind, layer) for kind, layer in headers if kind < 32]
    if not slices:
        return REFERRED
    is_referred = any(kind >= 16 or kind % 2 for kind, _ in slices)
    return Reference(is_referred, max(max(layer for _, layer in slices) - 1, 0))
