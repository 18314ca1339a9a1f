"""Videos in a GPU's memory: batches are gathered there, computed, and what comes of them is stored there.

Each video has a row of T places; a place is a row number times T and the frame's position. Row 0 is nobody's:
padding reads it and is stored in it. One call is the numbers of places on their way in, one CUDA graph, and
decisions or answers on their way out.

Shapes: N places, R places in all, B videos, T frames of each, H W pixels, C channels, D features, E
embedding, K widths, L labels.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from queue import Empty, SimpleQueue

import torch
from torch import Tensor, nn

from sdcom.architecture import feature_channels
from sdcom.config import ModelConfig
from sdcom.engine.backend import PATIENCE_S, Begun, Float32Array, Gathered, Held, Picked, UInt8Array
from sdcom.engine.dense import Backboned, Conclude, Decide, Fill, Look
from sdcom.errors import OverloadedError


class Store(nn.Module):
    """The memory of all rows.

    Args:
        config: of the model.
        num_rows: of T places each.
    """

    frames_RHWC: Tensor
    features_RD: Tensor
    embeddings_RE: Tensor
    supplements_RD: Tensor

    def __init__(self, config: ModelConfig, num_rows: int) -> None:
        super().__init__()
        clip, self.num_frames = config.clip, config.clip.num_frames
        num_places = num_rows * clip.num_frames
        frames_RHWC = torch.zeros((num_places, clip.crop, clip.crop, 3), dtype=torch.uint8)
        self.register_buffer("frames_RHWC", frames_RHWC)
        self.register_buffer("features_RD", torch.zeros(num_places, feature_channels(config.static)))
        self.register_buffer("embeddings_RE", torch.zeros(num_places, config.gate_features))
        self.register_buffer("supplements_RD", torch.zeros(num_places, feature_channels(config.dynamic)))

    def whole(self, rows_RD: Tensor, videos_B: Tensor, num_frames: int) -> Tensor:
        """Return the first frames' rows of whole videos [B, T, D]."""
        rows_BTD: Tensor = rows_RD.unflatten(0, (-1, self.num_frames)).index_select(0, videos_B)
        return rows_BTD[:, :num_frames]


class _LookAt(Backboned):
    def __init__(self, store: Store, look: Look) -> None:
        super().__init__()
        self._store, self._look = store, look

    def forward(self, places_N: Tensor) -> tuple[()]:
        store = self._store
        features_ND, embeddings_NE = self._look(store.frames_RHWC.index_select(0, places_N))
        store.features_RD.index_copy_(0, places_N, features_ND)
        store.embeddings_RE.index_copy_(0, places_N, embeddings_NE)
        return ()


class _FillIn(Backboned):
    def __init__(self, store: Store, fill: Fill) -> None:
        super().__init__()
        self._store, self._fill = store, fill

    def forward(self, places_N: Tensor) -> tuple[()]:
        (filled_ND,) = self._fill(self._store.frames_RHWC.index_select(0, places_N))
        self._store.supplements_RD.index_copy_(0, places_N, filled_ND)
        return ()


class _Repeat(nn.Module):
    """Copies rows from the first of each pair of places to the second."""

    def __init__(self, *rows_RD: Tensor) -> None:
        super().__init__()
        self._rows_RD = rows_RD

    def forward(self, pairs_N2: Tensor) -> tuple[()]:
        firsts_N, again_N = pairs_N2.unbind(1)
        for rows_RD in self._rows_RD:
            rows_RD.index_copy_(0, again_N, rows_RD.index_select(0, firsts_N))
        return ()


class _DecideOn(nn.Module):
    def __init__(self, store: Store, decide: Decide, num_frames: int, hidden: int) -> None:
        super().__init__()
        self._store, self._decide, self._num_frames, self._hidden = store, decide, num_frames, hidden

    def forward(self, videos_B: Tensor) -> tuple[Tensor]:
        embeddings_BTE = self._store.whole(self._store.embeddings_RE, videos_B, self._num_frames)
        state_BH = embeddings_BTE.new_zeros(len(videos_B), self._hidden)
        return (self._decide(embeddings_BTE, state_BH)[0],)


class _ConcludeOn(nn.Module):
    def __init__(self, store: Store, conclude: Conclude, num_frames: int) -> None:
        super().__init__()
        self._store, self._conclude, self._num_frames = store, conclude, num_frames

    def forward(self, videos_B: Tensor) -> tuple[Tensor]:
        features_BTD, supplements_BTD = (
            self._store.whole(rows_RD, videos_B, self._num_frames)
            for rows_RD in (self._store.features_RD, self._store.supplements_RD)
        )
        (logits_BTL,) = self._conclude(features_BTD, supplements_BTD)
        return (logits_BTL,)


