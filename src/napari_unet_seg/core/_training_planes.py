"""Annotated planes on the model's grid with the parts of their weight maps, as training and scoring use them.

What a plane costs to prepare is paid again only when its image or its annotation has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo, Task
from napari_unet_seg.core.normalisation import NoFinitePixelError, apply, plane_statistics
from napari_unet_seg.core.rescaling import Floats, checked_zoom, zoomed_length, zoomed_region
from napari_unet_seg.core.tiling import Span
from napari_unet_seg.core.weight_map import WeightParts, WeightSettings, carve_gaps, weight_parts

Box = tuple[slice, slice]
Zoom = tuple[float, float]


@dataclass(frozen=True, eq=False)
class TrainingPlane:
    """An annotated plane, cut to what is annotated and the context that patches around it can see.

    Attributes
    ----------
    identity
        The same for the same image, whatever is annotated in it.
    shape
        (Y, X) of the whole plane on the model's grid.
    box
        What of it the arrays show.
    image
        (C, y, x) float32, normalised.
    labels
        (y, x) int32, 0 where nothing is annotated; touching objects still touch.
    carved
        The labels with a gap of one pixel between touching objects.
    annotated
        (y, x) bool.
    parts
        Of the weight map, from all that is annotated.
    has_gaps_in_image
        Whether there were NaN or infinite pixels, which became the median.
    """

    identity: str
    shape: tuple[int, int]
    box: Box
    image: Floats
    labels: NDArray[np.int32]
    carved: NDArray[np.int32]
    annotated: NDArray[np.bool_]
    parts: WeightParts
    has_gaps_in_image: bool = False

    @cached_property
    def complete_areas(self) -> NDArray[np.intp]:
        """Pixels of each object that no pixel without annotation touches."""
        areas = np.bincount(self.labels.ravel())
        areas[0] = 0
        if not self.annotated.all():
            beside = ndimage.binary_dilation(~self.annotated, np.ones((3, 3), bool))
            areas[np.unique(self.labels[beside])] = 0
        return areas[areas > 0]

    @cached_property
    def n_objects(self) -> int:
        """How many ids are annotated."""
        return int(np.count_nonzero(np.bincount(self.labels.ravel())[1:]))


@dataclass(frozen=True)
class Grid:
    """The pixels in which a model sees images.

    Attributes
    ----------
    pixel_size_nm
        None where it is not known.
    usual_zoom
        Its pixels per pixel of an image whose pixel size does not tell it.
    is_usual
        Whether there are such images in a training.
    """

    pixel_size_nm: float | None
    usual_zoom: float
    is_usual: bool = False

    def zoom_of(self, annotation: Annotation) -> Zoom:
        """Its pixels per pixel of an image, along Y and X.

        Raises
        ------
        InputError
            The pixel sizes are so far apart that a unit must be wrong.
        """
        sizes = _in_plane_nm(annotation)
        if sizes is None or self.pixel_size_nm is None:
            return self.usual_zoom, self.usual_zoom
        return checked_zoom(sizes[0] / self.pixel_size_nm, sizes[1] / self.pixel_size_nm)


class PlaneShop:
    """Makes planes from annotations, and remembers those that it made last.

    Parameters
    ----------
    info
        The model's task, normalisation and grid.
    weights
        The weight map.
    grid
        To which images are brought.
    reach_px
        How much context is kept around what is annotated.
    """

    def __init__(self, info: ModelInfo, weights: WeightSettings, grid: Grid, reach_px: int) -> None:
        self._info, self._weights = info, weights
        self._grid, self._reach_px = grid, reach_px
        self._made: dict[str, TrainingPlane] = {}
        self._latest: dict[str, TrainingPlane] = {}

    def planes(self, annotations: Sequence[Annotation]) -> list[TrainingPlane]:
        """Every annotated plane that has a finite pixel.

        Raises
        ------
        InputError
            Image and model do not fit, or no annotated plane has a finite pixel.
        """
        made: dict[str, TrainingPlane] = {}
        planes, unusable = [], None
        for annotation in annotations:
            zoom = self._grid.zoom_of(annotation)
            for image, labels, annotated in _annotated_planes(annotation, self._info):
                identity = _digest(image, zoom)
                key = _digest(labels, annotated, identity)
                if not _nearest(annotated, zoom).any():  # a speck between the pixels of a coarser grid
                    continue
                try:
                    plane = self._made.get(key) or made.get(key)
                    made[key] = plane or self._make(identity, image, labels, annotated, zoom)
                except NoFinitePixelError as error:
                    unusable = error
                    continue
                planes.append(made[key])
        if unusable is not None and not planes:
            raise unusable
        self._made = made
        self._latest = {plane.identity: plane for plane in planes}
        return planes

    def _make(
        self,
        identity: str,
        image: NDArray[Any],
        labels: NDArray[Any],
        annotated: NDArray[np.bool_],
        zoom: Zoom,
    ) -> TrainingPlane:
        """Normalise, zoom, cut, carve and weigh; of a plane that is known, only where it has changed."""
        counted, mask = _nearest(labels, zoom), _nearest(annotated, zoom)
        box = _around(mask, self._reach_px)
        counted, mask = _small_ids(counted[box], self._info.task), np.array(mask[box])
        before = self._latest.get(identity)
        if before is not None and before.box == box and self._info.task == "instances":
            return self._changed(before, counted, mask)
        statistics = plane_statistics(image, self._info.normalisation)
        rows, columns = (Span(part.start, part.stop) for part in box)

        def read(rows: Span, columns: Span) -> Floats:
            part = image[:, rows.start : rows.stop, columns.start : columns.stop]
            return apply(part, statistics)

        return TrainingPlane(
            identity=identity,
            shape=(zoomed_length(image.shape[1], zoom[0]), zoomed_length(image.shape[2], zoom[1])),
            box=box,
            image=zoomed_region(read, (image.shape[1], image.shape[2]), rows, columns, zoom),
            labels=counted,
            carved=carve_gaps(counted, task=self._info.task).astype(np.int32),
            annotated=mask,
            parts=self._parts(counted, mask),
            has_gaps_in_image=statistics.n_not_finite > 0,
        )

    def _changed(
        self, before: TrainingPlane, labels: NDArray[np.int32], annotated: NDArray[np.bool_]
    ) -> TrainingPlane:
        """The same plane with another annotation: all that a change can be seen in is made anew."""
        is_changed = (before.labels != labels) | (before.annotated != annotated)
        if not is_changed.any():
            return before
        part = self._parts(labels, annotated, _around(is_changed, 0))
        classes, border, carved = (
            before.parts.classes.copy(),
            before.parts.border.copy(),
            before.carved.copy(),
        )
        classes[part.box], border[part.box] = part.classes, part.border
        seen, needed = _around(is_changed, 1), _around(is_changed, 2)  # a gap depends on the pixels beside it
        rows, columns = (
            slice(of.start - around.start, of.stop - around.start)
            for of, around in zip(seen, needed, strict=True)
        )
        carved = before.carved.copy()
        carved[seen] = carve_gaps(labels[needed])[rows, columns]
        parts = replace(before.parts, classes=classes, border=border)
        return replace(before, labels=labels, annotated=annotated, carved=carved, parts=parts)

    def _parts(
        self, labels: NDArray[np.int32], annotated: NDArray[np.bool_], changed: Box | None = None
    ) -> WeightParts:
        return weight_parts(
            labels,
            self._weights,
            changed=changed,
            annotated=annotated,
            task=self._info.task,
            n_classes=self._info.architecture.n_classes,
        )


def grid_of(annotations: Sequence[Annotation], info: ModelInfo, zoom: float | None) -> Grid:
    """The grid of a model; where it knows no pixel size, that of the annotations decides.

    Parameters
    ----------
    zoom
        As asked for, of images of which the pixel sizes do not tell it.
    """
    usual = info.usual_zoom if zoom is None else zoom
    finest_nm = _finest_pixel_size(annotations)
    return Grid(
        pixel_size_nm=info.pixel_size_nm or (finest_nm / usual if finest_nm else None),
        usual_zoom=usual,
        is_usual=info.pixel_size_nm is None or any(each.pixel_size_nm is None for each in annotations),
    )


def _finest_pixel_size(annotations: Sequence[Annotation]) -> float | None:
    """The finest pixel size in nm, when every annotation has one."""
    sizes = [_in_plane_nm(annotation) for annotation in annotations]
    known = [min(size) for size in sizes if size]
    return min(known) if len(known) == len(sizes) and known else None


def _annotated_planes(
    annotation: Annotation, info: ModelInfo
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]]:
    """Image (C, Y, X), labels (Y, X), 0 where they don't count, and where they do, of each plane."""
    image = _channels_and_planes(annotation, info)
    labels = annotation.labels.reshape(image.shape[1:])
    annotated = annotation.annotated_mask.reshape(labels.shape)
    for index in range(image.shape[1]):
        if annotated[index].any():
            counted = np.where(annotated[index], labels[index], labels.dtype.type(0))
            _check_classes(counted, info)
            yield image[:, index], counted, annotated[index]


