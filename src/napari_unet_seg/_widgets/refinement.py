"""The finished segmentations of one layer, whose objects follow the settings, the plane in view first."""

from __future__ import annotations

from collections import deque
from functools import partial

from qtpy.QtCore import QObject, Signal

from napari_unet_seg._jobs import Job
from napari_unet_seg._segment.segmenting import Segmentation
from napari_unet_seg.core.objects import ObjectSettings


class Refinement(QObject):
    """Makes objects anew, one segmentation after the other; what was asked last counts.

    Attributes
    ----------
    started
        Qt signal with the job, for each segmentation.
    finished
        Qt signal, when all have followed the settings.
    failed
        Qt signal with the job that failed.
    stopped
        Qt signal, when a person stopped it half way.
    """

    started = Signal(object)
    finished = Signal()
    failed = Signal(object)
    stopped = Signal()

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.segmentations: list[Segmentation] = []
        self._waiting: deque[Segmentation] = deque()
        self._generation = 0
        self._is_running = False

    @property
    def n_objects(self) -> int:
        """In all of them."""
        return sum(one.n_objects for one in self.segmentations)

    @property
    def latest(self) -> Segmentation | None:
        """The one that was added last."""
        return self.segmentations[-1] if self.segmentations else None

    @property
    def is_running(self) -> bool:
        """Whether some do not follow the settings yet."""
        return self._is_running

    def add(self, segmentation: Segmentation) -> None:
        """Take one in; those of other layers are forgotten."""
        same = [one for one in self.segmentations if one.layer is segmentation.layer and one.is_layer_there]
        self.segmentations = [*same, segmentation]

    def forget_removed(self) -> None:
        """Give up the probabilities of images that were removed together with their labels."""
        self.segmentations = [one for one in self.segmentations if one.is_image_there or one.is_layer_there]

    def apply(self, settings: ObjectSettings) -> None:
        """Let all follow new settings."""
        self.cancel()
        self._is_running = True
        self._waiting = deque(sorted(self.segmentations, key=lambda one: not one.is_in_view))
        self._next(self._generation, settings)

    def cancel(self) -> None:
        """Stop what is under way."""
        self._generation += 1
        self._is_running = False
        self._waiting.clear()
        for one in self.segmentations:
            one.cancel()

    def _next(self, generation: int, settings: ObjectSettings) -> None:
        while self._waiting:
            one = self._waiting.popleft()
            job = one.relabel(settings)
            if job is not None:
                job.finished.connect(partial(self._end_one, generation, settings, one, job))
                self.started.emit(job)
                return
        self._is_running = False
        self.finished.emit()

    def _end_one(self, generation: int, settings: ObjectSettings, one: Segmentation, job: Job) -> None:
        if generation != self._generation:
            return
        if job.error is not None:
            self._is_running = False
            self.failed.emit(job)
            return
        if job.is_cancelled and one.is_layer_there:  # it also ends when its layer is removed
            self._is_running = False
            self._waiting.clear()
            self.stopped.emit()
            return
        self._next(generation, settings)
