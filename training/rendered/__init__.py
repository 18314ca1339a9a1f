"""Articulated figures that perform everyday actions: generated video for tests, load and a first training.

Data flows `figure` (joints of a pose) and the movements (`locomotion`, `gestures`, `sports`, collected in
`actions`), `body` and `backgrounds`, `scene`, `clip` (frames), `dataset` (files).
"""

from training.rendered.actions import ACTIONS
from training.rendered.clip import FRAMES_PER_SECOND, render_clip
from training.rendered.dataset import ManifestRow, generate, write_clip

__all__ = ["ACTIONS", "FRAMES_PER_SECOND", "ManifestRow", "generate", "render_clip", "write_clip"]
