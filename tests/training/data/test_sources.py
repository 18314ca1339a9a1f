"""Sources: the very frames wanted, the same from a video, a folder and a shard, from any thread."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sdcom.config import ClipConfig
from tests.sdcom.video.videos import encode, paint, read_number
from tests.training.conftest import batches_of
from tests.training.data.conftest import NUM_FRAMES, WriteVideo
from training.batches import Augmentation
from training.data import Clip, DataError, Split
from training.data.media import open_media
from training.data.packing import Packing, pack
from training.data.shards import read_packed
from training.data.sources import ClipStore, StreamedClips

SHORT_SIDE = 72
CLIP = ClipConfig(num_frames=4, short_side=SHORT_SIDE, crop=64)


def _frame_folder(folder: Path, num_frames: int = NUM_FRAMES) -> Path:
    """Write numbered frames whose names sort wrongly as text: img_9 after img_10."""
    folder.mkdir(parents=True)
    for number in range(num_frames):
        image = cv2.cvtColor(paint(number, 160, 120), cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(folder / f"img_{number + 1}.jpg"), image)
    return folder


def _packed(clip: Path, out: Path, **options: int) -> Path:
    pack(
        Split(("a",), (Clip(clip, (0,), "g"),), ()),
        out,
        Packing(**options),
        num_threads=1,
        track=lambda items, _total: items,
    )
    return read_packed(out).train[0].path


@pytest.fixture(params=["video", "folder", "shard"])
def numbered_clip(request: pytest.FixtureRequest, tmp_path: Path, write_video: WriteVideo) -> Path:
    if request.param == "folder":
        return _frame_folder(tmp_path / "frames")
    video = write_video(tmp_path / "clip.mp4")
    return video if request.param == "video" else _packed(video, tmp_path / "packed", short_side=96)


def _numbers(frames_THWC: np.ndarray) -> list[int]:
    return [read_number(frame_HWC, SHORT_SIDE) for frame_HWC in frames_THWC]


def test_the_very_frames_asked_for_are_read_repeats_included(numbered_clip: Path) -> None:
    media = open_media(numbered_clip)
    assert media.num_frames == NUM_FRAMES
    for wanted in ([0], [3, 3, 11, 19], list(range(NUM_FRAMES)), [18, 19]):
        frames_THWC = media.read(np.array(wanted), SHORT_SIDE)
        assert frames_THWC.dtype == np.uint8
        assert frames_THWC.shape == (len(wanted), SHORT_SIDE, 96, 3)
        assert _numbers(frames_THWC) == wanted


def test_one_clip_is_read_by_many_threads_at_once(numbered_clip: Path) -> None:
    media = open_media(numbered_clip)
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(lambda n: media.read(np.array([n]), SHORT_SIDE), range(NUM_FRAMES)))
    assert [_numbers(frames)[0] for frames in read] == list(range(NUM_FRAMES))


def test_streamed_batches_are_those_of_clips_in_memory(tmp_path: Path, write_video: WriteVideo) -> None:
    clips = [Clip(write_video(tmp_path / f"{i}.mp4"), (i % 3,), f"g{i}") for i in range(6)]
    augmentation = Augmentation(brightness=0.2, time_order_share=0.5)
    sources = ClipStore(clips, SHORT_SIDE), StreamedClips(clips, SHORT_SIDE, num_readers=2)
    stored, streamed = (batches_of(source, CLIP, augmentation, batch_size=2) for source in sources)
    for one, other in zip(stored.epoch(1), streamed.epoch(1), strict=True):
        assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_a_frame_folder_keeps_colours(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    assert cv2.imwrite(str(folder / "1.png"), np.full((80, 80, 3), (10, 20, 200), dtype=np.uint8))  # BGR
    assert open_media(folder).read(np.array([0]), SHORT_SIDE)[0, 40, 40].tolist() == [200, 20, 10]


def test_long_frames_are_cut_as_serving_cuts_them(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    assert cv2.imwrite(str(folder / "1.png"), np.zeros((72, 1000, 3), dtype=np.uint8))
    assert open_media(folder).read(np.array([0]), SHORT_SIDE).shape == (1, 72, 288, 3)


def test_clips_that_cannot_be_read_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(encode(num_frames=5)[:600])
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("text.mp4", r"text\.mp4: "),
        ("cut.mp4", r"cut\.mp4: "),
        ("gone.mp4", r"gone\.mp4 is missing: a video or a folder of frames was expected there"),
        ("empty", r"empty holds no frames; images \(\.jpeg, \.jpg, \.png\) were expected"),
        ("shard-000000.tar/00000001", r"shard-000000\.jsonl is missing"),
    ):
        with pytest.raises(DataError, match=message):
            ClipStore([Clip(tmp_path / name, (0,), "g")], SHORT_SIDE)
        with pytest.raises(DataError, match=message):
            StreamedClips([Clip(tmp_path / name, (0,), "g")], SHORT_SIDE, num_readers=1).num_frames(0)


def test_a_broken_image_and_images_of_two_shapes_are_named(tmp_path: Path) -> None:
    broken, mixed = _frame_folder(tmp_path / "broken", 3), _frame_folder(tmp_path / "mixed", 2)
    (broken / "img_2.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"broken/img_2\.jpg \(0 bytes\) is not an image"):
        open_media(broken).read(np.arange(3), SHORT_SIDE)
    assert cv2.imwrite(str(mixed / "img_3.jpg"), np.zeros((90, 90, 3), dtype=np.uint8))
    with pytest.raises(
        DataError, match=r"different shapes \(96x72, 72x72\)|different shapes \(72x72, 96x72\)"
    ):
        open_media(mixed).read(np.arange(3), SHORT_SIDE)
