"""The ranges for int8: measured on clips, kept beside the weights in `int8.safetensors`.

As `hardware.json`, the file is no part of what a model is and may be deleted; it names the networks that it
was measured of, and is refused beside others.
"""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sdcom.checkpoint import WEIGHTS_FILE, ModelInfo, Weights
from sdcom.engine.backend import Float32Array, UInt8Array
from sdcom.engine.onnx_backend import check_supported, open_on_processor
from sdcom.engine.onnx_graphs.int8 import Int8Ranges, LayerRange, LayerRanges
from sdcom.engine.onnx_graphs.parts import Observer, observer_part
from sdcom.errors import ModelDirectoryError

INT8_FILE: Final = "int8.safetensors"
FRAMES_WITHIN: Final = 95.0
"""Percent of the frames whose values a layer's range holds; those of the others are cut off at it.

A few frames' extremes would make the steps of all others coarser.
"""

_STATIC = "static"
_NETWORKS, _CONTENT = "networks", "content"  # the file's metadata: digests of both


def measure_int8(
    info: ModelInfo, weights: Weights, clips: Iterable[UInt8Array], *, static: bool
) -> Int8Ranges:
    """Measure the ranges of every backbone and width on clips.

    Args:
        info: the model.
        weights: its weights.
        clips: frames [T, H, W, 3], cropped as the networks see them; at least one.
        static: for the static network too; else it stays in float32.

    Raises:
        SettingsError: the onnx engine cannot run the model.
    """
    check_supported(info)
    widths = ([None] if static else []) + [width for width in info.config.widths if width > 0]
    observed = {width: _Observed(observer_part(info, weights, width)) for width in widths}
    for frames_THWC in clips:
        for each in observed.values():
            each.add(frames_THWC)
    found = {width: each.ranges() for width, each in observed.items()}
    return Int8Ranges(
        found.get(None), {width: layers for width, layers in found.items() if width is not None}
    )


class _Observed:
    """What was seen of one backbone's layers so far."""

    def __init__(self, observer: Observer) -> None:
        self._session = open_on_processor(observer.graph)
        self._observer = observer
        self._lowest: list[Float32Array] = []
        self._highest: list[Float32Array] = []
        self._errors: list[Float32Array] = []

    def add(self, frames_THWC: UInt8Array) -> None:
        names = ["lowest", "highest", "errors"]
        for frame_HWC in frames_THWC:  # one by one: every layer's values are in memory at once
            outputs = self._session.run(names, {"frames": frame_HWC[None]})
            for seen, each in zip((self._lowest, self._highest, self._errors), outputs, strict=True):
                seen.append(each)

    def ranges(self) -> dict[str, LayerRange]:
        lowest = np.percentile(np.concatenate(self._lowest), 100 - FRAMES_WITHIN, axis=0)
        highest = np.percentile(np.concatenate(self._highest), FRAMES_WITHIN, axis=0)
        errors, num_outputs = np.mean(self._errors, axis=0), self._observer.num_outputs
        bounds = np.cumsum([0, *num_outputs.values()])
        error_of = {name: errors[a:b] for name, (a, b) in zip(num_outputs, pairwise(bounds), strict=True)}
        nothing = np.zeros(0, np.float32)
        return {
            name: LayerRange(float(low), float(high), error_of.get(name, nothing))
            for name, low, high in zip(self._observer.layers, lowest, highest, strict=True)
        }


def save_int8(directory: Path, info: ModelInfo, ranges: Int8Ranges) -> None:
    """Write the ranges into a model directory at once, in place of those that are there.

    Raises:
        ModelDirectoryError: they cannot be written there.
    """
    parts = {_part_name(width): layers for width, layers in ranges.dynamic.items()}
    if ranges.static is not None:
        parts[_STATIC] = ranges.static
    arrays = {
        f"{part}/{name}": np.array([layer.lowest, layer.highest, *layer.error_O], np.float32)
        for part, layers in parts.items()
        for name, layer in layers.items()
    }
    partial = directory / f".{INT8_FILE}.partial"
    try:
        digests = {_NETWORKS: networks_digest(info), _CONTENT: _content_digest(arrays)}
        save_file(arrays, partial, metadata=digests)
        partial.chmod(0o644)  # safetensors makes private files; the service may run as another user
        partial.replace(directory / INT8_FILE)
    except (OSError, SafetensorError) as exc:
        raise ModelDirectoryError(
            f"{INT8_FILE} cannot be written into {directory} ({exc}): copy the model directory to where you "
            "may write, calibrate the copy, and load that"
        ) from exc


def load_int8(directory: Path, info: ModelInfo) -> Int8Ranges:
    """Read a model directory's ranges.

    Raises:
        ModelDirectoryError: there are none, they are of other networks, or the file is damaged.
    """
    path = directory / INT8_FILE
    advice = "measure them: sdcom calibrate --int8 --model MODEL CLIP..."
    if not path.is_file():
        raise ModelDirectoryError(f"{info.full_name} has no ranges for int8 ({path} is missing); {advice}")
    try:
        with safe_open(path, "numpy") as file:
            digests = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as exc:
        raise ModelDirectoryError(f"{path} is damaged ({exc}): delete it, and {advice}") from exc
    if digests.get(_CONTENT) != _content_digest(arrays):
        raise ModelDirectoryError(f"{path} is damaged (its SHA-256 differs): delete it, and {advice}")
    if digests.get(_NETWORKS) != networks_digest(info):
        raise ModelDirectoryError(
            f"{path} is of other networks than {info.full_name}'s, trained again perhaps; {advice}"
        )
    parts = _by_part(arrays)
    dynamic = {width: parts.get(_part_name(width), {}) for width in info.config.widths if width > 0}
    return Int8Ranges(parts.get(_STATIC), dynamic)


def networks_digest(info: ModelInfo) -> str:
    """Return the SHA-256 of all that ranges depend on: the weights, and what is done with them.

    Raises:
        ModelDirectoryError: the record has no checksum of the weights.
    """
    record = info.files.get(WEIGHTS_FILE)
    if record is None:
        raise ModelDirectoryError(
            f"the record of {info.full_name} has no checksum of {WEIGHTS_FILE}, by which int8's ranges know "
            "their networks: save the model again"
        )
    text = f"{record.sha256} {info.config.model_dump_json(exclude={'labels'})}"
    return hashlib.sha256(text.encode()).hexdigest()


def _content_digest(arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _part_name(width: float) -> str:
    return f"dynamic at {width:g}"


def _by_part(arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, LayerRanges]:
    parts: dict[str, dict[str, LayerRange]] = {}
    for name, (lowest, highest, *error_O) in arrays.items():
        part, _, layer = name.partition("/")
        found = LayerRange(float(lowest), float(highest), np.array(error_O, np.float32))
        parts.setdefault(part, {})[layer] = found
    return dict(parts)