def _channels_and_planes(annotation: Annotation, info: ModelInfo) -> NDArray[np.generic]:
    """Return the image as (C, planes, Y, X)."""
    image, axes = annotation.image, annotation.axes
    channels = image.shape[axes.index("C")] if "C" in axes else 1
    if channels != info.architecture.in_channels:
        raise InputError(
            f"The training image has {channels} channel(s), but model '{info.name}' takes "
            f"{info.architecture.in_channels}: choose a channel, or convert it to grey."
        )
    if image.dtype.kind == "b":
        image = image.astype(np.uint8)
    image = np.moveaxis(image, axes.index("C"), 0) if "C" in axes else image[np.newaxis]
    return image.reshape(channels, -1, *image.shape[-2:])


def _check_classes(labels: NDArray[Any], info: ModelInfo) -> None:
    if info.task == "classes" and labels.max() >= info.architecture.n_classes:
        raise InputError(
            f"The labels go up to class {labels.max()}, but model '{info.name}' has classes 0 to "
            f"{info.architecture.n_classes - 1}: check the labels, or choose another model."
        )


def _small_ids(labels: NDArray[Any], task: Task) -> NDArray[np.int32]:
    """The same objects; ids that are larger than there are pixels would cost memory, or not fit 32 bit."""
    if task == "instances" and labels.max(initial=0) > labels.size:
        ids, numbers = np.unique(labels, return_inverse=True)
        first = 0 if ids[0] == 0 else 1
        labels = numbers.reshape(labels.shape) + first
    return labels.astype(np.int32)


