"""A small deterministic backend: real arithmetic, so that answers depend on every frame and width."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np

from sdcom.architecture import feature_channels
from sdcom.budget import choose_widths
from sdcom.config import ClipConfig, ModelConfig
from sdcom.cost import model_macs
from sdcom.engine.backend import Backend, Float32Array, Int64Array, Looked, Parts, UInt8Array
from sdcom.engine.composed import Planner
from sdcom.engine.costs import Stage
from sdcom.engine.metered import Metered
from sdcom.engine.on_host import OnHost

CONFIG = ModelConfig(
    clip=ClipConfig(num_frames=6, short_side=32, crop=32),
    labels=("clap", "jump", "wave"),
    static_resolution=32,
    dynamic="mobilenet_v2",
    gate_channels=8,
    gate_features=16,
    gate_hidden=16,
    fusion_features=24,
)
MACS = model_macs(CONFIG)
T = CONFIG.clip.num_frames

_NUM_PIXELS = 48


class NumpyBackend(OnHost):
    """Linear maps of coarse pixels, a causal mean for the gate, one classifier a frame."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)

        def matrix(*shape: int) -> Float32Array:
            return random.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(shape[-2]))

        num_static = feature_channels(CONFIG.static)
        self._num_dynamic = feature_channels(CONFIG.dynamic)
        self._static_PD = matrix(_NUM_PIXELS, num_static)
        self._embed_PE = matrix(_NUM_PIXELS, CONFIG.gate_features)
        self._gate_EK = 8 * matrix(CONFIG.gate_features, CONFIG.num_widths)
        self._dynamic_PD = matrix(_NUM_PIXELS, self._num_dynamic)
        self._fuse_DF = matrix(num_static + self._num_dynamic, CONFIG.fusion_features)
        self._classify_TFL = matrix(T, CONFIG.fusion_features, CONFIG.num_labels)

    def look(self, frames_NHWC: UInt8Array) -> Looked:
        pixels_NP = _pixels(frames_NHWC)
        return Looked(pixels_NP @ self._static_PD, np.tanh(pixels_NP @ self._embed_PE))

    def decide(
        self, embeddings_BTE: Float32Array, state_BH: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        assert state_BH is None
        steps_T1 = np.arange(1, embeddings_BTE.shape[1] + 1, dtype=np.float32)[:, None]
        means_BTH = embeddings_BTE.cumsum(axis=1) / steps_T1
        hidden_BTH = np.asarray(means_BTH + embeddings_BTE, dtype=np.float32)
        return hidden_BTH @ self._gate_EK, hidden_BTH[:, -1]

    def fill(self, frames_NHWC: UInt8Array, width: float) -> Float32Array:
        assert width > 0
        filled_ND = np.zeros((len(frames_NHWC), self._num_dynamic), dtype=np.float32)
        alive = int(width * self._num_dynamic)
        filled_ND[:, :alive] = np.tanh(_pixels(frames_NHWC) @ self._dynamic_PD[:, :alive])
        return filled_ND

    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        z_NF = np.concatenate((features_ND, supplements_ND), axis=1) @ self._fuse_DF
        return np.asarray(np.maximum(z_NF, 0), dtype=np.float32)

    def classify(self, maxima_BTF: Float32Array) -> Float32Array:
        weights_TFL = self._classify_TFL[: maxima_BTF.shape[1]]
        return np.asarray(np.einsum("btf,tfl->btl", maxima_BTF, weights_TFL))


def _pixels(frames_NHWC: UInt8Array) -> Float32Array:
    num_frames = len(frames_NHWC)
    coarse = frames_NHWC.reshape(num_frames, 4, 8, 4, 8, 3).mean(axis=(2, 4), dtype=np.float32)
    return np.asarray(coarse.reshape(num_frames, _NUM_PIXELS) / 64 - 2, dtype=np.float32)


class Watched(OnHost):
    """A backend that tells a function of every stage and its rows before it computes them.

    Args:
        backend: that computes.
        before: may raise, wait, or look on; for DECIDE and FUSE the rows are [B, T, ...].
    """

    def __init__(self, backend: Parts, before: Callable[[Stage, Float32Array | UInt8Array], None]) -> None:
        self._backend = backend
        self._before = before

    def look(self, frames_NHWC: UInt8Array) -> Looked:
        self._before(Stage.LOOK, frames_NHWC)
        return self._backend.look(frames_NHWC)

    def decide(
        self, embeddings_BTE: Float32Array, state_BH: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array]:
        self._before(Stage.DECIDE, embeddings_BTE)
        return self._backend.decide(embeddings_BTE, state_BH)

    def fill(self, frames_NHWC: UInt8Array, width: float) -> Float32Array:
        self._before(Stage.FILL, frames_NHWC)
        return self._backend.fill(frames_NHWC, width)

    def fuse(self, features_ND: Float32Array, supplements_ND: Float32Array) -> Float32Array:
        return self._backend.fuse(features_ND, supplements_ND)

    def classify(self, maxima_BTF: Float32Array) -> Float32Array:
        return self._backend.classify(maxima_BTF)

    def conclude(self, features_BTD: Float32Array, supplements_BTD: Float32Array) -> Float32Array:
        self._before(Stage.FUSE, features_BTD)
        return self._backend.conclude(features_BTD, supplements_BTD)


class Whole(Watched):
    """With what counting wants to know of a model."""

    info = SimpleNamespace(macs=MACS)
    provider = None
    buckets = ()

    def fill(
        self, frames_NHWC: UInt8Array, width: float, _before_N: Int64Array | None = None
    ) -> Float32Array:
        return super().fill(frames_NHWC, width)


def metered(before: Callable[[Stage, Float32Array | UInt8Array], None] = lambda *_: None) -> Metered:
    """Return a backend that counts what it executes, a `Watched` one."""
    return Metered(cast(Backend, Whole(NumpyBackend(), before)))


class Turnstile:
    """Stops the thread that passes it for the n-th time, until it is let go."""

    def __init__(self, stop_at: int) -> None:
        self._left = stop_at
        self._stopped = threading.Event()
        self._go = threading.Event()

    def __call__(self, *_: object) -> None:
        if self._left == 0:
            self._stopped.set()
            assert self._go.wait(60)
        self._left -= 1

    def wait_until_stopped(self) -> None:
        assert self._stopped.wait(60)

    def let_go(self) -> None:
        self._go.set()


def frames(seed: int, num_frames: int = T) -> UInt8Array:
    """Return frames of coarse random colours."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (num_frames, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def at_price(lam: float) -> Planner:
    """Return the planner of the gate's choice at a price."""
    return lambda logits_TK: choose_widths(logits_TK, MACS.dynamic_by_choice, lam)
