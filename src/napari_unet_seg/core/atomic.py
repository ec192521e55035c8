"""Writing a file so that its final name never shows anything half-written, and adding to one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path

from napari_unet_seg.core.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; it becomes `path` at the end, or vanishes on any exception.

    Raises
    ------
    OutputError
        The folder is missing, not writable, or full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}.") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write bytes under a temporary name, make sure they are on the disk, then rename.

    Raises
    ------
    OutputError
        The folder is missing, not writable, or full; nothing is left behind.
    """
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises
    ------
    OutputError
        It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder '{folder}' cannot be made: {error.strerror or error}.") from error


def append_durably(path: Path, length: int, content: bytes) -> int:
    """Add to a file of which `length` bytes count, settle it on the disk, and return how many count now.

    What follows them, such as half of what a full disk took, is cut off first.

    Raises
    ------
    OutputError
        The file is gone or shorter than that, or the disk is full; what counted before still does.
    """
    try:
        with path.open("r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) < length:
                raise OutputError(f"'{path}' was changed by another program: leave it alone.")
            file.truncate(length)
            file.seek(length)
            write_all(file, content)
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}.") from error
    return length + len(content)


def write_all(file: RawIOBase, content: bytes) -> None:
    """Write to an unbuffered file, which may take a part at a time; OSError when it does not take all."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) or 0 :]
