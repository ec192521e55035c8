"""Writing to the disk in a thread beside the window: tasks in their order, failures come back as values."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

from qtpy.QtCore import QObject, Signal

from napari_unet_seg.core.errors import UNetSegError


@dataclass(frozen=True, eq=False)
class Task:
    """Something to write.

    Attributes
    ----------
    write
        Called in the thread.
    put_back
        Called on the main thread when writing has failed: what was to be written still is.
    """

    write: Callable[[], None]
    put_back: Callable[[], None]


@dataclass(frozen=True, eq=False)
class Failure:
    """A task that was not done, and why; `details` is the traceback of an error that is not ours."""

    task: Task
    error: Exception
    details: str = ""


_Batch: TypeAlias = Sequence[Task]


class BackgroundWriter(QObject):  # type: ignore[misc]
    """A thread that writes, started with the first batch.

    Attributes
    ----------
    written
        Qt signal, on the main thread, after each batch; `take_failures` says what went wrong.
    """

    written = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._batches: SimpleQueue[_Batch | None] = SimpleQueue()
        self._changed = threading.Condition()
        self._n_waiting = 0
        self._failures: list[Failure] = []
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something is still to be written."""
        return self._n_waiting > 0

    def submit(self, tasks: _Batch) -> None:
        """Write these after all that was submitted before."""
        with self._changed:
            self._n_waiting += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="Recorder", daemon=True)
            self._thread.start()
        self._batches.put(tasks)

    def wait(self, timeout_s: float) -> bool:
        """Wait until everything is written or has failed; returns whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._n_waiting == 0, timeout_s)

    def take_failures(self) -> list[Failure]:
        """What went wrong since this was asked last."""
        with self._changed:
            failures, self._failures = self._failures, []
        return failures

    def close(self) -> None:
        """End the thread after what was submitted."""
        if self._thread is not None:
            self._batches.put(None)
            self._thread = None

    def _run(self) -> None:
        while (tasks := self._batches.get()) is not None:
            failures = [failure for task in tasks if (failure := _attempt(task)) is not None]
            del tasks  # they may hold large arrays, and the next ones may be a long time in coming
            with self._changed:
                self._failures += failures
                # Before `wait` returns: who waited may end this object, which is fatal during a signal.
                with contextlib.suppress(RuntimeError):  # Qt may be gone already when the program ends
                    self.written.emit()
                self._n_waiting -= 1
                self._changed.notify_all()


def _attempt(task: Task) -> Failure | None:
    try:
        task.write()
    except UNetSegError as error:
        return Failure(task, error)
    except Exception as error:  # noqa: BLE001 - the border of the thread: every error becomes a value
        return Failure(task, error, traceback.format_exc())
    return None
