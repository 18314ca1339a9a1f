"""How many processors this process may use, and of which kind."""

import ctypes
import math
import os
import platform
from pathlib import Path

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_PROCESSORS = Path("/proc/cpuinfo")


def num_processors(quota_file: Path = _CPU_QUOTA) -> int:
    """Return the processors that this process may keep busy, at least 1.

    A container often has fewer than its host: by affinity (`--cpuset-cpus`), or by a quota of time (`--cpus`,
    Kubernetes' limits).

    Args:
        quota_file: the control group's `cpu.max`: microseconds allowed, or "max", and the period's.
    """
    allowed = len(os.sched_getaffinity(0))
    try:
        quota_us, period_us = quota_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no control groups of version 2 here
        return allowed
    return allowed if quota_us == "max" else min(allowed, math.ceil(int(quota_us) / int(period_us)))


def num_network_threads() -> int:
    """Return the threads of one network call where nobody says otherwise: half of the processors.

    The decoders work meanwhile, and threads that wait for one another wait for the slowest.
    """
    return max(1, num_processors() // 2)


def processor_name() -> str:
    """Return the processor's model, or its architecture where the system does not tell."""
    lines = _PROCESSORS.read_text(encoding="utf-8").splitlines() if _PROCESSORS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def sums_bytes_in_16_bits(listing: Path = _PROCESSORS) -> bool:
    """Tell whether products of bytes are summed in pairs, in 16 bits which they can overflow.

    So do x86 processors with AVX2 and without VNNI.

    Args:
        listing: of the processors and what they can do.
    """
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return "avx2" in flags and not any(flag.endswith("vnni") for flag in flags)


def gpu_name(driver: str = "libcuda.so.1") -> str:
    """Return the model of the first NVIDIA GPU that this process may use, as torch names it, without torch.

    Args:
        driver: the library of the CUDA driver's interface.

    Returns:
        Its name; empty where there is no driver or no GPU.
    """
    try:
        cuda = ctypes.CDLL(driver)
    except OSError:
        return ""
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, len(name), device)
    )
    return "" if failed else name.value.decode()
