"""Gets what a dock needs ready in the background, one such job at a time."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_unet_seg._jobs import Job, start

if TYPE_CHECKING:
    # It imports PyTorch, which takes a second or more.
    from napari_unet_seg._segment.warm_up import Readiness


class Warming(QObject):
    """The latest job that gets things ready; of earlier ones nobody hears any more.

    Attributes
    ----------
    readiness
        What is ready; None until it is known.
    is_done
        Whether the dock can be used: all that it waits for is there, or could not be had.
    changed
        Qt signal: one of these is another one now.
    failed
        Qt signal with the job.
    """

    changed = Signal()
    failed = Signal(object)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.readiness: Readiness | None = None
        self.is_done = False
        self._job: Job | None = None

    def begin(self, steps: Generator[Any, Any, Readiness | None]) -> None:
        """Run steps that say in words what they do, and yield or return a `Readiness`."""
        self.cancel()
        job = start(steps, "Getting ready", window=self.parent(), shows_errors=False)
        job.stepped.connect(partial(self._take, job))
        job.finished.connect(partial(self._end, job))
        self._job, self.is_done = job, False

    def cancel(self) -> None:
        """Stop what is under way."""
        if self._job is not None:
            self._job.cancel()

    @property
    def is_running(self) -> bool:
        """Whether something is still being loaded, which nobody has to wait for."""
        return self._job is not None

    def _take(self, job: Job, step: Any) -> None:
        """It can begin; what else is loaded would only be waited for."""
        if job is self._job and not isinstance(step, str):
            self.readiness, self.is_done = step, True
            self.changed.emit()

    def _end(self, job: Job) -> None:
        if job is not self._job:
            return
        if job.result is not None or not self.is_done:
            self.readiness = job.result
        self._job, self.is_done = None, True
        if job.error is not None:
            self.failed.emit(job)
        self.changed.emit()
