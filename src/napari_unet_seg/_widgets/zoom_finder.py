"""Finds the zoom of an image for the Segment dock, in the background."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QWidget

from napari_unet_seg._jobs import Job, start
from napari_unet_seg._widgets.scale_row import ScaleRow

if TYPE_CHECKING:
    # They import PyTorch, which takes a second or more.
    from napari_unet_seg._segment.request import Request
    from napari_unet_seg.core.auto_zoom import FoundZoom


class ZoomFinder(QObject):
    """One search at a time, each question once; what comes of it is shown in the row.

    Parameters
    ----------
    scale
        Where the zoom is shown.
    parent
        The dock.
    """

    def __init__(self, scale: ScaleRow, parent: QWidget) -> None:
        super().__init__(parent)
        self._scale = scale
        self._question: Any = None
        self._job: Job | None = None

    @property
    def is_looking(self) -> bool:
        """Whether a search is under way."""
        return self._job is not None

    def leave(self) -> None:
        """Stop; the question counts as asked."""
        if self._job is not None:
            self._job.abandon()
            self._job = None

    def ask(self, question: Any, request: Callable[[], Request | None], *, again: bool = False) -> None:
        """Drop what is under way and look for the answer, if it is another question than the latest.

        Parameters
        ----------
        question
            What the zoom depends on; None: there is nothing to look for, unless asked again.
        request
            What is to be looked at, or None where that cannot be.
        again
            Whatever was asked before.
        """
        from napari_unet_seg._segment.request import zoom_search_steps

        if question == self._question and not again:
            return
        self.leave()
        self._question = question
        wish = request() if again or question is not None else None
        if wish is None:
            self._scale.forget_found()
            return
        job = start(zoom_search_steps(wish), "Finding the zoom", window=self.parent(), shows_errors=False)
        job.finished.connect(partial(self._end, job))
        self._job = job
        self._scale.show_looking()

    def answer(self, question: Any, found: FoundZoom) -> None:
        """Show what somebody else has found for a question; None: nobody asks any more."""
        if question is not None:
            self.leave()
            self._question = question
            self.take(found)

    def take(self, found: FoundZoom | None) -> None:
        """Show what a search has found; None: it was stopped, or failed."""
        if found is None:
            self._scale.forget_found()
        else:
            self._scale.show_found(found.zoom, is_sure=found.is_sure)

    def _end(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            self.take(job.result)
