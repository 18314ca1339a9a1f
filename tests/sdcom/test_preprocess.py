"""From uint8 frames to what the networks see."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdcom.config import ClipConfig
from sdcom.preprocess import normalize, resize


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_each_channel_is_normalised_by_its_own_mean_and_deviation(red: int, green: int, blue: int) -> None:
    clip = ClipConfig()
    frames_NHWC = torch.tensor([red, green, blue], dtype=torch.uint8).expand(2, 3, 4, 3)
    expected_C = (np.array([red, green, blue]) / 255 - np.array(clip.mean)) / np.array(clip.std)
    normalized_NCHW = normalize(frames_NHWC, clip)
    assert normalized_NCHW.shape == (2, 3, 3, 4)
    assert normalized_NCHW.dtype == torch.float32
    np.testing.assert_allclose(normalized_NCHW[1, :, 2, 3].numpy(), expected_C, atol=1e-5)


def test_pixels_stay_where_they_are() -> None:
    frames_NHWC = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    clip = ClipConfig(mean=(0, 0, 0), std=(1, 1, 1))
    back_NHWC = (normalize(frames_NHWC, clip) * 255).round().permute(0, 2, 3, 1)
    assert torch.equal(back_NHWC.to(torch.uint8), frames_NHWC)


def test_normalised_frames_are_channels_last_as_convolutions_prefer() -> None:
    frames_NCHW = normalize(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), ClipConfig())
    assert frames_NCHW.is_contiguous(memory_format=torch.channels_last)


def test_whole_numbers_and_fractions_are_treated_alike() -> None:
    frames_NHWC = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    assert torch.equal(normalize(frames_NHWC, ClipConfig()), normalize(frames_NHWC.double(), ClipConfig()))


def test_frames_of_the_right_size_are_not_touched() -> None:
    frames_NCHW = torch.randn(2, 3, 32, 32)
    assert resize(frames_NCHW, 32) is frames_NCHW


def test_shrinking_averages_instead_of_dropping_pixels() -> None:
    stripes_NCHW = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    shrunk_NCHW = resize(stripes_NCHW, 16)
    assert shrunk_NCHW.shape == (1, 3, 16, 16)
    torch.testing.assert_close(shrunk_NCHW[..., 2:-2], torch.full((1, 3, 16, 12), 0.5), rtol=0, atol=0.02)