class DenseRoom:
    """Room for videos on the device of a model's dense parts.

    Args:
        config: of the model.
        num_videos: that there is room for.
        look: the static network and the gate's embedding.
        fill: the dynamic network at each width.
        decide: the gate.
        conclude: the fusion head on videos of so many frames.
        device: of all of them.
        begin: begins a module on the numbers of places, or of rows; adds zeros to fill a batch.
        upload: copies frames to the device, from any thread; returns when they are there.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_videos: int,
        *,
        look: Look,
        fill: Mapping[float, Fill],
        decide: Decide,
        conclude: Callable[[int], Conclude],
        device: str,
        begin: Callable[[nn.Module, Tensor], Begun[tuple[Float32Array, ...]]],
        upload: Callable[[UInt8Array, Tensor], object],
    ) -> None:
        self._store = store = Store(config, 1 + num_videos).to(device)
        self._look_at = _LookAt(store, look)
        self._fill_in = {width: _FillIn(store, part) for width, part in fill.items()}
        self._repeat_look = _Repeat(store.features_RD, store.embeddings_RE)
        self._repeat_fill = _Repeat(store.supplements_RD)
        self._decide_on = cache(lambda count: _DecideOn(store, decide, count, config.gate_hidden))
        self._conclude_on = cache(lambda count: _ConcludeOn(store, conclude(count), count))
        self._begin, self._upload = begin, upload
        self.runs_ahead = device == "cuda"
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(1, 1 + num_videos):
            self._free.put(number)

    @torch.inference_mode()
    def hold(self, frames_THWC: UInt8Array, patience_s: float = PATIENCE_S) -> Held:
        """Take a video in: its frames to the device, from the calling thread."""
        try:
            row = self._free.get(timeout=max(patience_s, 0.0))
        except Empty:
            raise OverloadedError("the device has no room for another video", retry_after_s=1.0) from None
        try:
            store, first = self._store, row * self._store.num_frames
            places = slice(first, first + len(frames_THWC))
            store.supplements_RD[places].zero_()
            self._upload(frames_THWC, store.frames_RHWC[places])
        except BaseException:
            self._free.put(row)
            raise
        return row

    def release(self, held: Held) -> None:
        """Let a video leave; its row is the next one's."""
        self._free.put(_row(held))

    def look(self, picked: Picked) -> Begun[None]:
        """Look at frames of several videos."""
        return self._store_by(self._look_at, self._repeat_look, picked)

    def decide(self, gathered: Gathered) -> Begun[Float32Array]:
        """Run the gate over videos."""
        return self._answer_by(self._decide_on(gathered.num_frames), gathered)

    def fill(self, picked: Picked, width: float) -> Begun[None]:
        """Fill frames of several videos at one width."""
        return self._store_by(self._fill_in[width], self._repeat_fill, picked)

    def conclude(self, gathered: Gathered) -> Begun[Float32Array]:
        """Fuse and classify videos."""
        return self._answer_by(self._conclude_on(gathered.num_frames), gathered)

    def _store_by(self, part: nn.Module, repeat: nn.Module, picked: Picked) -> Begun[None]:
        length, places = self._store.num_frames, list[int]()
        for held, positions in picked.shares:
            first = _row(held) * length
            places += [first + position for position in positions]
        ends = [self._begin(part, self._padded(places, picked.size))]
        if picked.repeats:
            pairs = [
                [_row(held) * length + first, _row(held) * length + again]
                for held, positions in picked.repeats
                for first, again in positions
            ]
            ends.append(self._begin(repeat, torch.tensor(pairs, pin_memory=self.runs_ahead)))

        def ended() -> None:
            for end in ends:
                end()

        return ended

    def _answer_by(self, part: nn.Module, gathered: Gathered) -> Begun[Float32Array]:
        videos = [_row(held) for held in gathered.videos]
        end = self._begin(part, self._padded(videos, gathered.size))
        return lambda: end()[0]

    def _padded(self, numbers: Sequence[int], size: int) -> Tensor:
        """Return the numbers, and nobody's for the rest, where a batch may read them when its turn comes."""
        padded_N = torch.zeros(size, dtype=torch.int64, pin_memory=self.runs_ahead)
        padded_N.numpy()[: len(numbers)] = numbers
        return padded_N


def _row(held: Held) -> int:
    assert isinstance(held, int), "held in another room"
    return held
