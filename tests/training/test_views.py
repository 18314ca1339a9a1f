"""Views that networks remember: how far remembering them is shows."""

from collections.abc import Iterable, Iterator

from tests.conftest import TINY_CONFIG, lively_networks
from tests.training.conftest import batches_of, patterned_store
from training.data.tracking import ItemT, Track
from training.views import RememberedViews


def test_remembering_shows_every_clip_and_happens_once() -> None:
    shown: list[tuple[str, int]] = []

    def tracked(description: str) -> Track:
        def track(items: Iterable[ItemT], total: int) -> Iterator[ItemT]:
            for item in items:
                shown.append((description, total))
                yield item

        return track

    batches = batches_of(patterned_store(4), TINY_CONFIG.clip, stage=2, tracked=tracked)
    remembered = RememberedViews(lively_networks(TINY_CONFIG), batches, 1, "fp32")
    for epoch in range(2):
        next(remembered.draw(batches, epoch, 0, batches.chosen(epoch)))
    assert shown == 4 * [("remembering views of clips", 4)]
