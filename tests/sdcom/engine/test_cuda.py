"""On a GPU: captured in CUDA graphs, the networks say what plain torch says on the processor."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import sdcom
from sdcom.budget import choose_widths
from sdcom.config import ModelConfig
from sdcom.engine.backend import Backend, Gathered, Picked, to_the_end
from sdcom.engine.composition import compose_video
from sdcom.engine.dense_backend import BUCKETS, DenseBackend, Precision
from sdcom.engine.loading import load_backend
from sdcom.engine.on_host import HostRoom
from sdcom.engine.onnx_backend import is_built_for
from sdcom.engine.stream import CausalStream
from sdcom.engine.torch_backend import TorchBackend
from sdcom.engine.turns import Together
from sdcom.errors import SettingsError
from sdcom.model import Model, load_model
from sdcom.processors import gpu_name
from sdcom.recognizer import Recognizer
from tests.conftest import TINY_CONFIG, lively_networks
from tests.sdcom.conftest import always, patterned_frames

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

RESNETS = ModelConfig(
    **TINY_CONFIG.model_dump(exclude={"static", "dynamic"}),
    static="mobilenet_v4_conv_small",
    dynamic="resnet50",
)


@pytest.fixture(scope="module", params=[TINY_CONFIG, RESNETS], ids=["mobilenet_v2", "resnet50"])
def model(request: pytest.FixtureRequest, tiny_model: Model) -> Model:
    config: ModelConfig = request.param
    info = tiny_model.info.model_copy(update={"config": config})
    return Model(info, lively_networks(config).requires_grad_(requires_grad=False))


@pytest.fixture(scope="module")
def exact(model: Model) -> DenseBackend:
    return DenseBackend(model, device="cuda", precision="fp32")


AMPLIFIED = 5e-4
"""Of the largest value: random networks make more of float32's rounding than trained ones do."""


def assert_close(
    ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], tolerance: float = AMPLIFIED
) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def test_every_part_at_every_width_is_the_same_in_float32(exact: DenseBackend, model: Model) -> None:
    theirs, frames_THWC = TorchBackend(model), patterned_frames(4, 1)
    looked, expected = exact.look(frames_THWC), theirs.look(frames_THWC)
    assert_close(looked.features_ND, expected.features_ND)
    assert_close(looked.embeddings_NE, expected.embeddings_NE)
    logits_BTK, state_BH = exact.decide(expected.embeddings_NE[None])
    for ours, other in zip((logits_BTK, state_BH), theirs.decide(expected.embeddings_NE[None]), strict=True):
        assert_close(ours, other)
    for width in TINY_CONFIG.widths[1:]:
        filled_ND = theirs.fill(frames_THWC, width)
        assert_close(exact.fill(frames_THWC, width), filled_ND)
        both = expected.features_ND, filled_ND
        assert_close(exact.fuse(*both), theirs.fuse(*both))
        assert_close(
            exact.conclude(*(each[None] for each in both)), theirs.conclude(both[0][None], both[1][None])
        )


def assert_same_widths(
    ours: Backend, theirs: Backend, frames_THWC: npt.NDArray[np.uint8], tolerance: float
) -> None:
    """Compare what decides the widths to 1e-4, the widths exactly, and the logits to the tolerance."""
    looked, expected = ours.look(frames_THWC), theirs.look(frames_THWC)
    assert_close(looked.features_ND, expected.features_ND, tolerance=1e-4)
    assert_close(looked.embeddings_NE, expected.embeddings_NE, tolerance=1e-4)
    macs_K = ours.info.macs.dynamic_by_choice
    composed, reference = (
        compose_video(each, frames_THWC, lambda logits: choose_widths(logits, macs_K, 0.5))
        for each in (ours, theirs)
    )
    assert composed.plan == reference.plan
    assert_close(composed.logits_TL, reference.logits_TL, tolerance=tolerance)


def test_a_trained_model_is_the_same_in_float32_to_a_ten_thousandth() -> None:
    model = load_model(Path(sdcom.__file__).parent / "bundled")
    ours, theirs = DenseBackend(model, device="cuda", precision="fp32"), TorchBackend(model)
    clip = model.info.config.clip
    for seed in range(3):
        frames_THWC = patterned_frames(clip.num_frames, seed, clip.crop)
        assert_same_widths(ours, theirs, frames_THWC, tolerance=1e-4)
        for width in model.info.config.widths[1:]:
            filled_ND = ours.fill(frames_THWC, width)
            assert_close(filled_ND, theirs.fill(frames_THWC, width), tolerance=1e-4)


