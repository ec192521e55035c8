"""The part of the Annotate dock that goes where a model is least sure, and says which model it asks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_unet_seg._annotate.live import LiveAnnotation
from napari_unet_seg._annotate.unsure import NextUnsure, Question
from napari_unet_seg._current_view import visible
from napari_unet_seg._jobs import Job, sentence
from napari_unet_seg._layers import LayerImage
from napari_unet_seg._open_docks import found_dock
from napari_unet_seg._widgets.annotate_model import Chosen
from napari_unet_seg._widgets.job_row import JobRow, Progress
from napari_unet_seg._widgets.message import wrapped_label
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.steps import Note

if TYPE_CHECKING:
    from napari_unet_seg.core.predict_settings import PredictSettings
    from napari_unet_seg.core.uncertainty import SearchStep


class UnsureRow(QWidget):
    """What "Next unsure" does.

    Parameters
    ----------
    viewer
        Whose Segment dock knows how the model is to see an image.

    Attributes
    ----------
    said
        Qt signal with a sentence about the place that was gone to.
    failed
        Qt signal with a sentence and details.
    """

    said = Signal(str)
    failed = Signal(str, str)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._next: NextUnsure | None = None
        self._chosen: Chosen | None = None
        self.asks = wrapped_label()
        self.progress = JobRow(cancel_tip="Stop searching and keep the places that were found so far.")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.asks)
        column.addWidget(self.progress)

    @property
    def is_searching(self) -> bool:
        """Whether a search is under way."""
        return self._next is not None and self._next.is_searching

    def begin(self, live: LiveAnnotation) -> None:
        """Leave out what is annotated there from now on."""
        self._next = NextUnsure(live, self)
        self._next.started.connect(self._show_search)
        self._next.said.connect(self.said)
        self._next.failed.connect(self._show_failure)

    def leave(self) -> None:
        """Search no more in it."""
        left, self._next = self._next, None
        if left is not None:
            left.close()
            left.deleteLater()
            self.progress.leave()

    def show_model(self, chosen: Chosen | None) -> None:
        """Say which model is asked; None: there is no image, or no model."""
        self._chosen = chosen
        self.asks.setText("" if chosen is None else f"Next unsure asks '{chosen.info.name}' ({chosen.why}).")
        self.asks.setVisible(chosen is not None)

    def go_on(self, image_layer: Any, image: LayerImage) -> None:
        """Go to the next place, or search for it."""
        if self._chosen is None:
            self.failed.emit("There is no model to ask: train one, or choose a file in the Segment dock.", "")
        elif self._next is not None:
            info = self._chosen.info
            question = Question(image, info, self._settings_in_segment_dock(image_layer, info))
            self._next.go_on(question, self._looked_at(image_layer, image))

    def _settings_in_segment_dock(self, image_layer: Any, info: ModelInfo) -> PredictSettings | None:
        """How the model sees this image there; None where it shows another one."""
        dock = found_dock(self._viewer, "Segment")
        is_same = dock is not None and dock.image.layer is image_layer and dock.model.info == info
        return replace(dock.settings(), objects=None) if is_same else None

    def _looked_at(self, image_layer: Any, image: LayerImage) -> tuple[int, int]:
        """Row and column in the middle of what is seen."""
        rows, columns = visible(image_layer, image, self._viewer.dims.point).box
        return (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2

    def _show_search(self, job: Job) -> None:
        self.progress.follow(job, search_in_words)

    def _show_failure(self, job: Job) -> None:
        if job.error is not None:
            self.failed.emit(sentence(job.error), job.details)


def search_in_words(step: SearchStep) -> Progress | None:
    """How far a search is."""
    from napari_unet_seg.core.auto_zoom import ZoomTrial

    if isinstance(step, Note):
        return None
    if isinstance(step, ZoomTrial):
        return Progress(f"trying zoom {step.zoom:.3g}×", 0, 0)
    number = min(step.planes_done + 1, step.n_planes)
    what = "looking for unsure places" if step.n_planes == 1 else f"plane {number} of {step.n_planes}"
    return Progress(what, round(1000 * step.share_done), 1000)
