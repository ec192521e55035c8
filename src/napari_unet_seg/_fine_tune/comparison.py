"""Old and new model side by side: the labels that both make of the current view, one or the other shown."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet_seg._canvas import window_of
from napari_unet_seg._current_view import AnnotatedImage, View, ViewLayer, visible
from napari_unet_seg._fine_tune.live_preview import most_image_px, preview_request
from napari_unet_seg._fine_tune.request import TrainingRequest, Tuned
from napari_unet_seg._jobs import Job, start
from napari_unet_seg._layers import METADATA, label_dtype, unused_name
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.prediction import Prediction, prediction_steps
from napari_unet_seg.core.steps import STOP
from napari_unet_seg.core.training_messages import PreviewRequest

Side: TypeAlias = Literal["before", "after"]

MOST_MODEL_PX = 1024
_SETTLED_MS = 400
"""Pause in moving about after which the new view is compared."""
_CONTOUR_PX = 2
_SAME_OBJECT_IOU = 0.5


class Comparison(QObject):  # type: ignore[misc]
    """Two labels layers that follow the view.

    Attributes
    ----------
    drawn
        Qt signal, when both show the current view.
    failed
        Qt signal with the job that failed.
    """

    drawn = Signal()
    failed = Signal(object)

    def __init__(
        self,
        request: TrainingRequest,
        tuned: Tuned,
        subject: AnnotatedImage,
        viewer: Any,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._request, self._tuned, self._subject, self._viewer = request, tuned, subject, viewer
        self._sides: dict[Side, ViewLayer] = {
            side: ViewLayer(viewer, subject, partial(self._make_layer, side)) for side in ("before", "after")
        }
        self._side: Side = "after"
        self._view: View | None = None
        self._job: Job | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLED_MS)
        self._timer.timeout.connect(self._follow)
        self._moves = (viewer.dims.events.current_step, viewer.scene.camera.events)
        for event in self._moves:
            event.connect(self._note_move)
        self._follow()

    @property
    def side(self) -> Side:
        """Which one is shown."""
        return self._side

    @property
    def is_running(self) -> bool:
        """Whether the current view is not compared yet."""
        return self._timer.isActive() or (self._job is not None and self._job.is_running)

    def layer(self, side: Side) -> Any:
        """The labels layer of a side; None before it is drawn."""
        return self._sides[side].layer

    def show(self, side: Side) -> None:
        """Show one, hide the other."""
        self._side = side
        for name, shown in self._sides.items():
            if shown.layer is not None:
                shown.layer.visible = name == side

    def close(self) -> None:
        """Take both out."""
        self._timer.stop()
        for event in self._moves:
            event.disconnect(self._note_move)
        if self._job is not None:
            self._job.abandon()
        for shown in self._sides.values():
            shown.remove()

    def _note_move(self, _event: Any = None) -> None:
        self._timer.start()

    def _follow(self) -> None:
        is_removed = any(shown.is_removed for shown in self._sides.values())
        if is_removed or self._subject.layer not in self._viewer.layers:
            return
        image = self._subject.image
        most_px = most_image_px(self._request, image, MOST_MODEL_PX)
        view = visible(self._subject.layer, image, self._viewer.dims.point, most_px)
        if self._view is not None and view.is_in(self._view):
            return
        self._view = view
        if self._job is not None:
            self._job.abandon()
        wish = preview_request(self._request, image, view)
        self._job = start(
            compare_steps(wish, self._tuned),
            f"Before and after on {image.name}",
            on_end=partial(self._take, view),
            window=window_of(self._viewer),
            shows_errors=False,
        )

    def _take(self, view: View, job: Job) -> None:
        if job.error is not None:
            self._view = None
            self.failed.emit(job)
        elif job.result is not None:
            for shown, labels in zip(self._sides.values(), job.result, strict=True):
                shown.show(labels, view)
            self.show(self._side)
            self.drawn.emit()

    def _make_layer(self, side: Side, data: NDArray[Any], **place: Any) -> Labels:
        layer = Labels(
            data,
            name=unused_name(self._viewer, f"{self._subject.image.name} › {side}"),
            metadata={METADATA: {"preview": True}},
            **place,
        )
        layer.contour = _CONTOUR_PX
        return layer


def compare_steps(
    wish: PreviewRequest, tuned: Tuned
) -> Generator[Any, Any, tuple[NDArray[Any], NDArray[Any]] | None]:
    """Labels (Y, X) of a view by both models; an object that both found has one id. None when stopped."""
    labels = []
    for model in (tuned.before, tuned.after):
        prediction = yield from _predicted(wish, model)
        if prediction is None:
            return None
        labels.append(prediction.labels[wish.region])
    before, after = labels
    if tuned.after.task == "instances":
        after = with_ids_of(before, after)
    dtype = label_dtype(int(max(before.max(initial=0), after.max(initial=0))))
    return before.astype(dtype), after.astype(dtype)


def _predicted(wish: PreviewRequest, model: Model | str) -> Generator[Any, Any, Prediction | None]:
    steps = prediction_steps(wish.image, model, wish.settings, region=wish.region)
    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            found: Prediction = end.value
            return None if answer is STOP else found
        answer = yield step


def with_ids_of(before: NDArray[np.int32], after: NDArray[np.int32]) -> NDArray[np.int32]:
    """The labels `after` with the ids that `before` gives to the same objects (IoU above one half)."""
    both = (before > 0) & (after > 0)
    pairs, overlap = np.unique(np.stack([before[both], after[both]]), axis=1, return_counts=True)
    size_before, size_after = np.bincount(before.ravel()), np.bincount(after.ravel())
    union = size_before[pairs[0]] + size_after[pairs[1]] - overlap
    is_same = overlap > _SAME_OBJECT_IOU * union
    last = size_before.size - 1
    new_ids = np.arange(size_after.size, dtype=np.int32) + last
    new_ids[0] = 0
    new_ids[pairs[1, is_same]] = pairs[0, is_same]
    return new_ids[after]
