"""Exported files: whole, small where the width is small, checked, and what the engine itself runs."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from sdcom.engine import export
from sdcom.engine.export import MANIFEST, ParityError, export_onnx
from sdcom.engine.torch_backend import TorchBackend
from sdcom.model import Model
from tests.sdcom.conftest import patterned_frames


def test_every_part_is_written_with_its_checksum_and_its_difference(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    made = export_onnx(tiny_model_dir, tmp_path / "onnx")
    manifest = json.loads((tmp_path / "onnx" / MANIFEST).read_text())
    assert manifest["model"] == "tiny@0"
    assert set(manifest["files"]) == set(made.files)
    for name, record in manifest["files"].items():
        data = (tmp_path / "onnx" / name).read_bytes()
        assert record == {"size_bytes": len(data), "sha256": sha256(data).hexdigest()}
    sizes = [made.files[f"dynamic_w{percent}.onnx"].size_bytes for percent in (25, 50, 75, 100)]
    assert sizes[0] < sizes[1] / 2 < sizes[2] / 2 < sizes[3], "narrow widths hold their own weights alone"
    assert made.differences
    assert 0 < max(made.differences.values()) < export.TOLERANCE


def test_an_exported_file_runs_anywhere_and_says_what_torch_says(
    tiny_model: Model, tiny_model_dir: Path, tmp_path: Path
) -> None:
    export_onnx(tiny_model_dir, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "dynamic_w50.onnx", providers=["CPUExecutionProvider"])
    frames_THWC = patterned_frames(3, 5)
    expected = TorchBackend(tiny_model).fill(frames_THWC, 0.5)
    (features,) = session.run(None, {"frames": frames_THWC})
    np.testing.assert_allclose(features, expected[:, : features.shape[1]], atol=1e-4 * expected.max())


def test_a_part_that_differs_is_refused_by_name_and_nothing_is_written(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 1e-12)
    with pytest.raises(ParityError, match=r"differs from plain torch by \S+ of its largest value"):
        export_onnx(tiny_model_dir, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
