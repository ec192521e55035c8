"""A wish to segment a layer, frozen on the main thread, and the steps that fulfil it in a thread; no Qt."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from napari.layers import Labels
from numpy.typing import NDArray

from napari_unet_seg import _layers
from napari_unet_seg._layers import Index, LayerImage, Region, Where, label_dtype
from napari_unet_seg.core._memory import available_bytes
from napari_unet_seg.core.auto_zoom import ZoomSteps, search_steps
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo, find_model, read_info
from napari_unet_seg.core.models import Model, load_model
from napari_unet_seg.core.normalisation import ArrayLike
from napari_unet_seg.core.objects import ObjectSettings, label_probabilities
from napari_unet_seg.core.predict_settings import PredictSettings, settle
from napari_unet_seg.core.prediction import PlaneDone, Prediction, PredictionStep, TileDone, prediction_steps
from napari_unet_seg.core.steps import STOP, Stop

PROVISIONAL_ID = 1
"""What the thresholded map of an incomplete plane is shown with."""
_KEPT_SHARE = 0.25
"""Part of the free memory that the probabilities may take for settings that act afterwards."""
_LABEL_BYTES = 4 + 2  # int32 of the result, uint16 of the layer

Box: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Request:
    """Everything that a segmentation needs to know.

    Attributes
    ----------
    data
        The planes to segment, with the axes that `settings` names.
    region
        Where they lie in the image: one int or slice per label axis.
    box
        Rows and columns that are wanted of each plane.
    """

    data: ArrayLike
    image: LayerImage
    region: Region
    box: Box
    model: Model | str
    info: ModelInfo
    settings: PredictSettings

    @property
    def objects(self) -> ObjectSettings:
        """How probabilities become labels."""
        return self.settings.objects or self.info.objects

    @property
    def is_whole_plane(self) -> bool:
        """Whether all rows and columns are wanted."""
        return self.box == tuple(slice(0, length) for length in self.image.label_shape[-2:])

    @property
    def planes_shape(self) -> tuple[int, ...]:
        """How many planes there are along each axis that is not fixed."""
        return tuple(
            len(range(*entry.indices(length)))
            for entry, length in zip(self.region[:-2], self.image.label_shape, strict=False)
            if isinstance(entry, slice)
        )

    @property
    def n_planes(self) -> int:
        """How many planes are segmented."""
        return math.prod(self.planes_shape)

    def plane_in_image(self, plane: Index) -> Index:
        """Index in the image of a plane of `data`."""
        local = iter(plane)
        return tuple(
            range(*entry.indices(length))[next(local)] if isinstance(entry, slice) else entry
            for entry, length in zip(self.region[:-2], self.image.label_shape, strict=False)
        )

    def plane_of_data(self, in_image: Sequence[int]) -> Index | None:
        """The inverse of `plane_in_image`; None when it is not among them."""
        found = []
        for at, entry, length in zip(in_image, self.region[:-2], self.image.label_shape, strict=False):
            if not isinstance(entry, slice):
                if at != entry:
                    return None
                continue
            positions = range(*entry.indices(length))
            if at not in positions:
                return None
            found.append(positions.index(at))
        return tuple(found)


def request_of(
    layer: Any, model: Model | str, settings: PredictSettings | None, where: Where, point: Sequence[float]
) -> Request:
    """Freeze a wish: read the layer, fill in what the settings leave open.

    Parameters
    ----------
    point
        What the viewer shows, its `dims.point`.

    Raises
    ------
    InputError
        Something does not fit.
    """
    settings = settings or PredictSettings()
    info = model.info if isinstance(model, Model) else read_info(*find_model(model))
    image = _layers.read_image(layer, settings.axes)
    region = _layers.region_of(image, where, _layers.plane_in_view(layer, image, point))
    data, axes = _layers.take(image, (*region[:-2], slice(None), slice(None)))
    settings = replace(settings, axes=axes, pixel_size_nm=settings.pixel_size_nm or image.pixel_size_nm)
    if settings.channel is None and "S" in axes and info.architecture.in_channels == 1:
        settings = replace(settings, channel="grey")
    settle(data, info, settings)
    request = Request(data, image, region, _layers.box_of(image, region), model, info, settings)
    _check_memory(request)
    return request


def _check_memory(request: Request) -> None:
    """Of the planes that are segmented: what a layer holds of others is not there until it is written."""
    n_results = 2 if request.info.object_class else 1
    needed = n_results * request.n_planes * math.prod(request.image.label_shape[-2:]) * _LABEL_BYTES
    free = available_bytes(torch.device("cpu"))
    if needed > free:
        raise InputError(
            f"The labels of '{request.image.name}' take {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB "
            "of memory are free: segment fewer planes."
        )


@dataclass(frozen=True, eq=False)
class Piece:
    """Label values for a box of one plane while it is incomplete, as they are to be shown."""

    plane: Index
    box: Box
    values: NDArray[Any]
    tiles_done: int
    n_tiles: int


@dataclass(frozen=True, eq=False)
class PlaneLabels:
    """Labels of the wanted box of a complete plane; ids run from `first_id` to `last_id` (0, 0: none).

    Attributes
    ----------
    objects
        The instances of the object class, where labels are classes and the model names one.
    """

    plane: Index
    labels: NDArray[Any]
    first_id: int
    last_id: int
    planes_done: int
    n_planes: int
    objects: PlaneLabels | None = None


def zoom_search_steps(request: Request) -> ZoomSteps:
    """Steps of the search for the zoom; runs in a job's thread."""
    return (yield from search_steps(request.data, _loaded(request), request.settings, region=request.box))


