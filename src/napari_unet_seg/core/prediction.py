"""Prediction of whole images by tiles: the steps that a caller sees, and the result.

Tiled prediction equals one pass over the whole mirrored plane, to rounding. `whole_image_probabilities` is
that pass: the definition that tests and benchmarks compare with.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_unet_seg.core import _tile_size
from napari_unet_seg.core._axes import PlaneView
from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core._memory import empty_cache
from napari_unet_seg.core._plane_checks import PlaneChecks
from napari_unet_seg.core._plane_grid import GridGeometry, PlaneGrid
from napari_unet_seg.core._tile_runner import TileOutput, TileRunner
from napari_unet_seg.core._whole_image import whole_image_probabilities
from napari_unet_seg.core.auto_zoom import FoundZoom, ZoomTrial, with_zoom, zoom_steps
from napari_unet_seg.core.devices import choose_device
from napari_unet_seg.core.errors import InputError, OutOfMemoryError
from napari_unet_seg.core.models import Model, ModelLike, as_model
from napari_unet_seg.core.normalisation import (
    LARGEST_WHOLE_PLANE_PX,
    ArrayLike,
    Normalisation,
    PlaneStatistics,
)
from napari_unet_seg.core.objects import ObjectSettings, Task, label_probabilities, objects_of_class
from napari_unet_seg.core.predict_settings import PredictSettings, Request, resolve
from napari_unet_seg.core.rescaling import Floats
from napari_unet_seg.core.steps import STOP, Note, Stop, run_to_end
from napari_unet_seg.core.tiling import Span

__all__ = [
    "PlaneDone",
    "PredictSettings",
    "Prediction",
    "PredictionStarted",
    "PredictionStep",
    "TileDone",
    "ZoomTrial",
    "predict",
    "prediction_steps",
    "warm_up",
    "whole_image_probabilities",
]

PlaneIndex: TypeAlias = tuple[int, ...]
Box: TypeAlias = tuple[slice, slice]
_WHOLE: Box = (slice(0, None), slice(0, None))


@dataclass(frozen=True)
class PredictionStarted:
    """The first step, but for those of the search for the zoom: what is going to happen.

    Attributes
    ----------
    shape, axes
        Of the labels: the image's, without channels.
    n_tiles
        Over all planes.
    zoom
        Model-grid pixels per image pixel along (Y, X).
    device, device_reason
        Where it runs, and why there.
    notes
        Sentences for the person.
    """

    shape: tuple[int, ...]
    axes: str
    n_planes: int
    n_tiles: int
    tile_px: int
    device: str
    device_reason: str
    zoom: tuple[float, float]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TileDone:
    """Probabilities (classes, y, x) of one box of one plane, in pixels of the image; a read-only view."""

    plane: PlaneIndex
    box: Box
    probabilities: Floats
    tiles_done: int
    n_tiles: int


@dataclass(frozen=True, eq=False)
class PlaneDone:
    """Labels (Y, X) of one complete plane, with the ids that they keep.

    Attributes
    ----------
    objects
        (Y, X) the instances of the object class, where labels are classes and the model names one.
    """

    plane: PlaneIndex
    labels: npt.NDArray[np.int32]
    planes_done: int
    n_planes: int
    objects: npt.NDArray[np.int32] | None = None


PredictionStep: TypeAlias = ZoomTrial | PredictionStarted | TileDone | PlaneDone | Note


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result.

    Attributes
    ----------
    probabilities
        (classes, [T, Z,] Y, X) float32; class 0 is the background. Has no pixels where none were to be kept.
    labels
        ([T, Z,] Y, X) int32: instances with ids unique over the stack, or the class of each pixel.
    objects
        The same shape: instances with ids unique over the stack. Those of the object class where labels are
        classes and the model names one, else the labels themselves; None where labels are classes only.
    axes
        Of the labels.
    zoom
        Model-grid pixels per image pixel along (Y, X).
    found_zoom
        The search that it came from; None where it was known.
    pixel_size_nm
        (Y, X) as the settings said, or None.
    statistics
        How the grey values of each plane were mapped.
    object_settings
        How probabilities became labels, sizes in pixels of the image.
    complete
        False when it was stopped: what was not reached is 0.
    """

    probabilities: Floats
    labels: npt.NDArray[np.int32]
    axes: str
    class_names: tuple[str, ...]
    task: Task
    model_name: str
    zoom: tuple[float, float]
    pixel_size_nm: tuple[float, float] | None
    normalisation: Normalisation
    statistics: dict[PlaneIndex, PlaneStatistics]
    device: str
    tile_px: int
    n_tiles: int
    notes: tuple[str, ...]
    seconds: float
    complete: bool = True
    found_zoom: FoundZoom | None = None
    objects: npt.NDArray[np.int32] | None = None
    object_settings: ObjectSettings = field(default_factory=ObjectSettings)


