"""What a decode worker gives up before it sees its first video.

Resource limits, no new privileges, no core dump, death with its parent, and a seccomp filter that allows a
short list of system calls: reading what it was handed, memory, threads, clocks, answering. Everything else
fails with EPERM rather than killing the process, so that a playlist's attempt to fetch a URL becomes an
ordinary decoding error of that one file. docs/adr/0002-decoding.md says why the filter is written here.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from sdcom.errors import SdcomError

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # classic BPF
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
_X32_BIT = 0x40000000
_PROT_EXEC, _CLONE_THREAD, _STDERR = 4, 0x10000, 2

_ARCHITECTURES = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}
"""Machine -> its AUDIT_ARCH, its column in the tables below, the number of seccomp(2)."""

_ALLOWED = {
    "read": (0, 63),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "close": (3, 57),
    "fstat": (5, 80),
    "recvmsg": (47, 212),
    "sendmsg": (46, 211),
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "ppoll": (271, 73),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrusage": (98, 165),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_MMAP, _MPROTECT, _CLONE, _CLONE3 = (9, 222), (10, 226), (56, 220), (435, 435)
_WRITE, _TGKILL = (1, 64), (234, 131)


class JailUnavailableError(SdcomError):
    """This system cannot confine a decoder, so none is run."""


def lock_down(parent_pid: int, memory_bytes: int) -> None:
    """Give up, for good, everything that decoding does not need.

    Args:
        parent_pid: the process that this one must not outlive.
        memory_bytes: address space that may be taken on top of what is mapped now.

    Raises:
        JailUnavailableError: the kernel refuses a part of it.
    """
    _limit_resources(memory_bytes)
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL),
        (_PR_SET_DUMPABLE, 0),
        (_PR_SET_NO_NEW_PRIVS, 1),
    ):
        _check(libc.prctl(option, int(value), 0, 0, 0), f"prctl({option})")
    if os.getppid() != parent_pid:  # it died before its death could be a signal
        sys.exit(0)
    program = seccomp_program(platform.machine(), os.getpid())
    instructions = ctypes.create_string_buffer(b"".join(program))
    fprog = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    number = _ARCHITECTURES[platform.machine()][2]
    _check(
        libc.syscall(
            number, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, ctypes.create_string_buffer(fprog)
        ),
        "seccomp(2)",
    )


def _check(result: int, call: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno()) if result < 0 else f"thread {result} cannot follow"
        raise JailUnavailableError(
            f"{call} failed: {reason}; decode workers need a Linux kernel with seccomp filters "
            "(a container's own profile must not forbid seccomp(2) and prctl(2))"
        )


def _limit_resources(memory_bytes: int) -> None:
    """Limit memory and forbid files and core dumps; the pool renews the limit on CPU before every video."""
    mapped_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    address_space = mapped_pages * resource.getpagesize() + memory_bytes
    for kind, most in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def seccomp_program(machine: str, own_pid: int) -> Sequence[bytes]:
    """Return the filter as classic BPF instructions, eight bytes each.

    Args:
        machine: as `platform.machine()` names it.
        own_pid: the only process that may be signalled: abort(3) does it.

    Raises:
        JailUnavailableError: the machine's system calls are not known here.
    """
    if machine not in _ARCHITECTURES:
        known = " and ".join(_ARCHITECTURES)
        raise JailUnavailableError(f"decode workers can be confined on {known} only, not on {machine!r}")
    architecture, column, _ = _ARCHITECTURES[machine]
    denied = _ERRNO | errno.EPERM
    program = [
        _op(_LOAD, _ARCHITECTURE_AT),
        _op(_JUMP_EQUAL, architecture, 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":  # x32 calls have other numbers for the same calls
        program += [_op(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _op(_RETURN, _KILL)]
    for numbers in _ALLOWED.values():
        program += [_op(_JUMP_EQUAL, numbers[column], 0, 1), _op(_RETURN, _ALLOW)]
    # glibc makes threads with clone() where clone3(), whose flags a filter cannot see, is unknown
    program += [_op(_JUMP_EQUAL, _CLONE3[column], 0, 1), _op(_RETURN, _ERRNO | errno.ENOSYS)]
    for numbers, argument, jump, value, if_true, if_false in (
        (_MMAP, 2, _JUMP_SET, _PROT_EXEC, denied, _ALLOW),
        (_MPROTECT, 2, _JUMP_SET, _PROT_EXEC, denied, _ALLOW),
        (_CLONE, 0, _JUMP_SET, _CLONE_THREAD, _ALLOW, denied),
        (_WRITE, 0, _JUMP_EQUAL, _STDERR, _ALLOW, denied),
        (_TGKILL, 0, _JUMP_EQUAL, own_pid, _ALLOW, denied),
    ):
        program += [
            _op(_JUMP_EQUAL, numbers[column], 0, 4),
            _op(_LOAD, _ARGUMENTS_AT + 8 * argument),
            _op(jump, value, 0, 1),
            _op(_RETURN, if_true),
            _op(_RETURN, if_false),
        ]
    return [*program, _op(_RETURN, denied)]


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction, a struct sock_filter."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
