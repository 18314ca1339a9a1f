"""What users of general servers decode with: decord at a target size, the exact centre of each segment."""

from io import BytesIO

import av
import numpy as np

from sdcom.config import ClipConfig
from sdcom.engine.backend import UInt8Array
from sdcom.errors import UndecodableVideoError
from sdcom.sampling import segment_centers
from sdcom.video.geometry import center_crop, scaled_size


def decode_with_decord(video: bytes, clip: ClipConfig, *, num_threads: int = 1) -> UInt8Array:
    """Return the RGB crops [T, H, W, 3] at the centres of a video's T segments, in their order of time.

    Args:
        video: the file's bytes; decoded in this process, without limits.
        clip: how many frames, of which size.
        num_threads: of the decoder.

    Raises:
        UndecodableVideoError: decord cannot read it.
    """
    import decord  # noqa: PLC0415 - not on every platform, and only this asks for it

    with av.open(BytesIO(video)) as opened:  # decord tells the size only after it has begun to decode
        stream = opened.streams.video[0]
        width, height = scaled_size(stream.width, stream.height, clip.short_side)
    try:
        reader = decord.VideoReader(BytesIO(video), width=width, height=height, num_threads=num_threads)
        frames_THWC = reader.get_batch(segment_centers(len(reader), clip.num_frames)).asnumpy()
    except (decord.DECORDError, IndexError, RuntimeError) as exc:
        reason = str(exc).rpartition(": ")[2].strip()
        raise UndecodableVideoError(f"decord cannot read it: {reason}") from exc
    return np.stack([center_crop(frame_HWC, clip.crop) for frame_HWC in frames_THWC])