def _in_plane_nm(annotation: Annotation) -> tuple[float, float] | None:
    """Return the pixel size along Y and X."""
    if annotation.pixel_size_nm is None:
        return None
    y_nm, x_nm = np.broadcast_to(np.atleast_1d(annotation.pixel_size_nm)[-2:], 2)
    return float(y_nm), float(x_nm)


def _nearest(labels: NDArray[Any], zoom: Zoom) -> NDArray[Any]:
    """Resample (Y, X) to the pixels of the zoomed image: the label at (i + 0.5) / zoom."""
    if zoom == (1.0, 1.0):
        return labels
    indices = [
        np.minimum(((np.arange(zoomed_length(length, factor)) + 0.5) / factor).astype(np.intp), length - 1)
        for length, factor in zip(labels.shape, zoom, strict=True)
    ]
    return labels[np.ix_(*indices)]


def _around(mask: NDArray[np.bool_], reach_px: int) -> Box:
    """The box of the mask, grown, as far as there are pixels."""
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    rows, columns = (
        slice(max(0, int(span[0]) - reach_px), min(length, int(span[-1]) + 1 + reach_px))
        for span, length in zip(spans, mask.shape, strict=True)
    )
    return rows, columns


def _digest(*parts: NDArray[Any] | Zoom | str) -> str:
    """A name for the content."""
    digest = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()
