"""How many processors a container really has."""

import os
from pathlib import Path

import pytest

from sdcom.processors import num_processors


@pytest.mark.parametrize("content", ["max 100000\n", "", "unreadable"])
def test_without_a_quota_all_processors_of_the_affinity_count(tmp_path: Path, content: str) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert num_processors(tmp_path / "cpu.max") == len(os.sched_getaffinity(0))
    assert num_processors(tmp_path / "absent") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("content", ["100000 100000\n", "50000 100000\n"])
def test_a_containers_quota_counts(tmp_path: Path, content: str) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert num_processors(tmp_path / "cpu.max") == 1
