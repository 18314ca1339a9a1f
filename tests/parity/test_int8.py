"""INT8 is what its arithmetic says, near float32 in every network, and tied to the networks measured."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from sdcom.checkpoint import load_info
from sdcom.config import ClipConfig, DynamicArchitecture, StaticArchitecture
from sdcom.engine.hardware import applying, measure_hardware
from sdcom.engine.int8 import INT8_FILE, load_int8, measure_int8, save_int8
from sdcom.engine.loading import DeviceName, EngineName, load_backend
from sdcom.engine.onnx_backend import OnnxBackend
from sdcom.engine.onnx_graphs.graph import Graph, WeightReader
from sdcom.engine.onnx_graphs.int8 import Int8Layers, Int8Ranges, LayerRange, ObservedLayers
from sdcom.engine.onnx_graphs.layers import Layers
from sdcom.errors import ModelDirectoryError, SettingsError
from sdcom.model import Model
from sdcom.recognizer import bundled_model_dir
from tests.conftest import REPOSITORY
from tests.parity.networks import NETWORKS, lively_model, network_config
from tests.sdcom.conftest import patterned_frames
from tests.sdcom.video.videos import encode

Float = npt.NDArray[np.float64]

CLIP = ClipConfig(num_frames=1, short_side=32, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5))
ZERO = 128  # the byte nearest to the mean


def _weights() -> dict[str, npt.NDArray[np.generic]]:
    """Return a convolution of 3 to 4 channels and a depthwise one, with uneven batch norms."""
    rng = np.random.default_rng(0)
    weights = {"a.weight": rng.normal(size=(4, 3, 3, 3)), "b.weight": rng.normal(size=(4, 1, 3, 3)) + 0.3}
    for norm in ("na", "nb"):
        weights[f"{norm}.weight"] = np.array([0.02, 0.3, 1.0, 4.0])
        weights[f"{norm}.bias"] = rng.normal(size=4)
        weights[f"{norm}.running_mean"] = rng.normal(size=4)
        weights[f"{norm}.running_var"] = np.array([1.0, 2.0, 0.5, 1.0])
    return {name: value.astype(np.float32) for name, value in weights.items()}


def _built(graph: Graph, layers: Layers) -> str:
    frames = layers.frames(graph.node("Transpose", "frames", perm=[0, 3, 1, 2]), CLIP, whole=True)
    x, channels = layers.conv_norm(frames, "a", "na", 3, stride=2, activation="relu6")
    return layers.conv_norm(x, "b", "nb", channels)[0]


def _small() -> tuple[Graph, WeightReader]:
    return Graph("small", {"frames": ("uint8", ("N", 32, 32, 3))}), WeightReader(_weights(), "")


def _run(
    graph: Graph, outputs: Mapping[str, tuple[str, int]], frames_NHWC: npt.NDArray[np.uint8]
) -> dict[str, Float]:
    """Return a graph's values by the names given, each with how many axes it has."""
    shaped = {
        name: (value, [f"{name}{axis}" for axis in range(num_axes)])
        for name, (value, num_axes) in outputs.items()
    }
    session = onnxruntime.InferenceSession(graph.serialized(shaped), providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(list(outputs), {"frames": frames_NHWC}), strict=True))


def _convolved(x_CHW: Float, weight_OIHW: Float, stride: int, depthwise: bool) -> Float:
    """Return a 3x3 convolution, padded by 1 with zeros, by its definition."""
    padded_CHW = np.pad(x_CHW, ((0, 0), (1, 1), (1, 1)))
    size = x_CHW.shape[1] // stride
    y_OHW = np.zeros((len(weight_OIHW), size, size))
    for row in range(3):
        for column in range(3):
            seen_CHW = padded_CHW[
                :, row : row + x_CHW.shape[1] : stride, column : column + x_CHW.shape[2] : stride
            ]
            taps_OI = weight_OIHW[:, :, row, column]
            y_OHW += (
                taps_OI[:, :, None] * seen_CHW if depthwise else np.einsum("oi,ihw->ohw", taps_OI, seen_CHW)
            )
    return y_OHW


