"""Bytes to frames: hostile uploads in jailed workers, trusted training files in this process.

A file goes through `sniff` (which container), `probe` (limits and timeline), `decoders` (the wanted
frames), `scale` (the one scaler) and `clip` (all of it, at once or in the `rounds` that are worth it);
`pool`, `process`, `worker` and `jail` keep it at arm's length.
"""

from sdcom.video.clip import TrustedVideo
from sdcom.video.decoded import DecodedClip
from sdcom.video.limits import DecodeLimits
from sdcom.video.pool import DecoderPool
from sdcom.video.scale import resize_and_crop
from sdcom.video.sniff import sniff_container

__all__ = [
    "DecodeLimits",
    "DecodedClip",
    "DecoderPool",
    "TrustedVideo",
    "resize_and_crop",
    "sniff_container",
]
