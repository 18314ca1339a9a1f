"""How many processors a container really has, and what its GPU is called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sdcom.processors import gpu_name, num_processors, sums_bytes_in_16_bits


@pytest.mark.parametrize("content", ["max 100000\n", "", "unreadable"])
def test_without_a_quota_all_processors_of_the_affinity_count(tmp_path: Path, content: str) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert num_processors(tmp_path / "cpu.max") == len(os.sched_getaffinity(0))
    assert num_processors(tmp_path / "absent") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("content", ["100000 100000\n", "50000 100000\n"])
def test_a_containers_quota_counts(tmp_path: Path, content: str) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert num_processors(tmp_path / "cpu.max") == 1


@pytest.mark.parametrize(
    ("flags", "overflow"),
    [
        ("flags\t\t: fpu avx avx2 avx512f", True),
        ("flags\t\t: fpu avx2 avx512_vnni", False),
        ("flags\t\t: fpu avx2 avx_vnni", False),
        ("Features\t: fp asimd asimddp", False),
    ],
)
def test_without_vnni_sums_of_bytes_may_overflow(tmp_path: Path, flags: str, overflow: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\nbugs\t\t: avx_vnni\n")
    assert sums_bytes_in_16_bits(tmp_path / "cpuinfo") is overflow
    assert not sums_bytes_in_16_bits(tmp_path / "absent")


def test_without_a_driver_no_gpu_has_a_name(tmp_path: Path) -> None:
    assert gpu_name(str(tmp_path / "libcuda.so.1")) == ""


DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return flags == 0 ? STATUS : 1; }
int cuDeviceGet(int *device, int ordinal) { *device = 7 + ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device == 7 ? "NVIDIA Test" : "another", length);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, to build a driver")
@pytest.mark.parametrize(("status", "name"), [(0, "NVIDIA Test"), (100, "")])
def test_the_driver_is_asked_for_the_first_gpus_name(tmp_path: Path, status: int, name: str) -> None:
    source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
    source.write_text(DRIVER)
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-DSTATUS={status}", "-o", str(library), str(source)], check=True
    )
    assert gpu_name(str(library)) == name
