"""Batches: seeded, in feeding order, inside the frame, and decoded as serving decodes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sdcom.config import ClipConfig
from sdcom.preprocess import normalize
from sdcom.sampling import coarse_to_fine_order
from sdcom.video import DecoderPool
from tests.training.conftest import TensorStore, batches_of, patterned_store
from training.batches import Augmentation, Batch, Batches, _multi_scale_crop, evaluation_clip
from training.data import Clip
from training.data.sources import ClipSource, ClipStore
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


def _labels(batch: Batch) -> list[int]:
    return batch.targets_BL.argmax(dim=1).tolist()


def _epoch_labels(batches: Batches, epoch: int) -> list[int]:
    return [label for batch in batches.epoch(epoch) for label in _labels(batch)]


def _of(source: ClipSource, augmentation: Augmentation, batch_size: int, **options: Any) -> Batches:
    """Return batches with a label for every clip."""
    every = {"num_labels": len(source.clips), "batch_size": batch_size}
    return batches_of(source, CLIP, augmentation, **(every | options))


def test_the_same_key_gives_the_same_batches_and_another_seed_stage_or_epoch_others() -> None:
    augmentation = Augmentation(brightness=0.2, contrast=0.2, time_order_share=0.5)
    batches = _of(patterned_store(6), augmentation, 3, seed=1)
    epochs = list(batches.epoch(2))
    for first, second in zip(epochs, batches.epoch(2), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    others = [replace(batches, seed=2).epoch(2), replace(batches, stage=2).epoch(2), batches.epoch(3)]
    for other in others:
        assert not torch.equal(epochs[0].frames_BTCHW, next(other).frames_BTCHW)


def test_a_step_is_drawn_without_those_before_it() -> None:
    batches = _of(patterned_store(12), Augmentation(brightness=0.2, time_order_share=0.5), 3)
    whole = list(batches.epoch(1))
    assert len(whole) == batches.steps_per_epoch == 4
    for start_step in range(5):
        for one, other in zip(batches.epoch(1, start_step), whole[start_step:], strict=True):
            assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_processes_slices_are_the_batch_of_one() -> None:
    whole = _of(patterned_store(12), Augmentation(contrast=0.2, time_order_share=0.5), 6)
    slices = [replace(whole, rank=rank, world_size=3).epoch(4) for rank in range(3)]
    for batch, *parts in zip(whole.epoch(4), *slices, strict=True):
        for field, of_parts in zip(batch, zip(*parts, strict=True), strict=True):
            assert torch.equal(field, torch.cat(of_parts))


def test_a_batch_that_cannot_be_divided_evenly_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 4 cannot be divided evenly among 3 processes"):
        _of(patterned_store(4), PLAIN, 4, world_size=3)
    with pytest.raises(ValueError, match="rank 2 is not one of 2 processes"):
        _of(patterned_store(4), PLAIN, 4, rank=2, world_size=2)


def test_a_view_is_the_one_that_the_batch_shows() -> None:
    batches = _of(patterned_store(8), Augmentation(brightness=0.2, time_order_share=0.5), 4)
    for step, batch in enumerate(batches.epoch(0)):
        order_T = batches.feeding_order(0, step)
        assert batch.clip_indices_B.tolist() == batches.chosen(0)[step]
        for row, clip_index in enumerate(batch.clip_indices_B.tolist()):
            view = batches.view(0, clip_index, order_T)
            assert torch.equal(normalize(view.frames_THWC, CLIP), batch.frames_BTCHW[row])
            assert torch.equal(view.target_L, batch.targets_BL[row])


@pytest.mark.parametrize(("share", "order"), [(0.0, [1, 0, 3, 2]), (1.0, [0, 1, 2, 3])])
def test_a_batch_is_in_feeding_order_one_frame_of_each_segment(share: float, order: list[int]) -> None:
    augmentation = Augmentation(flip=False, time_order_share=share)
    drawn = [_frame_numbers(batch) for batch in _of(_counting_store(8), augmentation, 4).epoch(0)]
    numbers_BT = torch.cat(drawn)
    segments_BT = numbers_BT // 10
    assert segments_BT.tolist() == [order] * 8
    assert len(numbers_BT.unique()) > 8, "the frame of a segment is random"


def test_both_orders_come_up_and_a_batch_has_one_of_them() -> None:
    augmentation = Augmentation(flip=False, time_order_share=0.5)
    orders = set()
    for batch in _of(_counting_store(60), augmentation, 3).epoch(0):
        of_batch = {tuple(row) for row in (_frame_numbers(batch) // 10).tolist()}
        assert len(of_batch) == 1
        orders |= of_batch
    assert orders == {(0, 1, 2, 3), tuple(coarse_to_fine_order(4).tolist())}


def test_an_epoch_shows_every_clip_at_most_once_in_full_batches_and_a_new_order() -> None:
    batches = _of(_counting_store(10), PLAIN, 4)
    epochs = [_epoch_labels(batches, epoch) for epoch in range(2)]
    for labels in epochs:
        assert len(labels) == len(set(labels)) == 8
    assert epochs[0] != epochs[1]


def test_labels_stay_with_their_clips() -> None:
    clips = [torch.full((5, 72, 80, 3), 20 * index, dtype=torch.uint8) for index in range(9)]
    for batch in _of(TensorStore(clips, range(9)), PLAIN, 3).epoch(0):
        shown_B = _pixels(batch)[:, 0, 0, 0, 0].round().int()
        assert shown_B.tolist() == [20 * label for label in _labels(batch)]
        assert _labels(batch) == batch.clip_indices_B.tolist()


def test_one_of_several_labels_is_drawn_anew_each_epoch_or_all_have_equal_shares() -> None:
    several = patterned_store(2).frames_NHWC
    batches = _of(TensorStore(several, [(0, 2, 3), (1,)]), PLAIN, 2, num_labels=4)
    drawn = [next(batches.epoch(epoch)) for epoch in range(20)]
    of_first = [batch.targets_BL[batch.clip_indices_B == 0][0].tolist() for batch in drawn]
    assert all(sorted(target) == [0, 0, 0, 1] for target in of_first)
    assert {target.index(1) for target in of_first} == {0, 2, 3}
    shared = next(replace(batches, several_labels="share").epoch(0))
    third = pytest.approx(1 / 3)
    expected = {0: [third, 0, third, third], 1: [0, 1, 0, 0]}
    for clip_index, target in zip(shared.clip_indices_B.tolist(), shared.targets_BL.tolist(), strict=True):
        assert target == expected[clip_index]


def _ramps(num_clips: int, labels: Sequence[int]) -> TensorStore:
    """Clips that are brighter to the right."""
    ramp_W = torch.arange(96, dtype=torch.uint8)
    return TensorStore([ramp_W[None, None, :, None].expand(6, 72, 96, 3)] * num_clips, labels)


def test_about_half_of_the_clips_are_mirrored_each_as_a_whole() -> None:
    for flip, expected in ((True, range(8, 33)), (False, range(1))):
        batches = _of(_ramps(40, [0] * 40), Augmentation(flip=flip), 20).epoch(0)
        pixels_BTCHW = torch.cat([_pixels(batch) for batch in batches])
        mirrored_BT = pixels_BTCHW[:, :, 0, 0, 0] > pixels_BTCHW[:, :, 0, 0, -1]
        assert (mirrored_BT == mirrored_BT[:, :1]).all()
        assert int(mirrored_BT[:, 0].sum()) in expected


def test_a_mirrored_clip_has_the_label_of_its_mirror_image() -> None:
    labels = [index % 3 for index in range(30)]
    batches = _of(_ramps(30, labels), Augmentation(), 30, num_labels=3, mirrored=(1, 0, 2))
    (batch,) = batches.epoch(0)
    pixels_BTCHW = _pixels(batch)
    mirrored_B = (pixels_BTCHW[:, 0, 0, 0, 0] > pixels_BTCHW[:, 0, 0, 0, -1]).tolist()
    true = [labels[index] for index in batch.clip_indices_B.tolist()]
    assert _labels(batch) == [
        (1, 0, 2)[label] if flip else label for label, flip in zip(true, mirrored_B, strict=True)
    ]
    assert _labels(batch) != true


def test_brightness_changes_a_clip_as_a_whole_and_within_its_bounds() -> None:
    store = TensorStore([torch.full((6, 72, 96, 3), 100, dtype=torch.uint8)] * 30, [0] * 30)
    (batch,) = _of(store, Augmentation(flip=False, brightness=0.2, contrast=0.5), 30).epoch(0)
    pixels_BTCHW = _pixels(batch)
    levels_B = pixels_BTCHW[:, 0, 0, 0, 0]
    torch.testing.assert_close(pixels_BTCHW, levels_B[:, None, None, None, None].expand_as(pixels_BTCHW))
    assert 80 <= levels_B.min() < 90
    assert 110 < levels_B.max() <= 120


def test_contrast_spreads_a_clip_about_its_own_mean() -> None:
    stripes_W = torch.tensor(([60] * 16 + [140] * 16) * 3, dtype=torch.uint8)
    store = TensorStore([stripes_W[None, :, None, None].expand(3, 96, 72, 3)] * 20, [0] * 20)
    (batch,) = _of(store, Augmentation(flip=False, contrast=0.5), 20).epoch(0)
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
    store = ClipStore([Clip(path, (0,), "film")], CLIP.short_side)
    with DecoderPool(CLIP, num_workers=1) as pool:
        served_THWC = pool.decode(path).frames_THWC
    trained_THWC = evaluation_clip(store, 0, CLIP).numpy()
    np.testing.assert_array_equal(trained_THWC, served_THWC[coarse_to_fine_order(4)])
