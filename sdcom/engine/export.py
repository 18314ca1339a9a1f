"""A model's parts as ONNX files, for other runtimes: what the onnx engine builds in memory, on disk.

Serving does not read them: it builds its graphs from the model directory, so nothing can be out of date.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sdcom.checkpoint import FileRecord, load_info, load_weights
from sdcom.engine.backend import Backend, Float32Array
from sdcom.engine.onnx_backend import OnnxBackend
from sdcom.engine.onnx_graphs.parts import classifier_part, dynamic_part, fusion_part, gate_part, static_part
from sdcom.errors import SdcomError

MANIFEST = "export.json"
TOLERANCE = 1e-4
"""Of a part's largest value: how far float32 may be from the reference."""


class ParityError(SdcomError):
    """A part does not say what the reference says."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was written.

    Attributes:
        files: size and checksum of each file.
        differences: each part's largest difference from plain torch, over its largest value; empty where
            torch is not installed, and nothing was compared.
    """

    files: Mapping[str, FileRecord]
    differences: Mapping[str, float]


def export_onnx(directory: Path, output: Path) -> Export:
    """Write one ONNX file for each part and width, and a manifest with their checksums.

    Args:
        directory: of the model.
        output: made if absent.

    Raises:
        ModelDirectoryError: the directory is not a whole, readable model.
        SettingsError: the model has a temporal shift.
        ParityError: a part differs from plain torch by more than `TOLERANCE`; nothing is written.
    """
    info = load_info(directory)
    weights = load_weights(directory, info)
    differences = _compared(directory, OnnxBackend(info, weights))
    graphs = {
        "static.onnx": static_part(info, weights),
        "gate.onnx": gate_part(info, weights),
        "fusion.onnx": fusion_part(info, weights),
        "classifiers.onnx": classifier_part(info, weights),
        **{
            f"dynamic_w{round(100 * width):02d}.onnx": dynamic_part(info, weights, width)
            for width in info.config.widths
            if width > 0
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, graph in graphs.items():
        (output / name).write_bytes(graph)
    files = {path.name: _record(path) for path in sorted(output.iterdir()) if path.name != MANIFEST}
    manifest = {
        "model": info.full_name,
        "files": {name: record.model_dump() for name, record in files.items()},
        "differences": dict(differences),
    }
    (output / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return Export(files, differences)


def _compared(directory: Path, ours: OnnxBackend) -> dict[str, float]:
    if find_spec("torch") is None:
        return {}
    from sdcom.engine.torch_backend import TorchBackend  # noqa: PLC0415 - optional, and heavy
    from sdcom.model import load_model  # noqa: PLC0415

    outputs, expected = (_outputs(each) for each in (ours, TorchBackend(load_model(directory))))
    differences = {name: _difference(outputs[name], expected[name]) for name in outputs}
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise ParityError(
                f"{name} differs from plain torch by {difference:.1e} of its largest value, "
                f"more than {TOLERANCE:g}"
            )
    return differences


def _outputs(backend: Backend) -> dict[str, Float32Array]:
    """Return what every part says of a seeded clip."""
    config = backend.info.config
    side = -(-config.clip.crop // 8)
    coarse = np.random.default_rng(0).integers(256, size=(config.clip.num_frames, 8, 8, 3), dtype=np.uint8)
    frames = (
        coarse.repeat(side, axis=1).repeat(side, axis=2)[:, : config.clip.crop, : config.clip.crop].copy()
    )
    looked = backend.look(frames)
    filled = {f"dynamic at {width:g}": backend.fill(frames, width) for width in config.widths if width > 0}
    fused = backend.fuse(looked.features_ND, filled["dynamic at 1"])
    return {
        "static": looked.features_ND,
        "gate's embedding": looked.embeddings_NE,
        "gate": backend.decide(looked.embeddings_NE[None])[0],
        **filled,
        "fusion": fused,
        "classifiers": backend.classify(np.maximum.accumulate(fused)[None]),
    }


def _difference(ours: Float32Array, theirs: Float32Array) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _record(path: Path) -> FileRecord:
    data = path.read_bytes()
    return FileRecord(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