@pytest.mark.parametrize("num_frames", [*BUCKETS, 3, 100, BUCKETS[-1] + 5])
def test_every_size_of_batch_is_its_frames_and_what_was_returned_stays(
    exact: DenseBackend, model: Model, num_frames: int
) -> None:
    frames_NHWC = patterned_frames(num_frames, 2)
    first, kept = exact.fill(frames_NHWC, 0.25), exact.fill(frames_NHWC, 0.25).copy()
    looked = exact.look(frames_NHWC[::-1].copy())
    exact.fill(frames_NHWC[::-1].copy(), 0.25)
    np.testing.assert_array_equal(first, kept)
    expected_ND = TorchBackend(model).fill(frames_NHWC, 0.25)
    assert_close(first, expected_ND)
    assert len(looked.features_ND) == num_frames


def test_pinned_frames_give_what_others_give(exact: DenseBackend) -> None:
    frames_NHWC = patterned_frames(8, 5)
    pinned_NHWC = torch.from_numpy(frames_NHWC).pin_memory().numpy()
    np.testing.assert_array_equal(exact.fill(pinned_NHWC, 0.5), exact.fill(frames_NHWC, 0.5))


def test_a_batch_of_several_videos_frames_is_computed_on_the_gpu(exact: DenseBackend, model: Model) -> None:
    clips, answers = [patterned_frames(4, seed) for seed in range(3)], []
    for room in (exact.open_room(3), HostRoom(TorchBackend(model), model.info.config)):
        with ThreadPoolExecutor(3) as threads:
            one, _, three = threads.map(room.hold, clips)
        to_the_end(room.look, Picked([(three, (0, 3)), (one, (0, 1, 2, 3)), (three, (1, 2))], 11))
        to_the_end(room.fill, Picked([(one, (1,)), (three, (2, 0))], 4), 0.5)
        whole = Gathered([three, one], 4, 2)
        answers.append((to_the_end(room.decide, whole), to_the_end(room.conclude, whole)))
    for our_logits, their_logits in zip(*answers, strict=True):
        assert_close(our_logits, their_logits)


def test_padding_is_nobodys_and_changes_nothing_that_is_held(exact: DenseBackend, model: Model) -> None:
    room = exact.open_room(2)
    videos = [room.hold(patterned_frames(4, seed)) for seed in range(2)]
    for video in videos:
        to_the_end(room.look, Picked([(video, range(4))], 4))
    to_the_end(room.fill, Picked([(videos[0], (0, 1, 2, 3)), (videos[1], (0, 1, 2, 3))], 8), 1.0)
    before = to_the_end(room.conclude, Gathered(videos, 4, 2))
    for position in range(3):  # five rows of eight are padding, where the call before had frames
        to_the_end(room.fill, Picked([(videos[1], (position,))], 8), 0.25)
    after = to_the_end(room.conclude, Gathered(videos, 4, 2))
    np.testing.assert_array_equal(after[0], before[0])
    assert not np.array_equal(after[1], before[1])


@pytest.mark.parametrize("lam", [0.0, 0.5, 3.0])
def test_in_float32_videos_get_the_same_widths_and_labels(
    exact: DenseBackend, model: Model, lam: float
) -> None:
    macs_K = model.info.macs.dynamic_by_choice
    for seed in range(8):
        frames_THWC = patterned_frames(4, seed)
        ours, theirs = (
            compose_video(each, frames_THWC, lambda logits: choose_widths(logits, macs_K, lam))
            for each in (exact, TorchBackend(model))
        )
        assert (ours.plan, ours.ledger) == (theirs.plan, theirs.ledger)
        assert_close(ours.logits_TL, theirs.logits_TL)


LIKENESS: list[tuple[Precision, float]] = [("bf16", 0.93), ("fp16", 0.998)]
"""Correlation with float32, of features of random networks, which amplify rounding, MobileNetV2 most.

Rounding weights and what every operation stores, convolution and bias one by one as cuDNN's are, with sums in
float32, gives 0.963 and 0.9992 for these frames, 0.9987 for others in float16, on a processor; an H100 gave
0.9992. The bounds allow for an error of about twice that.
"""


@pytest.mark.parametrize(("precision", "likeness"), LIKENESS)
def test_in_two_bytes_features_are_much_the_same_and_the_gate_stays_float32(
    model: Model, precision: Precision, likeness: float
) -> None:
    rough = DenseBackend(model, device="cuda", precision=precision)
    exact, frames_THWC = TorchBackend(model), patterned_frames(4, 1)
    for width in TINY_CONFIG.widths[1:]:
        ours, theirs = rough.fill(frames_THWC, width), exact.fill(frames_THWC, width)
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > likeness
    embeddings_BTE = exact.look(frames_THWC).embeddings_NE[None]
    assert_close(rough.decide(embeddings_BTE)[0], exact.decide(embeddings_BTE)[0])


