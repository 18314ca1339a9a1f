"""ONNX Runtime says what plain torch says: every part, architecture and width, to float32's last digits."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from sdcom.architecture import slim_channels
from sdcom.budget import WidthPlan, choose_widths
from sdcom.checkpoint import ModelInfo, load_info, load_weights
from sdcom.config import ClipConfig, DynamicArchitecture, ModelConfig, StaticArchitecture
from sdcom.engine.backend import Float32Array
from sdcom.engine.composition import compose_video
from sdcom.engine.loading import load_backend
from sdcom.engine.onnx_backend import OnnxBackend, best_device
from sdcom.engine.reference import compose
from sdcom.engine.resizing import resize_matrix
from sdcom.engine.stream import CausalStream
from sdcom.engine.torch_backend import TorchBackend
from sdcom.engine.turns import Apart, turns_for
from sdcom.errors import ModelDirectoryError, SettingsError
from sdcom.model import Model, save_model
from sdcom.processors import num_processors
from sdcom.recognizer import bundled_model_dir
from tests.conftest import REPOSITORY, TINY_CONFIG, lively_networks
from tests.parity.networks import NETWORKS, assert_close, lively_model, network_config
from tests.sdcom.conftest import patterned_frames


@pytest.mark.parametrize(("static", "dynamic", "same", "crop", "resolution"), NETWORKS)
def test_every_part_at_every_width_is_the_same(
    static: StaticArchitecture, dynamic: DynamicArchitecture, same: bool, crop: int, resolution: int
) -> None:
    config = network_config(static, dynamic, same, crop, resolution)
    ours, theirs = _both(config)
    frames_THWC = patterned_frames(4, 1, crop)
    looked, expected = ours.look(frames_THWC), theirs.look(frames_THWC)
    assert_close(looked.features_ND, expected.features_ND)
    assert_close(looked.embeddings_NE, expected.embeddings_NE)
    filled = {}
    for width in config.widths[1:]:
        filled[width] = ours.fill(frames_THWC, width)
        assert_close(filled[width], theirs.fill(frames_THWC, width))
        assert not filled[width][:, slim_channels(filled[width].shape[1], width, 8) :].any()
    fused_NF = ours.fuse(looked.features_ND, filled[0.5])
    assert_close(fused_NF, theirs.fuse(looked.features_ND, filled[0.5]))
    maxima_BTF = np.maximum.accumulate(fused_NF)[None]
    assert_close(ours.classify(maxima_BTF), theirs.classify(maxima_BTF))
    assert_close(ours.classify(maxima_BTF[:, 2:3], first=2), theirs.classify(maxima_BTF)[:, 2:3])


def test_there_is_a_worker_for_every_processor_and_for_torch_one(tiny_model: Model) -> None:
    every = num_processors()
    int8 = load_backend(bundled_model_dir(), engine="onnx", device="cpu", precision="int8")
    for backend, num_workers in ((_onnx_of(tiny_model), every), (int8, every), (TorchBackend(tiny_model), 1)):
        turns = turns_for(backend, None, num_videos=3)
        assert isinstance(turns, Apart)
        assert turns._workers._max_workers == num_workers
        turns.close()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_many_videos_at_once_get_the_same_bits_as_one_by_one(tiny_model: Model, num_threads: int) -> None:
    ours, macs_K = _onnx_of(tiny_model, num_threads), tiny_model.info.macs.dynamic_by_choice
    clips = [patterned_frames(4, seed) for seed in range(24)]

    def plan(logits_TK: Float32Array) -> WidthPlan:
        return choose_widths(logits_TK, macs_K, 0.0)

    turns = Apart(ours, num_workers=4)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda clip: turns.submit(clip, plan).result(60), clips))
    turns.close()
    for clip, answer in zip(clips, answers, strict=True):
        expected = compose_video(ours, clip, plan)
        np.testing.assert_array_equal(answer.logits_TL, expected.logits_TL)
        assert (answer.plan, answer.ledger) == (expected.plan, expected.ledger)
    assert turns.backend.executed() == sum((answer.ledger.macs for answer in answers), Counter())


def test_the_gate_goes_on_from_a_state_and_decides_several_videos_at_once() -> None:
    ours, theirs = _both(TINY_CONFIG)
    embeddings_BTE = np.random.default_rng(0).normal(size=(3, 4, 16)).astype(np.float32)
    logits_BTK, state_BH = ours.decide(embeddings_BTE)
    assert_close(logits_BTK, theirs.decide(embeddings_BTE)[0])
    first_BTK, middle_BH = ours.decide(embeddings_BTE[:, :2])
    rest_BTK, last_BH = ours.decide(embeddings_BTE[:, 2:], middle_BH)
    assert_close(np.concatenate((first_BTK, rest_BTK), axis=1), logits_BTK)
    assert_close(last_BH, state_BH)


@pytest.mark.parametrize("lam", [0.0, 0.5, 3.0])
def test_whole_videos_get_the_same_widths_and_logits(tiny_model: Model, lam: float) -> None:
    ours, macs_K = _onnx_of(tiny_model), tiny_model.info.macs.dynamic_by_choice
    for seed in range(4):
        frames_THWC = patterned_frames(4, seed)
        for each in (ours, TorchBackend(tiny_model)):
            composed = compose_video(each, frames_THWC, lambda logits: choose_widths(logits, macs_K, lam))
            expected = compose(tiny_model, frames_THWC, lambda logits: choose_widths(logits, macs_K, lam))
            assert composed.plan == expected.plan
            assert composed.ledger == expected.ledger
            assert_close(composed.logits_TL, expected.logits_TL)


def test_streams_are_the_same_while_the_window_fills_and_slides(tiny_model: Model) -> None:
    ours, theirs = (CausalStream(each, 0.5) for each in (_onnx_of(tiny_model), TorchBackend(tiny_model)))
    for frame_HWC in patterned_frames(9, 3):
        step, expected = ours.push(frame_HWC), theirs.push(frame_HWC)
        assert (step.width, step.ledger) == (expected.width, expected.ledger)
        assert_close(step.logits_L, expected.logits_L)


@pytest.mark.parametrize(("size", "resolution"), [(224, 64), (224, 96), (75, 33), (64, 32), (32, 48)])
def test_the_resize_matrix_is_torchs_antialiased_bilinear(size: int, resolution: int) -> None:
    image_HW = np.random.default_rng(0).random((size, size), dtype=np.float32)
    matrix = resize_matrix(size, resolution)
    expected = functional.interpolate(
        torch.from_numpy(image_HW)[None, None], (resolution, resolution), mode="bilinear", antialias=True
    )[0, 0]
    np.testing.assert_allclose(matrix @ image_HW @ matrix.T, expected.numpy(), rtol=1e-5)


def test_a_batch_of_frames_is_those_frames_one_by_one(tiny_model: Model) -> None:
    """More frames than one call of a backbone takes."""
    ours = _onnx_of(tiny_model)
    frames_NHWC = patterned_frames(9, 2)
    runs: list[Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]] = [
        lambda frames: ours.look(frames).features_ND,
        lambda frames: ours.fill(frames, 0.5),
    ]
    for run in runs:
        alone = np.concatenate([run(frame_HWC[None]) for frame_HWC in frames_NHWC])
        np.testing.assert_allclose(run(frames_NHWC), alone, rtol=1e-5, atol=1e-6)


def test_a_model_with_temporal_shift_is_refused_and_gets_the_torch_engine(tmp_path: Path) -> None:
    shifting = ModelConfig(
        **TINY_CONFIG.model_dump(exclude={"clip", "dynamic", "temporal_shift"}),
        clip=ClipConfig(num_frames=4, short_side=72, crop=64, order="time"),
        dynamic="resnet18",
        temporal_shift=True,
    )
    save_model(tmp_path, ModelInfo(name="shift", version="0", config=shifting), lively_networks(shifting))
    with pytest.raises(SettingsError, match="shift@0 has a temporal shift"):
        load_backend(tmp_path, engine="onnx")
    assert load_backend(tmp_path).provider.name == "torch-cpu"


def test_a_device_that_is_not_there_is_refused_and_never_taken_silently(tiny_model_dir: Path) -> None:
    assert best_device() == "cpu"
    for engine in ("onnx", "torch"):
        with pytest.raises(SettingsError, match="cannot compute on cuda"):
            load_backend(tiny_model_dir, engine=engine, device="cuda")


def test_weights_that_lack_an_array_are_refused_by_its_name(tiny_model_dir: Path) -> None:
    info = load_info(tiny_model_dir)
    weights = load_weights(tiny_model_dir, info)
    del weights["dynamic.features.3.conv.1.1.running_var_w50"]
    with pytest.raises(ModelDirectoryError, match=r"lack dynamic\.features\.3\.conv\.1\.1\.running_var_w50"):
        OnnxBackend(info, weights)


@pytest.mark.parametrize(
    "name", ["gate.linear.weight", "dynamic.features.3.conv.0.0.weight", "fusion.classifier_weight"]
)
def test_weights_of_other_shapes_are_refused(tiny_model_dir: Path, name: str) -> None:
    info = load_info(tiny_model_dir)
    weights = load_weights(tiny_model_dir, info)
    weights[name] = weights[name][1:, :-1]
    with pytest.raises(ModelDirectoryError, match="the weights of tiny@0 do not have the shapes"):
        OnnxBackend(info, weights)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as where it is not installed: importing it fails
from collections.abc import Callable
from pathlib import Path
import service.server
from sdcom.recognizer import Recognizer, bundled_model_dir
with Recognizer.load(num_decode_workers=1, precision=sys.argv[1]) as recognizer:
    recognizer.warm_up()
    print(recognizer.recognize(bundled_model_dir() / "sample.mp4").predictions[0].label)
    print(recognizer.provider.name)
"""


