"""A file that is partly damaged is answered from what can be read, and says how much could not."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pytest

from sdcom.config import ClipConfig
from sdcom.errors import UndecodableVideoError
from sdcom.sampling import coarse_to_fine_order, segment_centers
from sdcom.video import DecodedClip, DecoderPool
from sdcom.video.messages import BrokenAnswerError, ClipFacts, Progress, encode_progress, parse_answer
from tests.sdcom.video.videos import encode, read_number

Decode = Callable[[bytes], DecodedClip]

T = ClipConfig().num_frames
NUM_FRAMES, GROUP = 96, 6  # frames, and from keyframe to keyframe
FACTS = ClipFacts((0.0,) * T, 1.0, 1, 320, 240, "mp4", "h264", "pyav", 0, 0)


def damaged(data: bytes, first: int, end: int) -> bytes:
    """Return a file with zeros in place of its frames from one, in the order stored, to before another."""
    with av.open(io.BytesIO(data), "r") as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size][first:end]
    zeroed = bytearray(data)
    for packet in packets:
        assert packet.pos is not None
        zeroed[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    return bytes(zeroed)


def cut_off(num_frames: int, num_kept: int) -> bytes:
    """Return an MP4 with its table in front that ends after some of its frames, in the order stored."""
    data = encode(num_frames=num_frames, muxing={"moov_size": "20000"})
    with av.open(io.BytesIO(data), "r") as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size]
    assert packets[num_kept].pos is not None
    return data[: packets[num_kept].pos]


def num_other_frames(clip: DecodedClip, num_frames: int) -> int:
    """Count the places that show another frame than the centre of their segment."""
    shown_T = np.array([read_number(frame) for frame in clip.frames_THWC])
    return int((shown_T != segment_centers(num_frames, T)).sum())


@pytest.fixture(scope="module")
def sound() -> bytes:
    return encode(num_frames=NUM_FRAMES, options={"g": str(GROUP), "bf": "0"})


@pytest.mark.parametrize(("first", "end"), [(0, 3 * GROUP), (33, 60), (50, NUM_FRAMES)])
def test_frames_that_cannot_be_read_are_counted(decode: Decode, sound: bytes, first: int, end: int) -> None:
    clip, centers_T = decode(damaged(sound, first, end)), segment_centers(NUM_FRAMES, T)
    num_lost = int(((first <= centers_T) & (centers_T < end)).sum())
    assert clip.num_unreadable_frames == num_other_frames(clip, NUM_FRAMES) == num_lost > 0


def test_a_sound_file_has_none(decode: Decode, sound: bytes) -> None:
    assert decode(sound).num_unreadable_frames == 0


def test_each_place_of_an_unreadable_frame_of_a_short_video_counts(decode: Decode) -> None:
    clip = decode(damaged(encode(num_frames=4, options={"g": "1", "bf": "0"}), 2, 3))
    assert clip.num_unreadable_frames == num_other_frames(clip, 4) == T / 4


def test_a_cut_off_mp4_is_a_shorter_video_that_tells_what_is_missing(decode: Decode) -> None:
    clip = decode(cut_off(NUM_FRAMES, 70))
    assert (clip.num_frames, clip.num_missing_frames) == (70, NUM_FRAMES - 70)
    assert clip.num_unreadable_frames <= 1, "its last one may refer to what is missing"


def test_another_cut_off_container_is_a_shorter_video(decode: Decode) -> None:
    data = encode("libx264", "matroska", num_frames=NUM_FRAMES, options={"g": str(GROUP), "bf": "0"})
    clip = decode(data[: int(0.7 * len(data))])
    assert clip.num_unreadable_frames == clip.num_missing_frames == 0
    assert clip.duration_s < 0.8 * NUM_FRAMES / 25


@pytest.mark.parametrize(
    "muxing",
    [{}, {"movflags": "frag_keyframe"}, {"movflags": "frag_keyframe+empty_moov"}, {"moov_size": "20000"}],
)
def test_no_frame_is_missing_from_a_whole_mp4_wherever_its_tables_are(
    decode: Decode, muxing: dict[str, str]
) -> None:
    clip = decode(encode(num_frames=NUM_FRAMES, options={"g": str(GROUP), "bf": "2"}, muxing=muxing))
    assert (clip.num_frames, clip.num_missing_frames) == (NUM_FRAMES, 0)


@pytest.mark.parametrize(("offset", "number"), [(8, 2000), (12, 40 * 512)], ids=["end", "start"])
def test_frames_outside_an_edit_are_not_missing(decode: Decode, offset: int, number: int) -> None:
    data = encode(num_frames=NUM_FRAMES, options={"g": str(GROUP), "bf": "0"})
    place = data.index(b"elst") + 4 + offset  # an edit's duration, and where it begins
    clip = decode(data[:place] + number.to_bytes(4) + data[place + 4 :])
    assert clip.num_frames is not None
    assert clip.num_frames < NUM_FRAMES
    assert clip.num_missing_frames == 0


@pytest.mark.parametrize("share", [1.0, 0.42, 0.3])
def test_of_a_cut_off_mp4_frames_after_its_last_edit_are_not_missing(decode: Decode, share: float) -> None:
    data = encode(num_frames=75, options={"g": "12", "bf": "2"}, muxing={"moov_size": "20000"})
    place, end = data.index(b"elst") + 12, data.index(b"mdat")
    data = data[:place] + (1000).to_bytes(4) + data[place + 4 :]  # one second: 25 frames
    clip = decode(data[: end + int(share * (len(data) - end))])
    assert clip.num_frames is not None
    assert clip.num_missing_frames == 25 - clip.num_frames
    assert (clip.num_missing_frames > 0) == (share < 0.4)


def test_a_file_of_which_less_than_half_can_be_read_is_refused(decode: Decode, sound: bytes) -> None:
    with pytest.raises(UndecodableVideoError, match="sampled frames can be decoded"):
        decode(damaged(sound, 2 * GROUP, NUM_FRAMES))


def test_who_comes_upon_an_unreadable_frame_in_rounds_is_told_as_at_once(
    sound: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.mp4"
    path.write_bytes(damaged(sound, 60, NUM_FRAMES))
    with DecoderPool(ClipConfig(), num_workers=1) as pool:
        at_once = pool.decode(path)
        with pool.decode_on_demand(path) as coming:
            told = [coming.clip.num_unreadable_frames for _ in coming.frames(coarse_to_fine_order(T))]
    assert told[0] == 0, "the middle frame is sound, and others have not been looked at"
    assert told[-1] == at_once.num_unreadable_frames > 0


@pytest.mark.parametrize("claim", [-1, 2**31, 10**30, "many", None, float("inf")])
@pytest.mark.parametrize("field", ["num_unreadable_frames", "num_missing_frames"])
def test_a_worker_cannot_claim_an_impossible_number(field: str, claim: object) -> None:
    answer = asdict(Progress(FACTS, tuple(range(T))))
    answer["facts"][field] = claim
    with pytest.raises(BrokenAnswerError):
        parse_answer(json.dumps(answer).encode(), "rounds", T)


@pytest.mark.parametrize("field", ["num_unreadable_frames", "num_missing_frames"])
def test_a_worker_must_say_how_many(field: str) -> None:
    answer = asdict(Progress(FACTS))
    del answer["facts"][field]
    with pytest.raises(BrokenAnswerError):
        parse_answer(json.dumps(answer).encode(), "video", T)
    assert parse_answer(encode_progress(Progress(FACTS)), "video", T).facts == FACTS


def test_a_worker_cannot_claim_that_no_frame_could_be_read() -> None:
    answer = encode_progress(Progress(replace(FACTS, num_unreadable_frames=T)))
    with pytest.raises(BrokenAnswerError, match=f"{T} unreadable frames"):
        parse_answer(answer, "video", T)
