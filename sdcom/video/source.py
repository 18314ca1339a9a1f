"""Descriptors of what is decoded, and read-only views of them that never move the offset others may share."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final


class FileView:
    """A binary file object over a descriptor, as demuxers want it: read, seek, tell.

    Args:
        fd: an open, readable descriptor of a regular file or memfd; stays the caller's.
        num_bytes: the file's size.
    """

    def __init__(self, fd: int, num_bytes: int) -> None:
        self._fd: Final = fd
        self._position = 0
        self.num_bytes: Final = num_bytes

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes from the position on, all that remain if negative."""
        remaining = max(self.num_bytes - self._position, 0)
        data = os.pread(self._fd, remaining if size < 0 else min(size, remaining), self._position)
        self._position += len(data)
        return data

    def between(self, start: int, stop: int) -> bytes:
        """Return the file's bytes from `start` to `stop`, as far as there are; the position stays."""
        return os.pread(self._fd, stop - start, start)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.num_bytes}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def rewound(self) -> "FileView":
        """Return a fresh view of the same file, at its start."""
        return FileView(self._fd, self.num_bytes)


def open_memory_file(name: str, data: bytes) -> io.BufferedRandom:
    """Return an anonymous memory file that holds `data`."""
    file = os.fdopen(os.memfd_create(name), "w+b")
    file.write(data)
    file.flush()
    return file


@contextmanager
def open_descriptor(source: BinaryIO | Path) -> Iterator[int]:
    """Yield a descriptor of the file, with everything written so far."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file.fileno()
        return
    if source.writable():
        source.flush()
    yield source.fileno()
