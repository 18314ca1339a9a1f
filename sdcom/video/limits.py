"""What one upload may cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """The most that one video may ask for; whatever asks for more is refused or killed.

    Attributes:
        min_dimension: pixels; a smaller side carries nothing to recognise (1x1 files are refused).
        max_dimension: pixels of either side.
        max_pixels: pixels of one frame; 8K UHD (7680x4320) and DCI 8K (8192x4320) fit.
        max_duration_s: seconds, as the header claims and as the frames show.
        max_frames: frames in the video.
        wall_clock_s: seconds after which the worker is killed.
        cpu_s: seconds of CPU after which the worker is killed; below `wall_clock_s`, so that a spinning
            decoder is told from one that waits for a loaded machine.
        memory_bytes: address space that a video may take on top of the idle worker's.
        videos_per_worker: a worker is replaced after so many, leaks and all.
        growth_bytes: a worker is replaced once its resident memory grew by so much since its start.
    """

    min_dimension: int = 16
    max_dimension: int = 8192
    max_pixels: int = 8192 * 4320
    max_duration_s: float = 4 * 3600.0
    max_frames: int = 1_000_000
    wall_clock_s: float = 20.0
    cpu_s: float = 15.0
    memory_bytes: int = 2 << 30
    videos_per_worker: int = 200
    growth_bytes: int = 256 << 20
