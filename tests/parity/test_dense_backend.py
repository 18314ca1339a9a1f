"""Sliced once and folded, the networks say what plain torch says: every part, architecture and width."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sdcom.architecture import slim_channels
from sdcom.budget import choose_widths
from sdcom.config import DynamicArchitecture, StaticArchitecture
from sdcom.engine.backend import Float32Array, Gathered, Int64Array, Looked, Picked, UInt8Array, to_the_end
from sdcom.engine.composition import compose_video
from sdcom.engine.cuda_graphs import exact_float32
from sdcom.engine.dense_backend import BUCKETS, DenseBackend, Precision
from sdcom.engine.ledger import Part
from sdcom.engine.limits import Limits
from sdcom.engine.loading import check_compiled
from sdcom.engine.metered import Metered
from sdcom.engine.on_host import HostRoom
from sdcom.engine.reference import compose
from sdcom.engine.scheduler import Scheduler
from sdcom.engine.stream import CausalStream
from sdcom.engine.torch_backend import TorchBackend
from sdcom.errors import OverloadedError, SettingsError
from sdcom.model import Model
from sdcom.recognizer import Recognizer
from sdcom.video import DecoderPool
from tests.conftest import TINY_CONFIG
from tests.parity.networks import NETWORKS, assert_close, lively_model, network_config
from tests.sdcom.conftest import always, patterned_frames


def dense_of(model: Model) -> DenseBackend:
    return DenseBackend(model, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def dense(tiny_model: Model) -> DenseBackend:
    return dense_of(tiny_model)


@pytest.mark.parametrize(("static", "dynamic", "same", "crop", "resolution"), NETWORKS)
def test_every_part_at_every_width_is_the_same(
    static: StaticArchitecture, dynamic: DynamicArchitecture, same: bool, crop: int, resolution: int
) -> None:
    model = lively_model(network_config(static, dynamic, same, crop, resolution))
    ours, theirs = dense_of(model), TorchBackend(model)
    frames_THWC = patterned_frames(4, 1, crop)
    looked, expected = ours.look(frames_THWC), theirs.look(frames_THWC)
    assert_close(looked.features_ND, expected.features_ND)
    assert_close(looked.embeddings_NE, expected.embeddings_NE)
    filled = {}
    for width in model.info.config.widths[1:]:
        filled[width] = ours.fill(frames_THWC, width)
        assert_close(filled[width], theirs.fill(frames_THWC, width))
        assert not filled[width][:, slim_channels(filled[width].shape[1], width, 8) :].any()
    fused_NF = ours.fuse(looked.features_ND, filled[0.5])
    assert_close(fused_NF, theirs.fuse(looked.features_ND, filled[0.5]))
    maxima_BTF = np.maximum.accumulate(fused_NF)[None]
    assert_close(ours.classify(maxima_BTF), theirs.classify(maxima_BTF))
    assert_close(ours.classify(maxima_BTF[:, 2:3], first=2), theirs.classify(maxima_BTF)[:, 2:3])


@pytest.mark.parametrize("num_frames", [4, 3])
def test_videos_are_concluded_in_one_call_as_they_are_step_by_step(
    dense: DenseBackend, tiny_model: Model, num_frames: int
) -> None:
    random = np.random.default_rng(0)
    both = [random.normal(size=(3, num_frames, 1280)).astype(np.float32) for _ in range(2)]
    logits_BTL = dense.conclude(*both)
    assert logits_BTL.shape == (3, num_frames, 3)
    assert_close(logits_BTL, TorchBackend(tiny_model).conclude(*both))


def test_the_gate_goes_on_from_a_state_and_decides_several_videos_at_once(
    dense: DenseBackend, tiny_model: Model
) -> None:
    embeddings_BTE = np.random.default_rng(0).normal(size=(3, 4, 16)).astype(np.float32)
    logits_BTK, state_BH = dense.decide(embeddings_BTE)
    assert_close(logits_BTK, TorchBackend(tiny_model).decide(embeddings_BTE)[0])
    first_BTK, middle_BH = dense.decide(embeddings_BTE[:, :2])
    rest_BTK, last_BH = dense.decide(embeddings_BTE[:, 2:], middle_BH)
    assert_close(np.concatenate((first_BTK, rest_BTK), axis=1), logits_BTK)
    assert_close(last_BH, state_BH)


@pytest.mark.parametrize("num_frames", [1, 3, BUCKETS[-1], BUCKETS[-1] + 5])
def test_a_batch_of_any_size_is_its_frames_whatever_it_is_padded_to_or_cut_into(
    dense: DenseBackend, tiny_model: Model, num_frames: int
) -> None:
    frames_NHWC = patterned_frames(num_frames, 2)
    filled_ND = dense.fill(frames_NHWC, 0.25)
    assert filled_ND.shape == (num_frames, 1280)
    assert_close(filled_ND, TorchBackend(tiny_model).fill(frames_NHWC, 0.25))


def test_a_batch_of_several_videos_frames_is_computed_where_they_are_held(
    dense: DenseBackend, tiny_model: Model
) -> None:
    config, clips = tiny_model.info.config, [patterned_frames(4, seed) for seed in range(3)]
    ours, theirs = dense.open_room(3), HostRoom(TorchBackend(tiny_model), config)
    answers = []
    for room in (ours, theirs):
        one, two, three = (room.hold(clip) for clip in clips)
        to_the_end(room.look, Picked([(three, (0, 3)), (one, (0, 1, 2, 3)), (three, (1, 2))], 11))
        to_the_end(room.fill, Picked([(one, (1,)), (three, (2, 0))], 4), 0.5)
        to_the_end(room.fill, Picked([(one, (3,))], 1), 1.0)
        whole = Gathered([three, one], 4, 2)
        answers.append((to_the_end(room.decide, whole), to_the_end(room.conclude, whole)))
        for video in (one, two, three):
            room.release(video)
    for our_logits, their_logits in zip(*answers, strict=True):
        assert_close(our_logits, their_logits)


@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_video_of_fewer_frames_is_answered_in_a_row_that_a_longer_one_left(
    dense: DenseBackend, tiny_model: Model, num_frames: int
) -> None:
    room, answers = dense.open_room(1), []
    for clip in (patterned_frames(4, 0), patterned_frames(num_frames, 1)):
        video, positions = room.hold(clip), range(len(clip))
        to_the_end(room.look, Picked([(video, positions)], len(clip)))
        to_the_end(room.fill, Picked([(video, positions[:1])], 1), 1.0)
        whole = Gathered([video], len(clip), 1)
        answers.append((to_the_end(room.decide, whole), to_the_end(room.conclude, whole)))
        if len(clip) == 4:
            to_the_end(room.fill, Picked([(video, positions)], 4), 0.25)  # which the next video must not find
        room.release(video)
    clip, backend = patterned_frames(num_frames, 1), TorchBackend(tiny_model)
    expected = backend.look(clip)
    supplements_TD = np.zeros((num_frames, 1280), dtype=np.float32)
    supplements_TD[:1] = backend.fill(clip[:1], 1.0)
    gate_logits, logits = answers[1]
    assert_close(gate_logits, backend.decide(expected.embeddings_NE[None])[0])
    assert_close(logits, backend.conclude(expected.features_ND[None], supplements_TD[None]))


def test_a_full_room_takes_a_video_in_when_another_left_or_says_that_it_is_full(dense: DenseBackend) -> None:
    room = dense.open_room(2)
    held = [room.hold(patterned_frames(4, seed)) for seed in range(2)]
    with pytest.raises(OverloadedError, match="no room for another video"):
        room.hold(patterned_frames(4, 2), 0.0)
    with ThreadPoolExecutor(1) as thread:
        third = thread.submit(room.hold, patterned_frames(4, 2))
        room.release(held.pop())
        assert third.result(60) is not None


@pytest.mark.parametrize("lam", [0.0, 0.5, 3.0])
def test_whole_videos_get_the_same_widths_and_logits(
    dense: DenseBackend, tiny_model: Model, lam: float
) -> None:
    macs_K = tiny_model.info.macs.dynamic_by_choice
    for seed in range(4):
        frames_THWC = patterned_frames(4, seed)
        composed = compose_video(dense, frames_THWC, lambda logits: choose_widths(logits, macs_K, lam))
        expected = compose(tiny_model, frames_THWC, lambda logits: choose_widths(logits, macs_K, lam))
        assert composed.plan == expected.plan
        assert composed.ledger == expected.ledger
        assert_close(composed.logits_TL, expected.logits_TL)


def test_streams_are_the_same_while_the_window_fills_and_slides(
    dense: DenseBackend, tiny_model: Model
) -> None:
    ours, theirs = (CausalStream(each, 0.5) for each in (dense, TorchBackend(tiny_model)))
    for frame_HWC in patterned_frames(9, 3):
        step, expected = ours.push(frame_HWC), theirs.push(frame_HWC)
        assert (step.width, step.ledger) == (expected.width, expected.ledger)
        assert_close(step.logits_L, expected.logits_L)


def test_the_scheduler_takes_the_backends_sizes_of_batches_and_counts_their_padding(
    dense: DenseBackend, tiny_model: Model
) -> None:
    metered, config = Metered(dense), tiny_model.info.config
    # No measured costs: by those, two small batches may be better than a padded one.
    scheduler = Scheduler(metered.meter(dense.open_room(3)), config, Limits(buckets=dense.buckets))
    answer = scheduler.submit(patterned_frames(4, 0), always(tiny_model, [0, 0, 0, 4])).result()
    executed = metered.executed()
    assert executed == answer.ledger.macs, "4 frames, 1 video and 1 frame are sizes that there are"
    three = scheduler.submit(patterned_frames(4, 0), always(tiny_model, [0, 1, 1, 1])).result().ledger
    assert three.width_counts[0.25] == 3
    padding = Counter({Part.DYNAMIC: tiny_model.info.macs.dynamic[0.25]})
    assert metered.executed() == executed + three.macs + padding
    scheduler.close()
    expected = compose(tiny_model, patterned_frames(4, 0), always(tiny_model, [0, 0, 0, 4]))
    assert_close(answer.logits_TL, expected.logits_TL)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5])
def test_what_the_backend_pads_by_itself_is_counted_as_torch_counts_it(
    dense: DenseBackend, tiny_model: Model, num_rows: int
) -> None:
    metered, config = Metered(dense), tiny_model.info.config
    embeddings_BTE = np.zeros((num_rows, 4, config.gate_features), dtype=np.float32)
    features_BTD = np.zeros((num_rows, 4, 1280), dtype=np.float32)
    with FlopCounterMode(display=False) as counter:
        metered.fill(patterned_frames(num_rows, 0), 0.25)
        metered.decide(embeddings_BTE)
        metered.conclude(features_BTD, features_BTD)
    assert counter.get_total_flops() == 2 * metered.executed().total()


def test_batches_over_the_largest_size_are_counted_piece_by_piece(
    dense: DenseBackend, tiny_model: Model
) -> None:
    metered = Metered(dense)
    metered.fill(np.zeros((BUCKETS[-1] + 5, 32, 32, 3), dtype=np.uint8), 0.25)
    assert metered.executed()[Part.DYNAMIC] == (BUCKETS[-1] + 8) * tiny_model.info.macs.dynamic[0.25]


@pytest.mark.parametrize(("precision", "likeness"), [("bf16", 0.95), ("fp16", 0.9995)])
def test_in_two_bytes_features_are_much_the_same_and_the_gate_stays_float32(
    tiny_model: Model, precision: Precision, likeness: float
) -> None:
    rough = DenseBackend(tiny_model, device="cpu", precision=precision)
    exact, frames_THWC = TorchBackend(tiny_model), patterned_frames(4, 1)
    for width in TINY_CONFIG.widths[1:]:
        filled_ND = rough.fill(frames_THWC, width)
        assert filled_ND.dtype == np.float32
        assert np.corrcoef(filled_ND.ravel(), exact.fill(frames_THWC, width).ravel())[0, 1] > likeness
    embeddings_BTE = exact.look(frames_THWC).embeddings_NE[None]
    assert_close(rough.decide(embeddings_BTE)[0], exact.decide(embeddings_BTE)[0])
    assert rough.provider.name == f"torch-cpu-{precision}"


def test_in_mixed_precision_what_decides_the_widths_is_float32s(tiny_model: Model) -> None:
    mixed, exact = DenseBackend(tiny_model, device="cpu", precision="mixed"), TorchBackend(tiny_model)
    frames_THWC = patterned_frames(4, 1)
    looked, expected = mixed.look(frames_THWC), exact.look(frames_THWC)
    assert_close(looked.features_ND, expected.features_ND)
    assert_close(looked.embeddings_NE, expected.embeddings_NE)
    half = DenseBackend(tiny_model, device="cpu", precision="fp16")
    for width in TINY_CONFIG.widths[1:]:
        np.testing.assert_array_equal(mixed.fill(frames_THWC, width), half.fill(frames_THWC, width))


def test_where_networks_run_no_sum_has_less_than_float32_and_nobody_else_is_told() -> None:
    matmul = torch.backends.cuda.matmul
    names = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction", "allow_tf32")
    before = [getattr(matmul, name) for name in names]
    with exact_float32():
        assert not any(getattr(matmul, name) for name in names)
    assert [getattr(matmul, name) for name in names] == before
    assert any(before), "torch's own defaults allow less"


def test_warming_up_captures_every_size_of_one_clip_of_both_networks(tiny_model: Model) -> None:
    looked, filled = set[int](), set[tuple[int, float]]()

    class Watched(DenseBackend):
        def look(self, frames_NHWC: UInt8Array) -> Looked:
            looked.add(len(frames_NHWC))
            return super().look(frames_NHWC)

        def fill(
            self, frames_NHWC: UInt8Array, width: float, before_N: Int64Array | None = None
        ) -> Float32Array:
            filled.add((len(frames_NHWC), width))
            return super().fill(frames_NHWC, width, before_N)

    backend = Watched(tiny_model, device="cpu", precision="fp32")
    with Recognizer(backend, DecoderPool(TINY_CONFIG.clip, num_workers=1)) as recognizer:
        recognizer.warm_up()
    assert looked == {1, 2, 4}
    assert filled == {(size, width) for size in looked for width in TINY_CONFIG.widths[1:]}


def test_compiled_kernels_are_refused_where_no_batch_has_their_size() -> None:
    check_compiled(BUCKETS, 129)  # is padded to it
    with pytest.raises(SettingsError, match="batches of 256 frames alone, and here at most 128"):
        check_compiled(BUCKETS, 128)