def predict(image: ArrayLike, model: ModelLike, settings: PredictSettings | None = None) -> Prediction:
    """Segment an image.

    Parameters
    ----------
    image
        (Y, X), (Z, Y, X), or any order of T Z C Y X named by ``settings.axes``; integers or real numbers; may
        be lazy.
    model
        A model, or the name or path of one.
    settings
        How it is read and predicted.

    Raises
    ------
    InputError
        The image cannot be used, or does not fit the model; nothing was started.
    OutOfMemoryError
        Not even the smallest tile fits the memory.
    """
    return run_to_end(prediction_steps(image, model, settings))


def prediction_steps(
    image: ArrayLike,
    model: ModelLike,
    settings: PredictSettings | None = None,
    *,
    keep_probabilities: bool = True,
    probabilities_out: Floats | None = None,
    labels_out: npt.NDArray[np.int32] | None = None,
    region: Box | None = None,
) -> Generator[PredictionStep, Stop | None, Prediction]:
    """Segment an image step by step; send `STOP` to end early with what there is.

    Parameters
    ----------
    image, model, settings
        As of `predict`.
    keep_probabilities
        False: the result holds labels only, and memory one plane of probabilities at a time.
    probabilities_out
        (classes, [T, Z,] Y, X) float32 to be filled, such as a memory map, instead of a new array.
    labels_out
        The same for the labels: ([T, Z,] Y, X) int32, all 0.
    region
        Rows and columns of each plane to segment, as part of it: statistics, tiles and context are those of
        the whole plane, only tiles that reach the region run, and labels are 0 outside.

    Yields
    ------
    ZoomTrial while the zoom is being found, if it has to be; PredictionStarted, then for each plane its
    TileDone and a PlaneDone, and Note where something was decided.

    Raises
    ------
    InputError, OutOfMemoryError
        As of `predict`, at the first step.
    """
    started = time.perf_counter()
    request = resolve(image, as_model(model), settings or PredictSettings())
    region = region or _WHOLE
    _spans(region, request.layout.plane_shape)  # refuses one without pixels
    engine = InferenceNetwork(request.model.network, request.device.device)
    arrays = _Arrays(request, probabilities_out, labels_out, keep=keep_probabilities)
    run: _Run | None = None
    try:
        is_stopped = False
        if request.zoom_unknown is not None:
            found = yield from zoom_steps(request, engine, region)
            is_stopped = found is None
            request = request if found is None else with_zoom(request, found)
        run = _Run(request, engine, arrays, region)
        is_complete = not is_stopped and (yield from run.steps())
        return run.result(time.perf_counter() - started, complete=is_complete)
    finally:
        del engine, run, arrays
        empty_cache(request.device.device)


def warm_up(model: Model, device: str = "auto") -> None:
    """Measure tile sizes for a model now, so that the first prediction in this process starts at once."""
    _tile_size.warm_up(InferenceNetwork(model.network, choose_device(device).device))


