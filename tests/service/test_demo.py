"""`make demo`, with a tiny model in the bundled one's place."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "service.demo"]


def run(model_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SDCOM_MODEL_DIR": str(model_dir)}
    return subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_demo_prints_label_widths_and_saving(tiny_model_dir: Path) -> None:
    ended = run(tiny_model_dir)
    assert ended.returncode == 0, ended.stderr
    first, *_ = ended.stdout.splitlines()
    assert first.split()[0] in {"clap", "jump", "wave"}
    assert "score 0." in first
    for word in ("width", "GFLOPs", "baseline", "saved", "decode"):
        assert word in ended.stdout


def test_a_demo_that_cannot_start_says_why(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert ended.returncode == 1
    assert "model.json is missing" in ended.stderr