def _folded(conv: str, norm: str) -> tuple[Float, Float]:
    """Return a convolution with its batch norm folded in: weights and bias."""
    weights = {name: value.astype(np.float64) for name, value in _weights().items()}
    scale_O = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + 1e-5)
    shift_O = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale_O
    return weights[f"{conv}.weight"] * scale_O[:, None, None, None], shift_O


def _in_127_steps(weight_OIHW: Float) -> Float:
    steps = np.abs(weight_OIHW).max(axis=(1, 2, 3), keepdims=True) / 127
    rounded_OIHW: Float = np.round(weight_OIHW / steps) * steps
    return rounded_OIHW


def _in_steps(x: Float, lowest: float, highest: float) -> Float:
    step = (highest - lowest) / 255
    zero = round(-lowest / step)
    return step * (np.clip(np.round(x / step) + zero, 0, 255) - zero)


def test_the_quantised_layers_are_what_their_arithmetic_says() -> None:
    frames_1HWC = patterned_frames(1, 0, 32)
    ranges = {
        "a": LayerRange(0.0, 5.0, np.array([0.5, 0, -0.25, 0], np.float32)),
        "b": LayerRange(-9.0, 14.0, np.zeros(4, np.float32)),
    }
    graph, reader = _small()
    layers = Int8Layers(graph, reader, 1.0, same=False, ranges=ranges)
    found = _run(graph, {"y": (_built(graph, layers), 4)}, frames_1HWC)["y"]

    weight_OIHW, bias_O = _folded("a", "na")
    per_pixel_I = 255 * np.array(CLIP.std)
    weight_OIHW = _in_127_steps(weight_OIHW / per_pixel_I[:, None, None])
    bias_O += np.einsum("oihw,i->o", weight_OIHW, ZERO - 255 * np.array(CLIP.mean)) - ranges["a"].error_O
    pixels_CHW = frames_1HWC[0].transpose(2, 0, 1).astype(np.float64) - ZERO
    x_CHW = _convolved(pixels_CHW, weight_OIHW, 2, depthwise=False) + bias_O[:, None, None]
    x_CHW = _in_steps(np.clip(x_CHW, 0, 6), 0, 5)
    weight_OIHW, bias_O = _folded("b", "nb")
    y_CHW = _convolved(x_CHW, _in_127_steps(weight_OIHW), 1, depthwise=True) + bias_O[:, None, None]
    expected_CHW = _in_steps(y_CHW, -9, 14)

    step = 23 / 255
    assert len(np.unique(np.round(expected_CHW / step))) > 100, "most levels are in use"
    differences = np.abs(found[0] - expected_CHW)
    assert np.mean(differences < step / 10) > 0.97
    # A value half way between two levels may be rounded otherwise, and the second layer multiplies that.
    assert differences.max() < 4.5 * step


