"""Batches: seeded, in feeding order, inside the frame, and decoded as serving decodes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sdcom.config import ClipConfig
from sdcom.sampling import coarse_to_fine_order
from sdcom.video import DecoderPool
from tests.training.conftest import TensorStore, patterned_store
from training.batches import (
    Augmentation,
    Batch,
    ClipStore,
    _multi_scale_crop,
    evaluation_clip,
    training_batches,
)
from training.data import Clip
from training.rendered import render_clip, write_clip

SCALES = Augmentation().scales
CLIP = ClipConfig(num_frames=4, short_side=72, crop=64)
PLAIN = Augmentation(flip=False)
STEP = 5
"""Brightness that a frame of `_counting_store` has over the one before it."""


def _counting_store(num_clips: int, num_frames: int = 40) -> TensorStore:
    """Clips whose frames are plain grey, 5 brighter each, the clip's number in the label."""
    frames_N = torch.arange(num_frames, dtype=torch.uint8) * STEP
    frames_NHWC = frames_N[:, None, None, None].expand(num_frames, 72, 96, 3)
    return TensorStore([frames_NHWC] * num_clips, range(num_clips))


def _pixels(batch: Batch) -> Tensor:
    """Undo the normalisation: [B, T, 3, crop, crop] in [0, 255]."""
    mean_C, std_C = (torch.tensor(values)[:, None, None] for values in (CLIP.mean, CLIP.std))
    return (batch.frames_BTCHW * std_C + mean_C) * 255


def _frame_numbers(batch: Batch) -> Tensor:
    return (_pixels(batch)[:, :, 0, 0, 0] / STEP).round().int()


def test_the_same_seed_gives_the_same_batches_and_another_seed_others() -> None:
    store = patterned_store(6)
    augmentation = Augmentation(brightness=0.2, contrast=0.2, time_order_share=0.5)
    one, again, other = (
        list(training_batches(store, CLIP, augmentation, 3, np.random.default_rng(seed)))
        for seed in (1, 1, 2)
    )
    for first, second in zip(one, again, strict=True):
        assert torch.equal(first.frames_BTCHW, second.frames_BTCHW)
        assert torch.equal(first.labels_B, second.labels_B)
    assert not torch.equal(one[0].frames_BTCHW, other[0].frames_BTCHW)


@pytest.mark.parametrize(("share", "order"), [(0.0, [1, 0, 3, 2]), (1.0, [0, 1, 2, 3])])
def test_a_batch_is_in_feeding_order_one_frame_of_each_segment(share: float, order: list[int]) -> None:
    augmentation = Augmentation(flip=False, time_order_share=share)
    rng = np.random.default_rng(0)
    drawn = [
        _frame_numbers(batch) for batch in training_batches(_counting_store(8), CLIP, augmentation, 4, rng)
    ]
    numbers_BT = torch.cat(drawn)
    segments_BT = numbers_BT // 10
    assert segments_BT.tolist() == [order] * 8
    assert len(numbers_BT.unique()) > 8, "the frame of a segment is random"


