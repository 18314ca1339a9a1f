"""Live frames of any size, fed to the composition one by one."""

import numpy as np
import numpy.typing as npt

from sdcom.checkpoint import ModelInfo
from sdcom.engine.stream import CausalStream
from sdcom.engine.turns import Turns
from sdcom.recognition import Prediction, StreamPrediction, softmax
from sdcom.video import DecoderPool, resize_and_crop


class FrameStream:
    """A stream of frames of any size; each is resized and cropped as a video's frames are.

    A frame that is the last one again, to the last bit, as when a camera stands still or its source has fewer
    frames, shows the same picture.

    Args:
        info: the model.
        lam: the price at which the gate chooses.
        decoders: for frames that come as JPEG.
        turns: gives the networks to one frame at a time.
    """

    def __init__(self, info: ModelInfo, lam: float, decoders: DecoderPool, turns: Turns) -> None:
        self._config = info.config
        self._decoders = decoders
        self._turns = turns
        self._stream = CausalStream(turns.backend, lam)
        self._last_HWC: npt.NDArray[np.uint8] | None = None
        self._num_pictures = 0

    def push(self, frame_HWC: npt.NDArray[np.uint8]) -> StreamPrediction:
        """Feed one RGB frame.

        Raises:
            InvalidParameterError: it is not uint8 [H, W, 3], or its sides are out of the accepted range.
        """
        return self._step(resize_and_crop(frame_HWC, self._config.clip))

    def push_jpeg(self, data: bytes, *, deadline: float | None = None) -> StreamPrediction:
        """Feed one JPEG image, decoded in a jailed worker.

        Args:
            data: the file.
            deadline: `time.monotonic()` value by which it must be decoded.

        Raises:
            UndecodableVideoError: it is not a JPEG image that can be read.
            DeadlineExceededError: the deadline passed first; the stream is as it was.
        """
        return self._step(self._decoders.decode_image(data, deadline=deadline))

    def _step(self, cropped_HWC: npt.NDArray[np.uint8]) -> StreamPrediction:
        """Feed one cropped frame, taking turns with other work on the networks."""
        if self._last_HWC is None or not np.array_equal(cropped_HWC, self._last_HWC):
            self._last_HWC, self._num_pictures = cropped_HWC, self._num_pictures + 1
        step = self._turns.call(lambda: self._stream.push(cropped_HWC, picture=self._num_pictures))
        index = int(step.logits_L.argmax())
        prediction = Prediction(self._config.labels[index], index, float(softmax(step.logits_L)[index]))
        return StreamPrediction(prediction, step.width, step.ledger)