def test_what_is_observed_of_a_layer_is_its_extremes_and_what_rounding_its_weights_adds() -> None:
    frames_NHWC = patterned_frames(2, 1, 32)
    graph, reader = _small()
    layers = ObservedLayers(graph, reader, 1.0, same=False)
    _built(graph, layers)
    lowest, highest = layers.extremes()
    outputs = {
        "lowest": (lowest, 2),
        "highest": (highest, 2),
        "error": (layers.errors["b"], 1),
        "x": (layers.values["a"], 4),
        "y": (layers.values["b"], 4),
    }
    found = _run(graph, outputs, frames_NHWC)
    for place, value in enumerate(("x", "y")):
        np.testing.assert_allclose(found["lowest"][:, place], found[value].min(axis=(1, 2, 3)))
        np.testing.assert_allclose(found["highest"][:, place], found[value].max(axis=(1, 2, 3)))
    weight_OIHW, _ = _folded("b", "nb")
    rounding_OIHW = _in_127_steps(weight_OIHW) - weight_OIHW
    errors_NOHW = [_convolved(x_CHW, rounding_OIHW, 1, depthwise=True) for x_CHW in found["x"].astype(float)]
    np.testing.assert_allclose(found["error"], np.mean(errors_NOHW, axis=(0, 2, 3)), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("static", "dynamic", "same", "crop", "resolution"), [NETWORKS[n] for n in (1, 2, 5)]
)
def test_every_kind_of_network_is_near_float32_at_every_width(
    static: StaticArchitecture, dynamic: DynamicArchitecture, same: bool, crop: int, resolution: int
) -> None:
    model = lively_model(network_config(static, dynamic, same, crop, resolution))
    weights = {name: tensor.numpy() for name, tensor in model.networks.state_dict().items()}
    clips = [patterned_frames(4, seed, crop) for seed in range(2)]
    ranges = measure_int8(model.info, weights, clips, static=True)
    ours, theirs = (OnnxBackend(model.info, weights, int8=each) for each in (ranges, None))
    assert (ours.provider.name, theirs.provider.name) == ("onnxruntime-cpu-int8", "onnxruntime-cpu")
    frames_THWC = patterned_frames(4, 7, crop)
    # Random weights hand rounding on from layer to layer, those of MobileNetV2 most; nonsense is 1 and more.
    bound = {network: 0.7 if network == "mobilenet_v2" else 0.25 for network in (static, dynamic)}
    looked, expected = ours.look(frames_THWC), theirs.look(frames_THWC)
    assert 0 < _apart(looked.features_ND, expected.features_ND) < bound[static]
    for width in model.info.config.widths[1:]:
        assert 0 < _apart(ours.fill(frames_THWC, width), theirs.fill(frames_THWC, width)) < bound[dynamic]


def test_the_bundled_model_is_near_float32_and_takes_the_same_widths() -> None:
    ours, theirs = (load_backend(bundled_model_dir(), precision=name) for name in ("int8", "fp32"))
    crop = ours.info.config.clip.crop
    frames_THWC = patterned_frames(2, 0, crop)
    looked, expected = ours.look(frames_THWC), theirs.look(frames_THWC)
    np.testing.assert_array_equal(looked.embeddings_NE, expected.embeddings_NE)  # its ranges are none
    for width in ours.info.config.widths[1:]:
        assert 0 < _apart(ours.fill(frames_THWC, width), theirs.fill(frames_THWC, width)) < 0.2


def _apart(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.fixture(scope="module")
def ranges(tiny_model: Model) -> Int8Ranges:
    weights = {name: tensor.numpy() for name, tensor in tiny_model.networks.state_dict().items()}
    return measure_int8(tiny_model.info, weights, [patterned_frames(4, 0)], static=True)


@pytest.fixture
def directory(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "tiny"))


def test_ranges_are_read_as_they_were_written(ranges: Int8Ranges, directory: Path) -> None:
    info = load_info(directory)
    for written in (ranges, Int8Ranges(None, ranges.dynamic)):
        save_int8(directory, info, written)
        read = load_int8(directory, info)
        assert (read.static is None) == (written.static is None)
        for width, layers in written.dynamic.items():
            assert set(read.dynamic[width]) == set(layers)
            for name, layer in layers.items():
                assert read.dynamic[width][name][:2] == pytest.approx(layer[:2], rel=1e-6)
                np.testing.assert_array_equal(read.dynamic[width][name].error_O, layer.error_O)


def test_without_ranges_or_with_those_of_other_networks_int8_is_refused(
    ranges: Int8Ranges, directory: Path
) -> None:
    with pytest.raises(ModelDirectoryError, match=r"tiny@0 has no ranges for int8 .*sdcom calibrate --int8"):
        load_backend(directory, precision="int8")
    info = load_info(directory)
    for other in (
        info.model_copy(update={"config": info.config.model_copy(update={"static_resolution": 48})}),
        info.model_copy(update={"files": load_info(bundled_model_dir()).files}),
    ):
        save_int8(directory, other, ranges)
        with pytest.raises(ModelDirectoryError, match=r"is of other networks than tiny@0's"):
            load_backend(directory, precision="int8")


