"""Segmenting a layer of the viewer: what the Segment button does, and `segment` from the console.

Layers are read and written on the main thread; the network, thresholds and objects run in a job's thread.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

import numpy as np
from napari import current_viewer
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer
from scipy import ndimage as ndi

from napari_unet_seg._beat import BEAT_S, Beat
from napari_unet_seg._canvas import drawn_later, guard_removals, window_of
from napari_unet_seg._jobs import Job, start
from napari_unet_seg._layers import (
    METADATA,
    Index,
    Region,
    Where,
    add_probability,
    behind_proxy,
    label_dtype,
    placement,
    plane_in_view,
    unused_name,
)
from napari_unet_seg._segment.request import (
    PROVISIONAL_ID,
    Piece,
    PlaneLabels,
    Request,
    relabel_steps,
    request_of,
    segment_steps,
)
from napari_unet_seg._segment.result_layer import ResultLayer, result_layer
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.predict_settings import PredictSettings
from napari_unet_seg.core.prediction import Prediction

_LATEST_REFRESH_MS = round(2000 * BEAT_S)
"""When what was written last is drawn, though no step follows that would bring a new beat."""
_SHOW_AFTER_MS = 30
"""A new layer is drawn for the first time when the window has been drawn with it: each alone is a wait."""


class Segmentation(QObject):  # type: ignore[misc]
    """One result, under way or complete, in one labels layer; its jobs tell it what to write.

    Attributes
    ----------
    request
        What was asked for.
    prediction
        The result so far; None until the network is done.
    layer
        Of napari, being filled; None before it runs.
    objects_layer
        The one that holds the instances: `layer` itself, one of its own where that holds classes, or None.
    n_objects
        In the planes that are complete.
    """

    def __init__(self, request: Request, image_layer: Any, viewer: Any) -> None:
        super().__init__()
        self.request, self.image_layer, self.viewer = request, image_layer, viewer
        self.prediction: Prediction | None = None
        self._generation = 0
        self._job: Job | None = None
        self._objects_in: dict[Index, int] = {}
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_LATEST_REFRESH_MS)
        self._timer.timeout.connect(self._refresh)
        self._show = QTimer(self)
        self._show.setSingleShot(True)
        self._show.setInterval(_SHOW_AFTER_MS)
        self._show.timeout.connect(self._show_layers)
        self._beat = Beat()
        self._result: ResultLayer | None = None
        self._class_objects: ResultLayer | None = None
        self._not_shown: list[ResultLayer] = []
        self._id_offset = 0
        self._unfinished: Index | None = None
        """A plane that shows what is above the threshold so far, not objects."""

    @property
    def layer(self) -> Any:
        """The labels layer that holds it; None before it runs."""
        return None if self._result is None else self._result.layer

    @property
    def objects_layer(self) -> Any:
        """The labels layer of the instances; None where there is none, or where it was removed."""
        if self.request.info.task == "instances":
            return self.layer
        return None if self._class_objects is None else self._of_viewer(self._class_objects)

    @property
    def is_layer_there(self) -> bool:
        """Whether its layer is still in the viewer."""
        return self.layer in self.viewer.layers

    @property
    def is_image_there(self) -> bool:
        """Whether the image is still in the viewer."""
        return self.image_layer in self.viewer.layers

    @property
    def seconds_per_px(self) -> float | None:
        """How long a pixel took; None before the end, and where nearly nothing was done."""
        if self.prediction is None or not self.prediction.complete or not self.request.is_whole_plane:
            return None
        return self.prediction.seconds / self.prediction.labels.size

    @property
    def n_objects(self) -> int:
        """How many objects the complete planes hold."""
        return sum(self._objects_in.values())

    @property
    def is_in_view(self) -> bool:
        """Whether the viewer shows one of its planes."""
        return self._plane_in_view() is not None

    @property
    def can_relabel(self) -> bool:
        """Whether there are probabilities of objects, so that settings can act without the network."""
        has_objects = self.request.info.task == "instances"
        return has_objects and self.prediction is not None and self.prediction.probabilities.size > 0

    def run(self, *, shows_errors: bool) -> Job:
        """Make the layer, then start the network: beside it, making a layer would hold the window up."""
        self._find_layer()
        name = f"{self.request.info.name} on {self.request.image.name}"
        return self._start(segment_steps(self.request), name, shows_errors=shows_errors)

    def relabel(self, settings: ObjectSettings, *, shows_errors: bool = False) -> Job | None:
        """Make objects anew in the complete planes, the one in view first; None when there is nothing to do.

        A layer that was removed or that a person has changed is left alone: the labels go to a new one.
        """
        if self.prediction is None or not self.can_relabel or not self._objects_in:
            return None
        self.cancel()
        if self._result is None or self._result.is_touched or not self.is_layer_there:
            self._find_layer()
        steps = relabel_steps(
            self.prediction,
            self.request,
            settings,
            sorted(self._objects_in),
            self._plane_in_view(),
        )
        return self._start(steps, f"Objects of {self.request.image.name}", shows_errors=shows_errors)

    def add_probabilities(self) -> None:
        """Add an image layer with the probability of each class but the background, of the region only."""
        if self.prediction is None or not self.prediction.probabilities.size:
            return
        request, image = self.request, self.request.image
        corner = {
            axis: entry.indices(length)[0] if isinstance(entry, slice) else entry
            for axis, entry, length in zip(image.label_axes, request.region, image.label_shape, strict=True)
        }
        where = placement(self.image_layer, image.axes.replace("S", ""), image.label_axes, corner)
        shape = [1 if not isinstance(entry, slice) else -1 for entry in request.region]
        for name, values in zip(
            self.prediction.class_names[1:], self.prediction.probabilities[1:], strict=True
        ):
            part = values[(..., *request.box)]
            sizes = iter(part.shape)
            full = part.reshape([1 if length == 1 else next(sizes) for length in shape])
            base = f"{image.name} › {request.info.name} › P({name})"
            add_probability(self.viewer, full, unused_name(self.viewer, base), where)

    def cancel(self) -> None:
        """Stop what runs, and do not listen to it any more."""
        self._generation += 1
        self._end_filling()
        if self._job is not None and self._job.is_running:
            self._job.cancel()

    def _start(self, steps: Generator[Any, Any, Any], name: str, *, shows_errors: bool) -> Job:
        self._generation += 1
        if self._result is not None:
            self._result.begin()
        self._job = start(
            steps,
            name,
            on_step=partial(self._take, self._generation),
            on_end=partial(self._end, self._generation),
            window=window_of(self.viewer),
            shows_errors=shows_errors,
        )
        return self._job

    def _take(self, generation: int, step: Any) -> None:
        """Show a step; stop when the layer was removed."""
        if generation != self._generation:
            return
        if self._result is None or not isinstance(step, Piece | PlaneLabels):
            return
        if not self.is_layer_there:
            self.cancel()
            return
        plane = self.request.plane_in_image(step.plane)
        if isinstance(step, Piece):
            self._result.write((*plane, *step.box), step.values, int(step.values.max(initial=0)))
            self._unfinished = plane
        else:
            self._write_final(self._result, step, plane)
            self._unfinished = None
        if not self._is_drawn(step.plane):
            return
        if self._beat.is_new():
            self._refresh()
        elif not self._timer.isActive():
            self._timer.start()

    def _end(self, generation: int, job: Job) -> None:
        if generation != self._generation:
            return
        if self._unfinished is not None and self._result is not None and self.is_layer_there:
            self._settle_unfinished(self._result, self._unfinished)
        self._end_filling()
        if isinstance(job.result, Prediction):
            self.prediction = job.result
        self._timer.stop()
        for result in self._results_there():
            if result.is_written:
                result.refresh_with_thumbnail()
            else:
                result.withdraw(self.viewer)

    def _settle_unfinished(self, result: ResultLayer, plane: Index) -> None:
        """After a stop: a map of ones is no object. Its pieces become some, unless whole planes are done."""
        self._unfinished = None
        if self.request.info.task == "classes":
            return
        where: Region = (*plane, *self.request.box)
        is_shown = result.layer.data[where] == PROVISIONAL_ID
        if self._objects_in:
            result.write(where, np.where(is_shown, 0, result.layer.data[where]), 0)
            return
        pieces, n_pieces = ndi.label(is_shown)
        offset = result.free_ids_before(where, n_pieces)
        result.note_ids(where, offset + 1 if n_pieces else 0, offset + n_pieces if n_pieces else 0)
        result.write(where, _moved_up(pieces, offset, n_pieces), offset + n_pieces)

    def _write_final(self, result: ResultLayer, step: PlaneLabels, plane: Index) -> None:
        """Write a complete plane."""
        if self.request.info.task == "instances":
            self._write_objects(result, step, plane)
            return
        result.write((*plane, *self.request.box), step.labels, step.last_id)
        if step.objects is not None:
            self._write_objects(self._layer_of_objects(), step.objects, plane)

    def _write_objects(self, result: ResultLayer | None, step: PlaneLabels, plane: Index) -> None:
        """Write the instances of a plane, with ids that occur nowhere else in the layer."""
        self._objects_in[step.plane] = step.last_id - step.first_id + 1 if step.last_id else 0
        if result is None:
            return
        where: Region = (*plane, *self.request.box)
        if self.request.n_planes == 1:
            self._id_offset = result.free_ids_before(where, step.last_id)
        else:  # another run may be filling other planes of the layer
            self._id_offset = max(self._id_offset, result.last_id_outside(self.request.region))
        offset = self._id_offset if step.last_id else 0
        result.note_ids(where, step.first_id + offset, step.last_id + offset)
        result.write(where, _moved_up(step.labels, offset, step.last_id), step.last_id + offset)

    def _plane_in_view(self) -> Index | None:
        shown = plane_in_view(self.image_layer, self.request.image, self.viewer.dims.point)
        return self.request.plane_of_data(shown)

    def _is_drawn(self, plane: Index) -> bool:
        """Whether a plane is in view; any may be where other axes than Y and X are shown."""
        dims = self.viewer.dims
        is_usual = set(dims.displayed) == {dims.ndim - 2, dims.ndim - 1}
        return not is_usual or plane == self._plane_in_view()

    def _find_layer(self) -> None:
        request = self.request
        with drawn_later(self.viewer):
            self._result = result_layer(
                self.viewer, self.image_layer, request.image, request.info.name, request.region
            )
        if request.info.task == "classes":
            self._result.layer.metadata[METADATA]["classes"] = request.info.class_names
        self._id_offset = self._result.last_id_outside(request.region)
        self._show_soon(self._result)

    def _layer_of_objects(self) -> ResultLayer | None:
        """Where the instances of a class go, made with the first of them; None once it was removed."""
        request = self.request
        if self._class_objects is None:
            what = f"{request.info.object_class} objects"
            with drawn_later(self.viewer):
                self._class_objects = result_layer(
                    self.viewer, self.image_layer, request.image, request.info.name, request.region, what
                )
            self._class_objects.begin()
            self._id_offset = self._class_objects.last_id_outside(request.region)
            self._show_soon(self._class_objects)
        return None if self._of_viewer(self._class_objects) is None else self._class_objects

    def _of_viewer(self, result: ResultLayer) -> Any:
        return result.layer if result.layer in self.viewer.layers else None

    def _results_there(self) -> list[ResultLayer]:
        """Those whose layers are still in the viewer."""
        results = (self._result, self._class_objects)
        return [one for one in results if one is not None and self._of_viewer(one) is not None]

    def _show_soon(self, result: ResultLayer) -> None:
        self._not_shown.append(result)
        self._show.start()

    def _show_layers(self) -> None:
        there = self._results_there()
        for result in self._not_shown:
            if result in there:
                result.show()
        self._not_shown.clear()

    def _end_filling(self) -> None:
        for result in (self._result, self._class_objects):
            if result is not None:
                result.end()

    def _refresh(self) -> None:
        self._timer.stop()
        for result in self._results_there():
            result.refresh()


def segment(
    layer: Any,
    model: Model | str,
    settings: PredictSettings | None = None,
    *,
    where: Where = "plane",
    viewer: Any = None,
) -> Job:
    """Segment an image layer in the background and return at once: exactly what the Segment button does.

    Parameters
    ----------
    layer
        An image layer of a viewer.
    model
        A model, or the name or path of one.
    settings
        As of `predict`; what is None is taken from the layer: its axes and its pixel size.
    where
        "plane", the one in view; "stack"; (rows, columns), two slices of the plane in view; or an index like
        numpy's with one entry per axis of the image but the channels.
    viewer
        The one that holds the layer; None: the active one.

    Returns
    -------
    job
        Its result is a `Prediction` of the planes; a rectangle's is 0 outside of it.

    Raises
    ------
    InputError
        Something does not fit; nothing was started.
    """
    return segmentation_of(layer, model, settings, where=where, viewer=viewer).run(shows_errors=True)


def segmentation_of(
    layer: Any, model: Model | str, settings: PredictSettings | None, *, where: Where, viewer: Any
) -> Segmentation:
    """What `segment` runs, for who wants to change the objects afterwards."""
    layer, viewer = behind_proxy(layer), behind_proxy(viewer or current_viewer())
    if viewer is None or layer not in viewer.layers:
        raise InputError(
            f"Layer '{layer.name}' is not in the viewer: give the one that holds it, viewer=...."
        )
    guard_removals(viewer)
    return Segmentation(request_of(layer, model, settings, where, viewer.dims.point), layer, viewer)


def _moved_up(labels: NDArray[np.integer[Any]], offset: int, largest: int) -> NDArray[np.integer[Any]]:
    """Add to all ids but 0; in the narrowest type, as the main thread does it."""
    if not offset:
        return labels
    moved: NDArray[np.integer[Any]] = labels.astype(label_dtype(largest + offset))
    np.add(moved, moved.dtype.type(offset), out=moved, where=moved > 0)
    return moved