class _Arrays:
    """Where a run writes: labels of all planes, and probabilities of all or of the current one."""

    def __init__(
        self,
        request: Request,
        out: Floats | None,
        labels_out: npt.NDArray[np.int32] | None,
        *,
        keep: bool,
    ) -> None:
        layout = request.layout
        shape = (*layout.plane_counts, *layout.plane_shape)
        n_classes = request.model.architecture.n_classes
        self._task = request.model.task
        self._plane_shape = (n_classes, *layout.plane_shape)
        self._keeps = keep or out is not None
        kept_shape = (n_classes, *shape) if self._keeps else (n_classes, *(0 for _ in shape))
        _check_out(out, "probabilities", kept_shape, np.float32)
        _check_out(labels_out, "labels", shape, np.int32)
        try:
            self.labels = np.zeros(shape, np.int32) if labels_out is None else labels_out
            has_class = request.model.info.object_class_id is not None
            self.class_objects = np.zeros(shape, np.int32) if has_class else None
            self.probabilities: Floats = np.zeros(kept_shape, np.float32) if out is None else out
        except MemoryError as error:
            raise OutOfMemoryError(
                f"The result of shape {kept_shape} does not fit the memory: predict fewer planes, or a crop."
            ) from error

    @property
    def objects(self) -> npt.NDArray[np.int32] | None:
        """The instances: the labels themselves, those of one class, or None."""
        return self.labels if self._task == "instances" else self.class_objects

    def plane(self, index: PlaneIndex) -> Floats:
        """(classes, Y, X) to be filled for one plane."""
        if self._keeps:
            plane: Floats = np.moveaxis(self.probabilities, 0, -3)[index]
            return plane
        return np.zeros(self._plane_shape, np.float32)


