"""Writing a file so that its final name never shows anything half-written."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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
