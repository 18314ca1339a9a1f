"""Files that are whole or not there, and errors that say when the disk is full."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from training.data.clips import DataError

PARTIAL_SUFFIX = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write, which gets its name only once it is complete and on the disk.

    Raises:
        DataError: the disk is full; nothing stands under that name that did not before.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        with naming_a_full_disk(path), partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def naming_a_full_disk(path: Path) -> Iterator[None]:
    """Say what was being written, and how much room there is, where the disk is full.

    Raises:
        DataError: it is.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        free_mb = shutil.disk_usage(path.parent).free / 1e6
        raise DataError(
            f"the disk is full: {path} could not be written, {free_mb:.1f} MB are free in {path.parent}; "
            "make room and run the same command again"
        ) from exc
