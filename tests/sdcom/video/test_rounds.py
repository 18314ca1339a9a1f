"""Decoding in rounds: the same frames, no more than are asked for, and no worker kept from the next file."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdcom.cheapest import DecodeCosts
from sdcom.config import ClipConfig
from sdcom.errors import (
    DeadlineExceededError,
    DecoderKilledError,
    OverloadedError,
    SdcomError,
    UndecodableVideoError,
    VideoRejectedError,
)
from sdcom.sampling import Sampling, coarse_to_fine_order
from sdcom.video import DecodeLimits, DecoderPool
from sdcom.video.geometry import UInt8Array
from sdcom.video.messages import BrokenAnswerError, parse_answer
from sdcom.video.rounds import TOLERANCE, Round, plan_rounds
from tests.sdcom.video.mutate import mutants
from tests.sdcom.video.rogue_worker import ROGUE_COMMAND, misdeed_file
from tests.sdcom.video.videos import encode

T = ClipConfig().num_frames
ORDER_T = coarse_to_fine_order(T)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(ClipConfig(), num_workers=1) as pool:
        yield pool


@pytest.fixture(scope="module")
def many_keyframes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rounds") / "many.mp4"
    path.write_bytes(encode("libx264", "mp4", num_frames=200, options={"g": "12"}))
    return path


@st.composite
def videos(draw: st.DrawFn) -> tuple[DecodeCosts, list[int]]:
    """Groups of frames of random cost, and frames of them in any order."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    own = np.array(draw(st.lists(st.sampled_from([0, 0, 3]), min_size=sum(sizes), max_size=sum(sizes))))
    step = np.where(own > 0, 0, 5)
    walk = np.concatenate([np.cumsum(part) for part in np.split(step, np.cumsum(sizes)[:-1])])
    costs = DecodeCosts(np.repeat(np.arange(len(sizes)), sizes), walk, own)
    return costs, draw(st.lists(st.integers(0, sum(sizes) - 1), min_size=1, max_size=12))


@given(videos())
def test_rounds_deliver_every_frame_once_in_feeding_order_for_little_more(
    video: tuple[DecodeCosts, list[int]],
) -> None:
    costs, fed = video
    rounds = plan_rounds(costs, np.array(fed))
    if not rounds:
        return
    delivered = [frame for legs in rounds for leg in legs for frame in leg.frames]
    assert sorted(delivered) == sorted(set(fed))
    needed = [next(i for i, legs in enumerate(rounds) if any(f in leg.frames for leg in legs)) for f in fed]
    newest = np.maximum.accumulate(needed)
    assert set(newest.tolist()) == set(range(len(rounds))), "each round brings the next frame that is fed"
    assert _walked(costs, rounds) <= (1 + TOLERANCE) * costs.of(np.array(fed))


def _walked(costs: DecodeCosts, rounds: list[Round]) -> int:
    total, standing, walked = 0, -1, 0
    for leg in (leg for legs in rounds for leg in legs):
        assert set(leg.frames) <= set(leg.coming)
        assert {int(group) for group in costs.group_N[list(leg.coming)]} == {leg.group}
        walked = walked if leg.group == standing else 0
        reach = max(walked, *costs.walk_N[list(leg.frames)].tolist())
        total += reach - walked + int(costs.own_N[list(leg.frames)].sum())
        standing, walked = leg.group, reach
    return total


def test_frames_far_apart_come_one_by_one_and_frames_of_one_group_at_once() -> None:
    apart = DecodeCosts(np.arange(8), np.full(8, 5), np.zeros(8, dtype=np.int64))
    assert [len(legs) for legs in plan_rounds(apart, coarse_to_fine_order(8))] == [1] * 8
    assert (
        plan_rounds(
            DecodeCosts(np.repeat([0, 1], 40), np.tile(np.arange(1, 41), 2), np.zeros(80, dtype=np.int64)),
            np.array([20, 60, 10, 50, 30, 70, 39, 79]),
        )
        == []
    ), "back and forth between two groups would decode each of them several times"