class _Run:
    """One prediction under way; all that changes while it goes on is here."""

    def __init__(self, request: Request, engine: InferenceNetwork, arrays: _Arrays, region: Box) -> None:
        self._request, self._arrays, self._notes = request, arrays, list(request.notes)
        self._region = region
        self._geometry = GridGeometry(
            request.layout.plane_shape, request.zoom, _spans(region, request.layout.plane_shape)
        )
        n_planes = request.layout.n_planes
        side = request.settings.tile_px or _tile_size.choose_side_px(
            engine, self._geometry.wanted_shape, n_planes
        )
        self._runner = TileRunner(engine, side, tta=request.settings.tta)
        self._statistics: dict[PlaneIndex, PlaneStatistics] = {}
        self._tiles_done = self._planes_done = self._last_id = 0
        # a part, such as a live view, has to be quick
        self._checks = PlaneChecks(request, engine, judges_contrast=region == _WHOLE)

    def steps(self) -> Generator[PredictionStep, Stop | None, bool]:
        """All steps; returns whether it came to its end."""
        if (yield self._started()) is STOP:
            return False
        for index in self._request.layout.planes():
            out = self._arrays.plane(index)
            if not (yield from self._plane_steps(index, out)):
                return False
            self._label(index, out)
            if (yield self._plane_done(index)) is STOP:
                return False
        return True

    def result(self, seconds: float, *, complete: bool) -> Prediction:
        """What there is."""
        request = self._request
        return Prediction(
            probabilities=self._arrays.probabilities,
            labels=self._arrays.labels,
            axes=request.layout.plane_axes + "YX",
            class_names=request.model.class_names,
            task=request.model.task,
            model_name=request.model.name,
            zoom=request.zoom,
            pixel_size_nm=request.settings.pixel_size_yx_nm,
            normalisation=request.model.normalisation,
            statistics=self._statistics,
            device=str(request.device.device),
            tile_px=self._runner.side_px,
            n_tiles=self._tiles_done,
            notes=tuple(self._notes),
            seconds=seconds,
            complete=complete,
            found_zoom=request.found_zoom,
            objects=self._arrays.objects,
            object_settings=request.objects,
        )

    def _started(self) -> PredictionStarted:
        layout = self._request.layout
        return PredictionStarted(
            shape=(*layout.plane_counts, *layout.plane_shape),
            axes=layout.plane_axes + "YX",
            n_planes=layout.n_planes,
            n_tiles=layout.n_planes * len(self._runner.plan(self._geometry)),
            tile_px=self._runner.side_px,
            device=str(self._request.device.device),
            device_reason=self._request.device.reason,
            zoom=self._request.zoom,
            class_names=self._request.model.class_names,
            notes=self._request.notes,
        )

    def _plane_steps(self, index: PlaneIndex, out: Floats) -> Generator[PredictionStep, Stop | None, bool]:
        """Fill `out`; returns False when it was stopped."""
        plane = _in_memory(PlaneView(self._request.image, self._request.layout, index))
        found = self._checks.before(plane, index)
        if found.sentence is not None and not (yield from self._say(found.sentence)):
            return False
        if found.statistics is None:
            out[0] = 1
            return True
        self._statistics[index] = found.statistics
        grid = PlaneGrid(plane, found.statistics, self._geometry)
        for done in self._runner.run(grid):
            if isinstance(done, Note):
                is_going_on = yield from self._say(done.message)
            else:
                is_going_on = (yield self._tile_done(index, grid, out, done)) is not STOP
            if not is_going_on:
                return False
        sentences = yield from self._checks.after_steps(out, met_not_finite=grid.met_not_finite)
        if sentences is None:
            return False
        for sentence in sentences:
            if not (yield from self._say(sentence)):
                return False
        return True

    def _tile_done(self, index: PlaneIndex, grid: PlaneGrid, out: Floats, done: TileOutput) -> TileDone:
        rows, columns = self._geometry.image_box(done.tile)
        box = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        part = out[(slice(None), *box)]
        grid.write(part, done.probabilities, done.tile)
        self._tiles_done += 1
        planes_ahead = self._request.layout.n_planes - self._planes_done - 1
        n_ahead = done.n_waiting + planes_ahead * len(self._runner.plan(self._geometry))
        return TileDone(index, box, _read_only(part), self._tiles_done, self._tiles_done + n_ahead)

    def _label(self, index: PlaneIndex, probabilities: Floats) -> None:
        request = self._request
        labels = label_probabilities(
            probabilities[(slice(None), *self._region)],
            request.model.task,
            request.objects,
            pixel_size_nm=request.settings.pixel_size_yx_nm,
        )
        if request.model.task == "instances":
            self._make_unique(labels)
        self._arrays.labels[index][self._region] = labels
        class_id, class_objects = request.model.info.object_class_id, self._arrays.class_objects
        if class_id is not None and class_objects is not None:
            size = request.settings.pixel_size_yx_nm
            objects = objects_of_class(labels, class_id, request.objects, pixel_size_nm=size)
            self._make_unique(objects)
            class_objects[index][self._region] = objects
        self._planes_done += 1

    def _make_unique(self, ids: npt.NDArray[np.int32]) -> None:
        """Number on after the planes before."""
        ids[ids > 0] += self._last_id
        self._last_id = max(self._last_id, int(ids.max(initial=0)))

    def _plane_done(self, index: PlaneIndex) -> PlaneDone:
        labels, class_objects = _read_only(self._arrays.labels[index]), self._arrays.class_objects
        objects = None if class_objects is None else _read_only(class_objects[index])
        return PlaneDone(index, labels, self._planes_done, self._request.layout.n_planes, objects)

    def _say(self, message: str) -> Generator[PredictionStep, Stop | None, bool]:
        """Say a sentence once; returns False when it was stopped."""
        if message in self._notes:
            return True
        self._notes.append(message)
        return (yield Note(message)) is not STOP


def _check_out(
    out: npt.NDArray[Any] | None, name: str, shape: tuple[int, ...], dtype: type[np.float32 | np.int32]
) -> None:
    if out is not None and (out.shape != shape or out.dtype != dtype):
        wanted = f"{np.dtype(dtype)} {shape}"
        raise InputError(f"The array for {name} is {out.dtype} {out.shape}: it must be {wanted}.")


def _in_memory(plane: PlaneView) -> ArrayLike:
    """A plane that is small enough is read once; a large one stays where it is and is read tile by tile."""
    _, height, width = plane.shape
    return plane[:, :, :] if height * width <= LARGEST_WHOLE_PLANE_PX else plane


def _spans(region: Box, shape: tuple[int, int]) -> tuple[Span, Span]:
    rows, columns = (part.indices(length) for part, length in zip(region, shape, strict=True))
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        raise InputError(f"The region {region} holds no pixel of a plane of shape {shape}: choose another.")
    return Span(*rows[:2]), Span(*columns[:2])


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
