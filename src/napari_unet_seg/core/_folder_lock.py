"""Keeping a folder to one program at a time: the system lets go of the lock when that program dies, however.

Beside the lock stands who holds it. Where a file system has no locks, that is all there is to go by.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import weakref
from pathlib import Path
from typing import Any

from napari_unet_seg.core.errors import OutputError

LOCK_FILE = "in-use.json"

_FAR_OFF = 2**30
"""Windows lets nobody read what is locked: a byte is locked that the file does not have."""
_TRIES = 5
"""Somebody else may just be looking whether it is locked."""
_LARGEST_BYTES = 4096


class FolderLock:
    """A folder in use by this program, until `release` or its end.

    Raises
    ------
    OutputError
        Another program, or another window of this one, uses it; or it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        try:
            file = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(
                f"The folder '{folder}' cannot be written to: {error.strerror or error}."
            ) from error
        if not _locked_after_tries(file):
            holder = _holder(file)
            os.close(file)
            raise OutputError(
                f"The folder '{folder}' is in use by {_in_words(holder)}: close that one, or choose another."
            )
        _say(file, json.dumps(_myself()))
        self._release = weakref.finalize(self, _released, file)

    def release(self) -> None:
        """Let others use the folder."""
        self._release()


def is_in_use(folder: Path) -> bool:
    """Whether a living program uses a folder; what cannot be found out counts as in use."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        lock = FolderLock(folder)
    except OutputError:
        return True
    lock.release()
    return False


def _locked_after_tries(file: int) -> bool:
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(0.02)
        if _locked(file):
            return True
    return False


if sys.platform == "win32":
    import msvcrt

    def _locked(file: int) -> bool:
        try:
            os.lseek(file, _FAR_OFF, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _locked(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return not _is_alive(_holder(file))
        return True


def _released(file: int) -> None:
    _say(file, "")
    os.close(file)


def _say(file: int, text: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk the lock holds nevertheless
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, text.encode())


def _holder(file: int) -> dict[str, Any]:
    """Who wrote the file last."""
    try:
        os.lseek(file, 0, os.SEEK_SET)
        holder = json.loads(os.read(file, _LARGEST_BYTES))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _myself() -> dict[str, Any]:
    return {"pid": os.getpid(), "started": _started(os.getpid()), "computer": socket.gethostname()}


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether a program lives that has this number and began at that time; those elsewhere count as alive."""
    pid = holder.get("pid")
    if not isinstance(pid, int):
        return False
    if holder.get("computer") != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return holder.get("started") in (None, _started(pid))


def _started(pid: int) -> str | None:
    """When a program began, in ticks since the computer did; None where Linux does not say it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _in_words(holder: dict[str, Any]) -> str:
    if not holder:
        return "another program"
    if holder == _myself():
        return "another window of this napari"
    elsewhere = holder.get("computer") != socket.gethostname()
    where = f" on {holder.get('computer')}" if elsewhere else ""
    return f"another napari (process {holder.get('pid')}{where})"
