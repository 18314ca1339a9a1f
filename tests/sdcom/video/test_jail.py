"""Inside a worker nothing can be opened, reached or started; and no playlist reaches anything either."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sdcom.config import ClipConfig
from sdcom.errors import DecoderKilledError, UndecodableVideoError, VideoRejectedError
from sdcom.video import DecodedClip, DecodeLimits, DecoderPool
from sdcom.video.jail import JailUnavailableError, seccomp_program
from tests.sdcom.video.rogue_worker import ROGUE_COMMAND, misdeed_file
from tests.sdcom.video.test_sniff import PLAYLISTS
from tests.sdcom.video.videos import encode

Decode = Callable[[bytes], DecodedClip]


def test_a_worker_cannot_reach_out(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(misdeed_file(b"ESCAPE"))
    with (
        DecoderPool(ClipConfig(), num_workers=1, worker_command=ROGUE_COMMAND) as pool,
        pytest.raises(UndecodableVideoError) as caught,
    ):
        pool.decode(path)
    outcomes = dict(
        outcome.split("=") for outcome in str(caught.value).replace("writable code", "code").split()
    )
    assert outcomes == dict.fromkeys(outcomes, "EPERM")
    assert {"socket", "open", "exec", "fork", "kill"} <= set(outcomes)


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A local server's port and the connections that it saw."""
    seen: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def accept() -> None:
            while not done.is_set():
                try:
                    connection, peer = server.accept()
                except TimeoutError:
                    continue
                connection.close()
                seen.append(peer)

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], seen
        done.set()
        thread.join()


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_named_as_a_video_connects_nowhere(
    decode: Decode, listener: tuple[int, list[object]], name: str, tmp_path: Path
) -> None:
    port, seen = listener
    other = tmp_path / "other.mp4"
    other.write_bytes(encode(num_frames=4))
    playlist = PLAYLISTS[name].replace(b"127.0.0.1", b"127.0.0.1:%d" % port)
    playlist = playlist.replace(b"/etc/passwd", bytes(other))
    with pytest.raises(VideoRejectedError):
        decode(playlist)
    assert seen == []


def with_external_media(video: bytes, url: bytes) -> bytes:
    """Return an MP4 whose media is said to lie elsewhere (a data reference, ISO/IEC 14496-12, 8.7.2)."""
    entry = struct.pack(">I4sI", 12 + len(url) + 1, b"url ", 0) + url + b"\0"
    reference = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    at = video.index(b"dref") - 4
    plain_bytes = int.from_bytes(video[at : at + 4])
    moved = bytearray(video[:at] + reference + video[at + plain_bytes :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        size_at = moved.index(parent) - 4
        grown = int.from_bytes(moved[size_at : size_at + 4]) + len(reference) - plain_bytes
        moved[size_at : size_at + 4] = grown.to_bytes(4)
    return bytes(moved)


def polyglots(port: int, other: Path) -> dict[str, bytes]:
    """Files whose first bytes are accepted and whose rest is, or names, something else."""
    url = b"http://127.0.0.1:%d/a.ts" % port
    hls = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n%b\n%b\n" % (url, bytes(other))
    video = encode(num_frames=4)
    return {
        "free box then playlist": struct.pack(">I4s", 8, b"free") + hls,
        "ftyp then playlist": video[:32] + hls,
        "video then playlist": video + hls,
        "RIFF then playlist": b"RIFF" + struct.pack("<I", 4) + b"AVI " + hls,
        "EBML then playlist": b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska" + hls,
        "media at a URL": with_external_media(video, url),
        "media in another file": with_external_media(video, b"file://" + bytes(other)),
    }


@pytest.mark.parametrize("name", polyglots(0, Path("x")))
def test_a_file_of_two_kinds_connects_nowhere(
    decode: Decode, listener: tuple[int, list[object]], name: str, tmp_path: Path
) -> None:
    port, seen = listener
    other = tmp_path / "other.mp4"
    other.write_bytes(encode(num_frames=30))
    with suppress(VideoRejectedError):
        assert decode(polyglots(port, other)[name]).num_frames == 4
    assert seen == []


def test_a_machine_whose_system_calls_are_unknown_is_refused() -> None:
    with pytest.raises(JailUnavailableError, match="riscv64"):
        seccomp_program("riscv64", 1)


def test_both_known_machines_have_a_program() -> None:
    for machine in ("x86_64", "aarch64"):
        assert all(len(instruction) == 8 for instruction in seccomp_program(machine, 1))


def test_a_decoder_that_wants_too_much_memory_costs_only_its_own_request(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(encode("mpeg4", "avi", num_frames=4, size=(4096, 2304)))
    small.write_bytes(encode(num_frames=4))
    with DecoderPool(ClipConfig(), DecodeLimits(memory_bytes=8 << 20), num_workers=1) as pool:
        with pytest.raises(DecoderKilledError, match="more memory") as caught:
            pool.decode(large)
        assert caught.value.reason == "memory"
        assert pool.decode(small).num_frames == 4