@pytest.mark.parametrize(
    ("precision", "name"), [("auto", "onnxruntime-cpu"), ("int8", "onnxruntime-cpu-int8")]
)
def test_the_service_and_the_recognizer_need_no_torch(precision: str, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, precision],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    label, provider = done.stdout.split()
    assert label in load_info(bundled_model_dir()).config.labels
    assert provider == name


def test_without_torch_the_help_of_calibrate_tells_what_it_can_do() -> None:
    program = "import sys; sys.modules['torch'] = None; from sdcom.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "calibrate", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    assert "--hardware" in done.stdout
    assert "--int8" in done.stdout


@pytest.mark.parametrize("arguments", [("train", "tiny", "--output", "nowhere"), ("train", "--help")])
def test_training_without_torch_says_what_to_install(arguments: tuple[str, ...]) -> None:
    program = "import sys; sys.modules['torch'] = None; from sdcom.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("sdcom: sdcom train needs torch, which the extra `train` brings: ")
    assert "`make setup`" in done.stderr


def _both(config: ModelConfig) -> tuple[OnnxBackend, TorchBackend]:
    model = lively_model(config)
    return _onnx_of(model), TorchBackend(model)


def _onnx_of(model: Model, num_threads: int = 1) -> OnnxBackend:
    weights = {name: tensor.numpy() for name, tensor in model.networks.state_dict().items()}
    return OnnxBackend(model.info, weights, num_threads=num_threads)
