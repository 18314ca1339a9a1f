"""Test videos whose every frame carries its own number, painted so large that it survives compression.

The number is 12 black or white cells of a 4x4 grid in the middle square; of the grid's corners only the first
is white, which tells how the picture is turned.
"""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

UInt8Array = npt.NDArray[np.uint8]

_SHARE = 0.8  # of the short side that the grid takes
_CORNERS = {(0, 0): 1, (0, 3): 0, (3, 0): 0, (3, 3): 0}
_CELLS = [(row, column) for row in range(4) for column in range(4) if (row, column) not in _CORNERS]

# Degrees clockwise that a player turns what is stored: the display matrix's a, b, c, d.
TURNS = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def paint(number: int, width: int, height: int) -> UInt8Array:
    """Return a picture of shape (height, width, 3) that shows a number below 4096 over a soft gradient."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(40, 200, width, dtype=np.uint8)[None, :]
    picture[..., 1] = np.linspace(40, 200, height, dtype=np.uint8)[:, None]
    picture[..., 2] = 90
    bits = {cell: number >> place & 1 for place, cell in enumerate(_CELLS)} | _CORNERS
    side = _SHARE * min(width, height)
    for (row, column), bit in bits.items():
        top, left = (height - side) / 2 + row * side / 4, (width - side) / 2 + column * side / 4
        picture[round(top) : round(top + side / 4), round(left) : round(left + side / 4)] = 235 * bit + 10
    return picture


def read_number(crop_HWC: UInt8Array, short_side: int = 256) -> int:
    """Return the number that an upright, scaled and cropped frame shows.

    Raises:
        ValueError: a cell is neither black nor white, or the picture is not upright.
    """
    (height, width), side = crop_HWC.shape[:2], _SHARE * short_side
    number = 0
    for row in range(4):
        for column in range(4):
            y = (height - side) / 2 + (row + 0.5) * side / 4
            x = (width - side) / 2 + (column + 0.5) * side / 4
            reach = max(int(side / 16), 1)
            level = float(crop_HWC[int(y) - reach : int(y) + reach, int(x) - reach : int(x) + reach].mean())
            if 90 < level < 165:
                raise ValueError(f"cell {row},{column} is grey: {level:.0f}")
            bit = int(level > 128)
            if (row, column) not in _CORNERS:
                number |= bit << _CELLS.index((row, column))
            elif bit != _CORNERS[row, column]:
                raise ValueError("the picture is not upright")
    return number


def encode(
    codec: str = "libx264",
    container: str = "mp4",
    *,
    num_frames: int = 50,
    size: tuple[int, int] = (320, 240),
    pixel_format: str = "yuv420p",
    turn: int = 0,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
) -> bytes:
    """Return a video file whose frame k shows the number k.

    Args:
        codec: FFmpeg's encoder.
        container: FFmpeg's muxer.
        num_frames: how many.
        size: width and height as shown.
        pixel_format: as stored.
        turn: degrees clockwise by which a player turns what is stored.
        pts: a presentation time for each frame in ticks of `time_base`; by default one tick apart.
        time_base: seconds of a tick.
        options: the encoder's.
        muxing: the muxer's.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=muxing or {}) as output:
        width, height = size if turn % 180 == 0 else size[::-1]
        stream = output.add_stream(
            codec, rate=25, width=width, height=height, pix_fmt=pixel_format, options=options or {}
        )
        assert isinstance(stream, VideoStream)
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        if turn:
            a, b, c, d = (value << 16 for value in TURNS[turn])
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for number, when in zip(range(num_frames), pts or range(num_frames), strict=True):
            stored = np.rot90(paint(number, *size), turn // 90)  # a player turns it back, clockwise
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
            frame.pts, frame.time_base = when, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def without_vui(data: bytes) -> bytes:
    """Return an H.264 file of x264's, without what its parameter set says of use (ITU-T H.264, 7.3.2.1.1).

    So it does not say how far frames are reordered. Its length stays: zeros may follow a parameter set.
    """
    start = data.index(b"\xff\xe1") + 4  # of an AVCDecoderConfigurationRecord
    parameters = data[start : start + int.from_bytes(data[start - 2 : start])]
    bits = "".join(f"{byte:08b}" for byte in parameters.replace(b"\0\0\3", b"\0\0"))
    at = 32

    def skip(*fields: str) -> int:
        nonlocal at
        value = 0
        for field in fields:
            zeros = bits.index("1", at) - at if field == "ue" else 0
            value = int(bits[at + zeros : at + 2 * zeros + 1], 2) - (field == "ue")
            at += 2 * zeros + 1
        return value

    skip("ue")
    if parameters[1] == 100:  # High
        skip("ue", "ue", "ue", "flag", "flag")
    skip("ue")
    if skip("ue") == 0:
        skip("ue")
    skip("ue", "flag", "ue", "ue", "flag", "flag")  # progressive, or there is one flag more
    if skip("flag"):  # the picture is cropped
        skip("ue", "ue", "ue", "ue")
    kept = bits[:at] + "01"
    kept = kept.ljust(-(-len(kept) // 8) * 8, "0")
    short = int(kept, 2).to_bytes(len(kept) // 8)
    return data.replace(parameters, short.ljust(len(parameters), b"\0"))