def test_streams_are_the_same_while_the_window_fills_and_slides(exact: DenseBackend, model: Model) -> None:
    ours, theirs = (CausalStream(each, 0.5) for each in (exact, TorchBackend(model)))
    for frame_HWC in patterned_frames(9, 3):
        step, expected = ours.push(frame_HWC), theirs.push(frame_HWC)
        assert (step.width, step.ledger) == (expected.width, expected.ledger)
        assert_close(step.logits_L, expected.logits_L)


def test_the_scheduler_calls_from_its_own_thread(exact: DenseBackend, model: Model) -> None:
    turns, planner = Together(exact, num_videos=3), always(model, [0, 1, 2, 4])
    answer = turns.submit(patterned_frames(4, 0), planner).result()
    turns.close()
    expected = compose_video(TorchBackend(model), patterned_frames(4, 0), planner)
    assert_close(answer.logits_TL, expected.logits_TL)


def test_a_picture_that_comes_again_is_computed_once(exact: DenseBackend, model: Model) -> None:
    shown, planner = [0, 1, 0, 1], always(model, [1, 4, 1, 2])
    frames_THWC, turns = patterned_frames(4, 0)[shown], Together(exact, num_videos=3)
    answer = turns.submit(frames_THWC, planner, shown).result()
    turns.close()
    expected = compose_video(TorchBackend(model), frames_THWC, planner, shown)
    assert_close(answer.logits_TL, expected.logits_TL)
    assert answer.ledger == expected.ledger


def test_in_mixed_precision_a_trained_model_takes_float32s_widths() -> None:
    model = load_model(Path(sdcom.__file__).parent / "bundled")
    mixed, exact = DenseBackend(model, device="cuda", precision="mixed"), TorchBackend(model)
    clip = model.info.config.clip
    for seed in range(3):
        frames_THWC = patterned_frames(clip.num_frames, seed, clip.crop)
        assert_same_widths(mixed, exact, frames_THWC, tolerance=1e-2)


def test_a_gpu_is_found_and_reported_with_its_precision(tiny_model_dir: Path) -> None:
    found = load_backend(tiny_model_dir, engine="torch").provider
    has_tensor_cores = torch.cuda.get_device_capability() >= (7, 0)
    assert found.name == ("torch-cuda-mixed" if has_tensor_cores else "torch-cuda-fp32")
    assert found.device == torch.cuda.get_device_name() == gpu_name()
    assert load_backend(tiny_model_dir, engine="auto", precision="fp32").provider.name == "torch-cuda-fp32"


@pytest.mark.skipif(not is_built_for("cuda"), reason="needs onnxruntime-gpu")
def test_onnx_runtime_computes_float32_with_all_its_bits(tiny_model_dir: Path) -> None:
    on_gpu = load_backend(tiny_model_dir, engine="onnx", device="cuda")
    on_processor = load_backend(tiny_model_dir, engine="onnx", device="cpu")
    assert on_gpu.provider.name == "onnxruntime-cuda"
    frames_NHWC = patterned_frames(4, 1)
    assert_close(on_gpu.look(frames_NHWC).features_ND, on_processor.look(frames_NHWC).features_ND)
    for width in TINY_CONFIG.widths[1:]:
        assert_close(on_gpu.fill(frames_NHWC, width), on_processor.fill(frames_NHWC, width))


def test_compiled_kernels_are_refused_without_batches(tiny_model_dir: Path) -> None:
    with pytest.raises(SettingsError, match="SDCOM_BATCHING"):
        Recognizer.load(tiny_model_dir, engine="torch", compiled=True, batching=False)


def test_compiled_kernels_give_what_others_give(tiny_model: Model) -> None:
    compiled = DenseBackend(tiny_model, device="cuda", precision="fp32", compiled=True)
    num_videos, answers = BUCKETS[-1] // 4, []
    for room in (compiled.open_room(num_videos), HostRoom(TorchBackend(tiny_model), TINY_CONFIG)):
        videos = [room.hold(patterned_frames(4, seed)) for seed in range(num_videos)]
        every = Picked([(video, range(4)) for video in videos], BUCKETS[-1])
        to_the_end(room.look, every)
        to_the_end(room.fill, every, 0.25)
        answers.append(to_the_end(room.conclude, Gathered(videos, 4, num_videos)))
    ours, theirs = answers
    assert_close(ours, theirs)
    assert compiled.provider.name == "torch-cuda-fp32-compiled"


def test_a_plain_backend_names_its_gpu_too(tiny_model: Model) -> None:
    on_gpu = Model(tiny_model.info, deepcopy(tiny_model.networks).to("cuda"))
    assert TorchBackend(on_gpu).provider.device == torch.cuda.get_device_name()