@pytest.mark.parametrize("truncated", [True, False])
def test_a_damaged_file_is_told_and_what_to_do(ranges: Int8Ranges, directory: Path, truncated: bool) -> None:
    info = load_info(directory)
    save_int8(directory, info, ranges)
    file = directory / INT8_FILE
    data = file.read_bytes()
    file.write_bytes(data[:-5] if truncated else data[:-2] + bytes((data[-2] ^ 1, data[-1])))
    with pytest.raises(ModelDirectoryError, match=r"int8\.safetensors is damaged .*delete it, and measure"):
        load_int8(directory, info)


def test_a_layer_without_its_range_is_refused_by_name(ranges: Int8Ranges, directory: Path) -> None:
    layers = {name: layer for name, layer in ranges.dynamic[0.5].items() if name != "features.3"}
    save_int8(directory, load_info(directory), Int8Ranges(None, {**ranges.dynamic, 0.5: layers}))
    with pytest.raises(ModelDirectoryError, match=r"lack the layer features\.3$"):
        load_backend(directory, precision="int8")


def test_a_directory_that_cannot_be_written_is_told(ranges: Int8Ranges, directory: Path) -> None:
    (directory / f".{INT8_FILE}.partial").mkdir()  # so that root, too, cannot write there
    with pytest.raises(ModelDirectoryError, match="copy the model directory"):
        save_int8(directory, load_info(directory), ranges)


@pytest.mark.parametrize(
    ("engine", "device", "compiled"),
    [("torch", "auto", False), ("onnx", "cuda", False), ("auto", "auto", True)],
)
def test_int8_elsewhere_than_in_onnx_on_a_processor_is_refused(
    engine: EngineName, device: DeviceName, compiled: bool
) -> None:
    with pytest.raises(SettingsError, match="int8 is the onnx engine's, on a processor"):
        load_backend(bundled_model_dir(), engine=engine, device=device, precision="int8", compiled=compiled)


def test_times_in_int8_are_not_those_in_float32(tiny_model: Model, ranges: Int8Ranges) -> None:
    weights = {name: tensor.numpy() for name, tensor in tiny_model.networks.state_dict().items()}
    int8, float32 = (OnnxBackend(tiny_model.info, weights, int8=each) for each in (ranges, None))
    records = [measure_hardware(each, num_threads=1, num_repeats=1) for each in (float32, int8)]
    assert records[0].place != records[1].place
    for backend, record in zip((float32, int8), records, strict=True):
        assert applying(records, tiny_model.info, backend.provider, 1) is record


TORCHLESS = "import sys; sys.modules['torch'] = None; from sdcom.__main__ import main; main()"


def _torchless(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", TORCHLESS, *map(str, words)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=REPOSITORY,
        env=os.environ | environment,
    )


def test_a_model_is_calibrated_and_then_recognises_in_int8_without_torch(
    directory: Path, tmp_path: Path
) -> None:
    clip, broken = tmp_path / "clip.mp4", tmp_path / "broken.mp4"
    clip.write_bytes(encode(num_frames=12))
    broken.write_bytes(b"no video")
    refused = _torchless("calibrate", "--int8", "--model", directory, clip, broken)
    assert refused.returncode == 1
    assert f"sdcom: {broken} cannot be used: " in refused.stderr
    assert not (directory / INT8_FILE).exists()
    measured = _torchless("calibrate", "--int8", "--model", directory, clip)
    assert measured.returncode == 0, measured.stderr
    assert measured.stdout == f"written to {directory / INT8_FILE}\n"
    answers = []
    for precision in ("int8", "fp32"):
        answered = _torchless("recognize", "--model", directory, clip, SDCOM_PRECISION=precision)
        assert answered.returncode == 0, answered.stderr
        answers.append([each["score"] for each in json.loads(answered.stdout)["predictions"]])
    assert answers[0] != answers[1]
    assert sorted(answers[0]) == pytest.approx(sorted(answers[1]), abs=0.2)
