"""The renderer: the same seed gives the same clips, actions move, files decode, the split is clean."""

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest

from sdcom.errors import UnknownNameError
from training.rendered import ACTIONS, generate, render_clip, write_clip
from training.rendered.clip import draw_interruption
from training.rendered.figure import joints
from training.rendered.style import Style


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_the_same_seed_gives_the_same_frames(action: str) -> None:
    first, again, other = (
        render_clip(action, np.random.default_rng(seed), num_frames=4, width=96, height=64)
        for seed in (7, 7, 8)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_every_action_moves_the_figure(action: str) -> None:
    style = Style.draw(np.random.default_rng(0))
    performed = [joints(ACTIONS[action].pose(phase, style)) for phase in np.linspace(0, 1, 13)]
    places_PJ3 = np.stack([np.stack(list(placed.values())) for placed in performed])
    assert np.ptp(places_PJ3, axis=0).max() > 0.1
    assert np.linalg.norm(np.diff(places_PJ3, axis=0), axis=-1).max() < 1.2


def test_the_movement_is_in_the_frames() -> None:
    frames = render_clip(
        "walk", np.random.default_rng(3), num_frames=10, width=160, height=120, interrupted=0
    )
    changed = (np.abs(frames[0].astype(int) - frames[-1].astype(int)).max(axis=-1) > 40).mean()
    assert changed > 0.01


def test_a_walking_foot_does_not_slide_on_the_ground() -> None:
    style = Style.draw(np.random.default_rng(1))
    landed = [joints(ACTIONS["walk"].pose(phase, style))["left_ankle"] for phase in np.linspace(0.02, 0.5, 6)]
    assert np.ptp(np.stack(landed), axis=0).max() < 0.02


def test_limbs_keep_their_length_whatever_the_hand_reaches_for() -> None:
    style = Style.draw(np.random.default_rng(2))
    for action in ACTIONS.values():
        for phase in np.linspace(0, 1, 9):
            placed = joints(action.pose(phase, style))
            upper_arm = np.linalg.norm(placed["left_elbow"] - placed["left_shoulder"])
            shin = np.linalg.norm(placed["right_ankle"] - placed["right_knee"])
            assert upper_arm == pytest.approx(0.30, abs=1e-6)
            assert shin == pytest.approx(0.45, abs=1e-6)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (97, 65)])
def test_a_written_clip_decodes_to_what_was_rendered(tmp_path: Path, width: int, height: int) -> None:
    frames = render_clip("wave", np.random.default_rng(5), num_frames=9, width=width, height=height)
    write_clip(tmp_path / "clip.mp4", frames)
    decoded = np.stack(_decoded(tmp_path / "clip.mp4"))
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames.astype(int)).mean() < 6


def test_the_number_of_processes_does_not_change_the_set(tmp_path: Path) -> None:
    for processes, folder in ((1, "one"), (2, "two")):
        generate(tmp_path / folder, clips_per_action=4, seed=11, actions=["wave"], num_processes=processes)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")


def test_an_action_has_the_same_clips_whichever_others_are_rendered(tmp_path: Path) -> None:
    generate(tmp_path / "alone", clips_per_action=1, seed=4, actions=["run"], num_processes=1)
    generate(tmp_path / "both", clips_per_action=1, seed=4, actions=["clap", "run"], num_processes=1)
    assert _digests(tmp_path / "alone" / "run") == _digests(tmp_path / "both" / "run")


def test_no_scene_is_on_both_sides_of_the_split(tmp_path: Path) -> None:
    rows = generate(tmp_path, clips_per_action=7, seed=2, actions=["jump"], num_processes=1)
    lines = (tmp_path / "splits.tsv").read_text().splitlines()
    assert lines == ["file\tlabel\tgroup\tsplit"] + [
        f"{r.file}\t{r.label}\t{r.group}\t{r.split}" for r in rows
    ]
    assert len({(row.group, row.split) for row in rows}) == len({row.group for row in rows})
    assert {row.split for row in rows} == {"train", "test"}
    for row in rows:
        assert 20 <= len(_decoded(tmp_path / row.file)) <= 40
        assert (tmp_path / row.file).stat().st_size < 150_000


def test_a_share_of_the_clips_has_uninformative_frames_but_never_more_than_half() -> None:
    rng = np.random.default_rng(0)
    spans = [draw_interruption(rng, 30, 0.4) for _ in range(400)]
    drawn = [span for span in spans if span]
    assert 0.3 < len(drawn) / len(spans) < 0.5
    assert {span.kind for span in drawn} == {"dark", "blurred", "cutaway"}
    assert all(0 <= span.start < span.stop <= 30 and span.stop - span.start <= 15 for span in drawn)


def test_a_misspelt_action_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="'walk'"):
        render_clip("walks", np.random.default_rng(0), num_frames=2)


@pytest.mark.parametrize("sizes", [{"num_frames": 0}, {"num_frames": 1, "width": 8}])
def test_impossible_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        render_clip("walk", np.random.default_rng(0), **sizes)  # type: ignore[arg-type]  # ints, by keyword


@pytest.mark.shared
def test_the_labels_are_those_of_the_real_clips(shared_dir: Path) -> None:
    assert sorted(ACTIONS) == sorted(
        path.name for path in (shared_dir / "data" / "jhmdb").iterdir() if path.is_dir()
    )


def test_the_bundled_sample_is_what_its_command_makes() -> None:
    bundled = Path(__file__).resolve().parents[2] / "sdcom" / "bundled" / "sample.mp4"
    rendered = render_clip("shoot_bow", np.random.default_rng(3), num_frames=45, interrupted=0)
    decoded = np.stack(_decoded(bundled))
    assert decoded.shape == rendered.shape
    assert np.abs(decoded.astype(int) - rendered.astype(int)).mean() < 8
    assert bundled.stat().st_size < 120_000