@pytest.mark.parametrize("sampling", ["centers", "cheapest", "affordable"])
@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx264", "mp4", {"g": "12"}),
        ("libx264", "mp4", {"g": "40", "bf": "3"}),
        ("libx264", "mp4", {"g": "250"}),
        ("libx264", "matroska", {"g": "20", "x264-params": "open-gop=1"}),
        ("libx264", "mpegts", {"g": "20"}),
        ("libx265", "mp4", {"g": "20", "x265-params": "log-level=none"}),
        ("libvpx-vp9", "webm", {"g": "25", "cpu-used": "8", "deadline": "realtime"}),
        ("mpeg4", "avi", {"g": "20"}),
    ],
)
def test_rounds_give_the_very_frames_of_decoding_all_at_once(
    tmp_path: Path, sampling: Sampling, codec: str, container: str, options: dict[str, str]
) -> None:
    path = tmp_path / "video"
    path.write_bytes(encode(codec, container, num_frames=200, options=options))
    with DecoderPool(ClipConfig(), num_workers=1, sampling=sampling) as pool:
        whole = pool.decode(path)
        with pool.decode_on_demand(path) as coming:
            frames = list(coming.frames(ORDER_T))
    np.testing.assert_array_equal(frames, whole.frames_THWC[ORDER_T])
    assert coming.clip.times_s == whole.times_s


def test_no_more_is_decoded_than_is_asked_for(pool: DecoderPool, many_keyframes: Path) -> None:
    with pool.decode_on_demand(many_keyframes) as coming:
        fed, counts = coming.frames(ORDER_T), []
        for _ in range(T):
            next(fed)
            counts.append(coming.num_ready)
    assert counts[0] < 4
    assert counts == sorted(counts)
    assert counts[-1] == T


def test_who_stops_half_way_leaves_the_worker_to_the_next_file(
    pool: DecoderPool, many_keyframes: Path
) -> None:
    whole = pool.decode(many_keyframes)
    for _ in range(3):
        with pool.decode_on_demand(many_keyframes) as coming:
            next(coming.frames(ORDER_T))
            (worker,) = pool._busy
        (idle,) = pool._idle
        assert idle is worker
        np.testing.assert_array_equal(pool.decode(many_keyframes).frames_THWC, whole.frames_THWC)


def test_damaged_files_end_as_they_do_at_once(
    pool: DecoderPool, many_keyframes: Path, tmp_path: Path
) -> None:
    data, path = many_keyframes.read_bytes(), tmp_path / "damaged"
    outcomes, restarts, num_frames, num_other = set[str](), list[str](), 0, 0
    with DecoderPool(ClipConfig(), num_workers=1, on_restart=restarts.append) as fresh:
        for _, mutant in mutants({"many": data}, 60):
            path.write_bytes(mutant)
            whole = _outcome(lambda: fresh.decode(path).frames_THWC[ORDER_T])
            in_rounds = _outcome(lambda: _in_rounds(fresh, path))
            if isinstance(whole, str) or isinstance(in_rounds, str):
                assert in_rounds == whole
            else:
                num_frames += T
                num_other += int((in_rounds != whole).any(axis=(1, 2, 3)).sum())
            outcomes.add(type(whole).__name__)
    assert outcomes == {"ndarray", "str"}, "some can be read and some cannot"
    # FFmpeg fills the holes of a damaged frame with whatever it decoded before, which the order decides.
    assert num_other <= 0.01 * num_frames, "frames that are not damaged are the same"
    assert restarts == []


def test_a_file_that_is_refused_in_a_later_round_leaves_the_worker_to_the_next(
    many_keyframes: Path, tmp_path: Path
) -> None:
    path, restarts = tmp_path / "late", list[str]()
    path.write_bytes(misdeed_file(b"LATE:REFUSE"))
    with DecoderPool(
        ClipConfig(), num_workers=1, on_restart=restarts.append, worker_command=ROGUE_COMMAND
    ) as rogues:
        for _ in range(3):
            with pytest.raises(UndecodableVideoError, match="late"), rogues.decode_on_demand(path) as coming:
                list(coming.frames(np.arange(T)))
            assert len(_in_rounds(rogues, many_keyframes)) == T
    assert restarts == []