def _loaded(request: Request) -> Model:
    return request.model if isinstance(request.model, Model) else load_model(request.model)


def segment_steps(request: Request) -> Generator[Any, Stop | None, Prediction]:
    """Steps of the prediction, tiles and planes as `Piece` and `PlaneLabels`; runs in the job's thread."""
    steps = prediction_steps(
        request.data,
        _loaded(request),
        request.settings,
        keep_probabilities=_may_keep(request),
        region=None if request.is_whole_plane else request.box,
    )
    answer: Stop | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = yield _to_be_shown(step, request)


def _to_be_shown(step: PredictionStep, request: Request) -> Any:
    if isinstance(step, TileDone):
        return _piece(step, request)
    if isinstance(step, PlaneDone):
        where = (step.plane, step.planes_done, step.n_planes)
        objects = None if step.objects is None else _plane_labels(step.objects[request.box], *where)
        return _plane_labels(step.labels[request.box], *where, objects)
    return step


def _may_keep(request: Request) -> bool:
    n_pixels = math.prod((*request.planes_shape, *request.image.label_shape[-2:]))
    n_bytes = 4 * n_pixels * request.info.architecture.n_classes
    return n_bytes <= _KEPT_SHARE * available_bytes(torch.device("cpu"))


def _piece(step: TileDone, request: Request) -> Piece:
    rows, columns = (_cut(part, wanted) for part, wanted in zip(step.box, request.box, strict=True))
    probabilities = step.probabilities[
        :, _shifted(rows, step.box[0].start), _shifted(columns, step.box[1].start)
    ]
    return Piece(
        step.plane, (rows, columns), provisional(probabilities, request), step.tiles_done, step.n_tiles
    )


def _plane_labels(
    labels: NDArray[np.int32],
    plane: Index,
    planes_done: int,
    n_planes: int,
    objects: PlaneLabels | None = None,
) -> PlaneLabels:
    last_id = int(labels.max(initial=0))
    first_id = int(labels.min(where=labels > 0, initial=last_id))
    if label_dtype(last_id) is np.int32:
        _get_ready_for_wide_ids()
    narrow = labels.astype(label_dtype(last_id))
    return PlaneLabels(plane, narrow, first_id, last_id, planes_done, n_planes, objects)


@cache
def _get_ready_for_wide_ids() -> None:
    """Let napari load in this thread what it draws 32 bit labels with: half a second, the first time."""
    Labels(np.zeros((1, 1), np.int32))


def provisional(probabilities: NDArray[np.float32], request: Request) -> NDArray[Any]:
    """What an incomplete plane shows: (Y, X) classes, or 1 where the threshold is passed."""
    if request.info.task == "classes":
        return np.asarray(probabilities.argmax(axis=0), np.uint8)
    is_foreground = (1 - probabilities[0]) > request.objects.threshold
    return np.where(is_foreground, np.uint8(PROVISIONAL_ID), np.uint8(0))


def relabel_steps(
    prediction: Prediction,
    request: Request,
    settings: ObjectSettings,
    planes: Sequence[Index],
    first: Index | None,
) -> Generator[PlaneLabels, Stop | None, Prediction | None]:
    """Make the labels of finished probabilities anew, the plane in view first; None when it was stopped.

    Parameters
    ----------
    planes
        Those that are complete, in order.
    first
        The one in view, if it is among them.
    """
    labels = np.zeros_like(prediction.labels)
    settings = settings.settled(request.info.objects, prediction.zoom)
    last_id = 0
    for n_done, plane in enumerate(_in_view_first(planes, first)):
        is_preview = n_done == 0 and len(planes) > 1 and plane == first
        found = _labels_of(prediction, request, settings, plane)
        if request.info.task == "instances":
            offset = _first_id(prediction.labels[plane]) - 1 if is_preview else last_id
            found[found > 0] += offset
            last_id = last_id if is_preview else max(last_id, int(found.max(initial=0)))
        labels[plane] = found
        if (yield _plane_labels(found[request.box], plane, n_done, len(planes))) is STOP:
            return None
    return replace(prediction, labels=labels, objects=labels, object_settings=settings)


def _in_view_first(planes: Sequence[Index], first: Index | None) -> Iterator[Index]:
    if first is not None and first in planes and len(planes) > 1:
        yield first
    yield from planes


def _labels_of(
    prediction: Prediction, request: Request, settings: ObjectSettings, plane: Index
) -> NDArray[np.int32]:
    """Labels (Y, X) of one plane; 0 outside the box."""
    labels = np.zeros(prediction.labels.shape[-2:], np.int32)
    probabilities = np.moveaxis(prediction.probabilities, 0, -3)[plane]
    labels[request.box] = label_probabilities(
        probabilities[(slice(None), *request.box)],
        request.info.task,
        settings,
        pixel_size_nm=prediction.pixel_size_nm,
    )
    return labels


def _first_id(labels: NDArray[np.int32]) -> int:
    """The smallest id of a plane; 1 when it has none."""
    return int(labels.min(where=labels > 0, initial=max(1, int(labels.max(initial=0)))))


def _cut(part: slice, wanted: slice) -> slice:
    start = max(part.start, wanted.start)
    return slice(start, max(start, min(part.stop, wanted.stop)))


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start - by, part.stop - by)
