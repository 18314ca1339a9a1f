"""In which order a video's frames are stored, which of them may be passed over, and what they cost. Pure.

Legend of shape suffixes: N frames in time order, P packets as stored, K keyframes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sdcom.cheapest import BoolArray, DecodeCosts, costs_by_kind, decode_costs
from sdcom.sampling import Int64Array
from sdcom.video.references import Reference


class StoredPacket(NamedTuple):
    """What the timeline needs of one packet; times in ticks."""

    time: int | None
    seek: int | None
    duration: int
    num_bytes: int
    is_key: bool
    discarded: bool
    has_own_time: bool
    reference: Reference


@dataclass(frozen=True, slots=True)
class Storage:
    """The packets of a video of which each has a time that no other has.

    Attributes:
        time_P: when each packet's frame is shown, in ticks.
        num_bytes_P: the packets' sizes.
        is_key_P: decoding can start there.
        passable_P: no other frame refers to it.
        place_N: where each frame that is shown is stored, in time order.
    """

    time_P: Int64Array
    num_bytes_P: Int64Array
    is_key_P: BoolArray
    passable_P: BoolArray
    place_N: Int64Array

    @classmethod
    def of(cls, packets: Sequence[StoredPacket]) -> Storage | None:
        """Return how these packets are stored, or None if one lacks a time or shares it with another."""
        times = [packet.time for packet in packets if packet.time is not None]
        if len(set(times)) != len(packets):
            return None
        # What nothing refers to within its temporal layer may still be referred to from the layers above.
        highest = max(packet.reference.layer for packet in packets)
        time_P = np.array(times, dtype=np.int64)
        by_time_P = np.argsort(time_P)
        shown_P = np.array([not packet.discarded for packet in packets])
        return cls(
            time_P=time_P,
            num_bytes_P=np.array([packet.num_bytes for packet in packets], dtype=np.int64),
            is_key_P=np.array([packet.is_key for packet in packets]),
            passable_P=np.array(
                [not p.reference.is_referred and p.reference.layer == highest for p in packets]
            ),
            place_N=by_time_P[shown_P[by_time_P]].astype(np.int64),
        )

    def costs(self, keyframe_pts_K: Int64Array, num_pixels: int) -> DecodeCosts | None:
        """Return what reaching each frame costs; None if a keyframe is stored behind what it should start.

        Args:
            keyframe_pts_K: ascending times of keyframes where decoding can start; it can at the first packet.
            num_pixels: of one frame.
        """
        by_time_P = np.argsort(self.time_P)
        found_K = by_time_P[np.searchsorted(self.time_P[by_time_P], keyframe_pts_K)]
        start_S = np.concatenate([[0], found_K]).astype(np.int64)
        group_N = np.searchsorted(keyframe_pts_K, self.time_P[self.place_N], side="right").astype(np.int64)
        if (self.place_N < start_S[group_N]).any():
            return None
        cost_P = costs_by_kind(self.num_bytes_P, self.is_key_P, self.passable_P, num_pixels)
        return decode_costs(self.place_N, group_N, start_S, self.passable_P, cost_P)

    def last_stored(self, frames: Int64Array) -> int:
        """Return the time of that one of the frames which is stored last."""
        return int(self.time_P[self.place_N[frames].max()])

    def passable_times(self) -> frozenset[int]:
        """Return the times of the frames that no other refers to."""
        return frozenset(self.time_P[self.passable_P].tolist())


def plainly_ordered(packets: Sequence[StoredPacket]) -> bool:
    """Tell whether frames are all shown, at their own times, none before the keyframe it is stored behind."""
    times = [packet.time for packet in packets if packet.time is not None and packet.has_own_time]
    if len(set(times)) != len(packets) or not packets[0].is_key:
        return False
    if any(packet.discarded for packet in packets):
        return False
    key_time = times[0]
    for packet, time in zip(packets, times, strict=True):
        key_time = time if packet.is_key else key_time
        if time < key_time:
            return False
    return True


def last_frame_ticks(shown: Sequence[int], packets: Sequence[StoredPacket]) -> int:
    """Return how long the last frame stays: as its packet says, or as long as the others on average."""
    claimed = max((packet.duration for packet in packets if packet.time == shown[-1]), default=0)
    average = (shown[-1] - shown[0]) // max(len(shown) - 1, 1)
    return max(claimed or average, 1)


def longest_delay(packets: Sequence[StoredPacket]) -> int:
    """Return the most ticks from when a frame is decoded to when it is shown."""
    return max((p.time - p.seek for p in packets if p.time is not None and p.seek is not None), default=0)
