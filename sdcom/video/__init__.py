"""Bytes to frames: hostile uploads in jailed workers, trusted training files in this process.

A file goes through `sniff` (which container), `opening` (under limits), `probe` (the timeline, by an MP4's
`tables` or all packets), `decoders` (the wanted frames), `scale` (the one scaler) and `clip` (all of it, at
once or in the `rounds` that are worth it); `pool`, `process`, `worker` and `jail` keep it at arm's length,
`trusted` does without.
"""

from sdcom.video.decoded import DecodedClip
from sdcom.video.limits import DecodeLimits
from sdcom.video.pool import DecoderPool
from sdcom.video.scale import resize_and_crop
from sdcom.video.sniff import sniff_container
from sdcom.video.trusted import TrustedVideo

__all__ = [
    "DecodeLimits",
    "DecodedClip",
    "DecoderPool",
    "TrustedVideo",
    "resize_and_crop",
    "sniff_container",
]
