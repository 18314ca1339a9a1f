"""Generated videos to time decoders on: one shot of a detailed place, a moving camera, moving things, grain.

Legend of shape suffixes: H height, W width, of the luma plane; chroma planes have half of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

from sdcom.video.geometry import UInt8Array

_FRAMES_PER_SECOND = 30
_GRAIN = 1.0  # standard deviation in levels: a phone's camera by daylight
_NUM_THINGS = 10
_ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    # codec: FFmpeg's encoder, container, options. Presets other than H.264's are quick ones: they encode
    # sixty seconds within minutes, and what is decoded costs much the same.
    "h264": ("libx264", "mp4", {"preset": "medium", "crf": "23"}),
    "hevc": ("libx265", "mp4", {"preset": "veryfast", "crf": "26"}),
    "vp9": ("libvpx-vp9", "webm", {"cpu-used": "8", "deadline": "realtime", "crf": "34", "b": "0"}),
    "av1": ("libsvtav1", "mp4", {"preset": "11", "crf": "38"}),
}


@dataclass(frozen=True, slots=True)
class BenchClip:
    """A video to be generated.

    Attributes:
        codec: "h264", "hevc", "vp9" or "av1".
        width: pixels, even.
        height: pixels, even.
        seconds: how long.
        gop: most frames from one keyframe to the next.
    """

    codec: str
    width: int
    height: int
    seconds: int
    gop: int

    @property
    def name(self) -> str:
        """What tables and files call it."""
        return f"{self.height}p-{self.seconds}s-{self.codec}-gop{self.gop}"

    @property
    def container(self) -> str:
        """FFmpeg's name of the container."""
        return _ENCODERS[self.codec][1]


def write_clip(clip: BenchClip, folder: Path) -> Path:
    """Encode the clip into the folder, unless it is there, and return the file."""
    path = folder / f"{clip.name}.{clip.container}"
    if path.exists():
        return path
    encoder, container, options = _ENCODERS[clip.codec]
    partial = path.with_suffix(".partial")
    with av.open(str(partial), "w", format=container) as output:
        stream = output.add_stream(
            encoder, rate=_FRAMES_PER_SECOND, options=options | _quiet(encoder, clip.gop)
        )
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        stream.codec_context.gop_size = clip.gop
        for planes in film(clip.width, clip.height, clip.seconds * _FRAMES_PER_SECOND):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        output.mux(stream.encode(None))
    partial.rename(path)
    return path


def _quiet(encoder: str, gop: int) -> dict[str, str]:
    if encoder == "libx265":
        return {"x265-params": f"log-level=none:keyint={gop}"}
    return {}


def film(width: int, height: int, num_frames: int, seed: int = 0) -> Iterator[UInt8Array]:
    """Yield the frames of one shot.

    The camera swings by fractions of a pixel, as a held one does; textured things cross the picture at
    speeds of their own; the grain is new in every frame. So no block can be had for nothing.

    Yields:
        Planes Y, U, V in one array, uint8, shape (1.5 H, W).
    """
    rng = np.random.default_rng(seed)
    margin = height // 4 & ~1
    place = [_texture(rng, (height + 2 * margin) // s, (width + 2 * margin) // s, 70 // s) for s in (1, 2, 2)]
    things = [_Thing.draw(rng, width, height) for _ in range(_NUM_THINGS)]
    grain = np.round(rng.normal(0, _GRAIN, (height + 64, width + 64))).astype(np.int8)
    for frame in range(num_frames):
        time_s = frame / _FRAMES_PER_SECOND
        top = margin * (1 + 0.8 * np.sin(0.41 * time_s) + 0.02 * np.sin(7.0 * time_s))
        left = margin * (1 + 0.8 * np.sin(0.29 * time_s) + 0.02 * np.sin(5.3 * time_s))
        planes = [
            _window(plane, top / s, left / s, height // s, width // s)
            for plane, s in zip(place, (1, 2, 2), strict=True)
        ]
        for thing in things:
            thing.paint(planes, time_s)
        row, column = rng.integers(0, 64, 2)
        noisy = planes[0] + grain[row : row + height, column : column + width].astype(np.int16)
        planes[0] = np.clip(noisy, 16, 235).astype(np.uint8)
        yield np.concatenate([plane.reshape(-1, width) for plane in planes])


@dataclass(frozen=True, slots=True)
class _Thing:
    """A textured rectangle that swings across the picture."""

    planes: tuple[UInt8Array, UInt8Array, UInt8Array]
    centre: npt.NDArray[np.float64]
    reach: npt.NDArray[np.float64]
    pace: npt.NDArray[np.float64]  # radians a second

    @classmethod
    def draw(cls, rng: np.random.Generator, width: int, height: int) -> _Thing:
        tall, wide = (int(side) & ~1 for side in rng.uniform(0.08, 0.3, 2) * height)
        first, second, third = (_texture(rng, tall // s, wide // s, 90 // s) for s in (1, 2, 2))
        room = np.array([height - tall, width - wide]) / 2
        return cls((first, second, third), room, rng.uniform(0.3, 1, 2) * room, rng.uniform(0.3, 1.5, 2))

    def paint(self, planes: list[UInt8Array], time_s: float) -> None:
        top, left = (int(at) & ~1 for at in self.centre + self.reach * np.sin(self.pace * time_s))
        for plane, mine, s in zip(planes, self.planes, (1, 2, 2), strict=True):
            height, width = mine.shape
            plane[top // s : top // s + height, left // s : left // s + width] = mine


def _texture(rng: np.random.Generator, height: int, width: int, contrast: float) -> UInt8Array:
    """Return noise with a photograph's spectrum and hard edges, around mid-grey.

    A scene's amplitudes fall with the frequency; a lens takes some more of the high ones.
    """
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    amplitude = 1 / np.maximum(frequencies, 1 / max(height, width)) ** 1.45
    phases = np.exp(2j * np.pi * rng.random(amplitude.shape))
    field = np.fft.irfft2(amplitude * phases, s=(height, width))
    field /= field.std()
    field += 0.7 * (field > 0.8) - 0.7 * (field < -0.8)  # outlines
    return np.clip(128 + contrast / 2 * field, 16, 235).astype(np.uint8)


def _window(plane: UInt8Array, top: float, left: float, height: int, width: int) -> UInt8Array:
    """Return a part of the plane at a fractional place, bilinearly, in sixteenths of a pixel."""
    row, column = int(top), int(left)
    down, right = round(16 * (top - row)), round(16 * (left - column))
    wide = plane[row : row + height + 1, column : column + width + 1].astype(np.uint16)
    lines = wide[:, :-1] * (16 - right) + wide[:, 1:] * right
    return ((lines[:-1] * (16 - down) + lines[1:] * down + 128) >> 8).astype(np.uint8)
