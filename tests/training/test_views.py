"""Views that networks remember: how far remembering them is shows."""

from collections.abc import Iterable, Iterator

import pytest
from torch import Tensor

from sdcom.models.composition import StaticView
from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import batches_of, patterned_store
from training.data.tracking import ItemT, Track
from training.views import RememberedViews


def test_remembering_shows_every_clip_and_happens_once_a_clip_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[tuple[str, int]] = []

    def tracked(description: str) -> Track:
        def track(items: Iterable[ItemT], total: int) -> Iterator[ItemT]:
            for item in items:
                shown.append((description, total))
                yield item

        return track

    batches = batches_of(patterned_store(4), TINY_CONFIG.clip, stage=2, tracked=tracked)
    networks, num_looked_at = lively_networks(TINY_CONFIG), list[int]()
    look = networks.look

    def watched(frames_NCHW: Tensor) -> StaticView:
        num_looked_at.append(len(frames_NCHW))
        return look(frames_NCHW)

    monkeypatch.setattr(networks, "look", watched)
    remembered = RememberedViews(networks, batches, 3, "fp32")
    for epoch in range(2):
        next(remembered.draw(batches, epoch, 0, batches.chosen(epoch)))
    assert shown == 4 * [("remembering views of clips", 4)]
    assert num_looked_at == 4 * [3 * TINY_CONFIG.clip.num_frames]  # what a GPU needs memory for at once
