"""The simulated GPU runs; what it measures is a command's business, not a test's."""

import re
import subprocess
import sys

from tests.conftest import REPOSITORY


def test_it_prints_the_schedulers_share() -> None:
    program = [sys.executable, "-m", "tests.load.simulated_gpu"]
    options = ["--videos", "32", "--turns", "1", "--rounds", "1", "--look-us", "4.2"]
    done = subprocess.run([*program, *options], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"videos/s, \d+% of direct, \d+ us of processor", " ".join(done.stdout.split()))