def _in_rounds(pool: DecoderPool, path: Path) -> UInt8Array:
    with pool.decode_on_demand(path) as coming:
        return np.stack(list(coming.frames(ORDER_T)))


def _outcome(frames: Callable[[], UInt8Array]) -> UInt8Array | str:
    try:
        return frames()
    except VideoRejectedError as exc:
        return type(exc).__name__


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (b"LATE:SPIN", "cpu"),
        (b"LATE:SLEEP", "timeout"),
        (b"LATE:SEGFAULT", "crash"),
        (b"LATE:HANGUP", "crash"),
        (b"LIE ABOUT PLACES", "crash"),
        (b"REPEAT", "crash"),
    ],
)
def test_limits_hold_over_all_rounds(tmp_path: Path, word: bytes, reason: str) -> None:
    path, restarts = tmp_path / "rogue", list[str]()
    wall_clock_s = 2.0 if reason == "timeout" else 60.0  # a busy machine's second of processor time is long
    limits = DecodeLimits(wall_clock_s=wall_clock_s, cpu_s=1.0, memory_bytes=256 << 20)
    path.write_bytes(misdeed_file(word))
    with DecoderPool(
        ClipConfig(), limits, num_workers=1, on_restart=restarts.append, worker_command=ROGUE_COMMAND
    ) as pool:
        with pytest.raises(DecoderKilledError) as caught, pool.decode_on_demand(path) as coming:
            list(coming.frames(np.arange(T)))
        assert caught.value.reason == reason
        assert restarts == [reason]


def test_a_worker_gets_no_time_after_the_deadline_however_fast_it_answers(tmp_path: Path) -> None:
    path, restarts = tmp_path / "rogue", list[str]()
    path.write_bytes(misdeed_file(b"CREEP"))
    with DecoderPool(
        ClipConfig(), num_workers=1, on_restart=restarts.append, worker_command=ROGUE_COMMAND
    ) as rogues:
        deadline = time.monotonic() + 5
        with rogues.decode_on_demand(path, deadline=deadline) as coming:
            while time.monotonic() < deadline:
                time.sleep(0.05)
            with pytest.raises(DeadlineExceededError):
                next(coming.frames(np.arange(1, T)))
    assert restarts == ["deadline"]


def test_a_clip_that_cannot_be_made_costs_its_worker_and_nobody_the_next_file(
    many_keyframes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    restarts = list[str]()
    with DecoderPool(ClipConfig(), num_workers=1, on_restart=restarts.append) as pool:
        whole = pool.decode(many_keyframes)
        with monkeypatch.context() as patch:
            patch.setattr("sdcom.video.pool.ClipOnDemand", no_memory)
            with pytest.raises(MemoryError), pool.decode_on_demand(many_keyframes):
                pass
        assert restarts == ["abandoned"]
        np.testing.assert_array_equal(pool.decode(many_keyframes).frames_THWC, whole.frames_THWC)


def test_an_answer_nested_without_end_is_broken() -> None:
    with pytest.raises(BrokenAnswerError, match="RecursionError"):
        parse_answer(b"[" * 60_000, "rounds", T)


def test_closing_ends_a_clip_between_its_rounds(many_keyframes: Path) -> None:
    pool = DecoderPool(ClipConfig(), num_workers=1)
    with ThreadPoolExecutor(1) as threads:
        with pool.decode_on_demand(many_keyframes) as coming:
            fed = coming.frames(ORDER_T)
            next(fed)
            closing = threads.submit(pool.close)
            while not pool._closed:
                time.sleep(0.01)
            with pytest.raises(OverloadedError):
                list(fed)
        closing.result(20)


def test_a_caller_may_refuse_the_next_round(pool: DecoderPool, many_keyframes: Path) -> None:
    class GoneError(SdcomError):
        pass

    def gone() -> None:
        raise GoneError

    with pytest.raises(GoneError), pool.decode_on_demand(many_keyframes) as coming:
        list(coming.frames(ORDER_T, before_round=gone))
    assert len(pool._idle) == 1