def test_both_orders_come_up_and_a_batch_has_one_of_them() -> None:
    augmentation = Augmentation(flip=False, time_order_share=0.5)
    batches = training_batches(_counting_store(60), CLIP, augmentation, 3, np.random.default_rng(0))
    orders = set()
    for batch in batches:
        of_batch = {tuple(row) for row in (_frame_numbers(batch) // 10).tolist()}
        assert len(of_batch) == 1
        orders |= of_batch
    assert orders == {(0, 1, 2, 3), tuple(coarse_to_fine_order(4).tolist())}


def test_an_epoch_shows_every_clip_at_most_once_in_full_batches_and_a_new_order() -> None:
    rng, store = np.random.default_rng(0), _counting_store(10)
    epochs = [
        torch.cat([batch.labels_B for batch in training_batches(store, CLIP, PLAIN, 4, rng)]).tolist()
        for _ in range(2)
    ]
    for labels in epochs:
        assert len(labels) == len(set(labels)) == 8
    assert epochs[0] != epochs[1]


def test_labels_stay_with_their_clips() -> None:
    clips = [torch.full((5, 72, 80, 3), 20 * index, dtype=torch.uint8) for index in range(9)]
    store = TensorStore(clips, range(9))
    for batch in training_batches(store, CLIP, PLAIN, 3, np.random.default_rng(0)):
        torch.testing.assert_close(_pixels(batch)[:, 0, 0, 0, 0].round().int(), batch.labels_B.int() * 20)


def test_about_half_of_the_clips_are_mirrored_each_as_a_whole() -> None:
    ramp_W = torch.arange(96, dtype=torch.uint8)
    store = TensorStore([ramp_W[None, None, :, None].expand(6, 72, 96, 3)] * 40, [0] * 40)
    for flip, expected in ((True, range(8, 33)), (False, range(1))):
        batches = training_batches(store, CLIP, Augmentation(flip=flip), 20, np.random.default_rng(0))
        pixels_BTCHW = torch.cat([_pixels(batch) for batch in batches])
        mirrored_BT = pixels_BTCHW[:, :, 0, 0, 0] > pixels_BTCHW[:, :, 0, 0, -1]
        assert (mirrored_BT == mirrored_BT[:, :1]).all()
        assert int(mirrored_BT[:, 0].sum()) in expected


def test_brightness_changes_a_clip_as_a_whole_and_within_its_bounds() -> None:
    store = TensorStore([torch.full((6, 72, 96, 3), 100, dtype=torch.uint8)] * 30, [0] * 30)
    augmentation = Augmentation(flip=False, brightness=0.2, contrast=0.5)
    (batch,) = training_batches(store, CLIP, augmentation, 30, np.random.default_rng(0))
    pixels_BTCHW = _pixels(batch)
    levels_B = pixels_BTCHW[:, 0, 0, 0, 0]
    torch.testing.assert_close(pixels_BTCHW, levels_B[:, None, None, None, None].expand_as(pixels_BTCHW))
    assert 80 <= levels_B.min() < 90
    assert 110 < levels_B.max() <= 120


def test_contrast_spreads_a_clip_about_its_own_mean() -> None:
    stripes_W = torch.tensor(([60] * 16 + [140] * 16) * 3, dtype=torch.uint8)
    store = TensorStore([stripes_W[None, :, None, None].expand(3, 96, 72, 3)] * 20, [0] * 20)
    (batch,) = training_batches(
        store, CLIP, Augmentation(flip=False, contrast=0.5), 20, np.random.default_rng(0)
    )
    pixels_BTCHW = _pixels(batch)
    spreads_B = (pixels_BTCHW.amax((1, 2, 3, 4)) - pixels_BTCHW.amin((1, 2, 3, 4))) / 80
    assert 0.49 < spreads_B.min() < 0.7
    assert 1.3 < spreads_B.max() < 1.51


@given(st.integers(32, 300), st.integers(32, 300), st.integers(0, 2**32))
def test_a_multi_scale_crop_is_inside_the_frame_its_scales_within_a_step(
    height: int, width: int, seed: int
) -> None:
    top, left, crop_height, crop_width = _multi_scale_crop(height, width, SCALES, np.random.default_rng(seed))
    assert 0 <= top <= top + crop_height <= height
    assert 0 <= left <= left + crop_width <= width
    sides = [int(min(height, width) * scale) for scale in SCALES]
    steps = [[step for step, side in enumerate(sides) if side == crop] for crop in (crop_height, crop_width)]
    assert min(abs(row - column) for row in steps[0] for column in steps[1]) <= 1


def test_all_scales_and_both_aspects_come_up() -> None:
    rng = np.random.default_rng(0)
    crops = {_multi_scale_crop(240, 320, SCALES, rng)[2:] for _ in range(500)}
    sides = [int(240 * scale) for scale in SCALES]
    assert crops == {
        (high, wide) for i, high in enumerate(sides) for j, wide in enumerate(sides) if abs(i - j) <= 1
    }


@pytest.mark.parametrize(("width", "height", "num_frames"), [(160, 120, 30), (97, 131, 7), (90, 64, 3)])
def test_evaluation_sees_the_very_pixels_that_serving_sees(
    tmp_path: Path, width: int, height: int, num_frames: int
) -> None:
    path = tmp_path / "clip.mp4"
    rng = np.random.default_rng(0)
    write_clip(path, render_clip("jump", rng, num_frames=num_frames, width=width, height=height))
    store = ClipStore([Clip(path, 0, "film")], CLIP.short_side)
    with DecoderPool(CLIP, num_workers=1) as pool:
        served_THWC = pool.decode(path).frames_THWC
    trained_THWC = evaluation_clip(store.frames_NHWC[0], CLIP).numpy()
    np.testing.assert_array_equal(trained_THWC, served_THWC[coarse_to_fine_order(4)])
