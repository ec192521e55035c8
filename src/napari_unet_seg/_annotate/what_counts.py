"""What counts in an annotation layer, plane by plane, whatever its coding; no Qt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._annotate.layer import Coding, class_names_of, coding_that_counts, data_of, said_of
from napari_unet_seg._layers import Index

Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of a plane."""
IntArray: TypeAlias = NDArray[np.integer[Any]]

RIM_PX = 3
"""How far around a checked object its surroundings count, too: its border was looked at with it."""


@dataclass(frozen=True, eq=False)
class PlaneAnnotation:
    """A plane, or a box of it: copies, whatever the coding of the layer.

    Attributes
    ----------
    labels
        (Y, X): 0 background, >= 1 objects.
    annotated
        (Y, X): only where it is True do labels count.
    """

    labels: IntArray
    annotated: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class AnnotationView:
    """What a layer says, to read many planes of it, also in a thread, which may see a stroke half done.

    Attributes
    ----------
    data
        The layer's own, not copied.
    planes
        Of the first axis, annotated as a whole.
    regions
        Rows and columns of the rectangles, by plane.
    touched
        By plane, (Y, X) masks of what a person painted in a copy of a prediction.
    predicted
        What that copy was made of, where it is known: what differs from it was touched, too.
    checked
        Ids of predicted objects that a person has found right.
    class_names
        Of a class map, where ids are classes and not objects.
    """

    data: Any
    coding: Coding
    planes: frozenset[int] = frozenset()
    regions: Mapping[Index, Sequence[Box]] = field(default_factory=dict)
    touched: Mapping[Index, NDArray[np.bool_]] = field(default_factory=dict)
    predicted: Any = None
    checked: frozenset[int] = frozenset()
    class_names: tuple[str, ...] = ()

    def read(self, plane: Index, box: Box | None = None) -> PlaneAnnotation:
        """Labels and where they count, of one plane or a box of it; copies."""
        box = _whole(self.data) if box is None else box
        coded = np.array(self.data[(*plane, *box)])
        annotated = self._where(coded, plane, box)
        if self.coding == "scribbles":
            return PlaneAnnotation(np.where(annotated, coded - coded.dtype.type(1), 0), annotated)
        return PlaneAnnotation(coded, annotated)

    def annotated(self, plane: Index, box: Box | None = None) -> NDArray[np.bool_]:
        """Only where labels count: (Y, X) of one plane or a box of it."""
        box = _whole(self.data) if box is None else box
        return self._where(np.asarray(self.data[(*plane, *box)]), plane, box)

    def annotated_planes(self) -> Iterator[Index]:
        """Those on which anything counts, in order; found while looking through the labels."""
        return (plane for plane in np.ndindex(*self.data.shape[:-2]) if self.reaches(plane))

    def reaches(self, plane: Index) -> bool:
        """Whether anything counts on a plane."""
        if self.coding == "dense" or (self.coding in ("planes", "corrections") and self._lists(plane)):
            return True
        if self.coding == "scribbles":
            return bool(np.asarray(self.data[plane]).max(initial=0) > 0)
        if plane in self.regions and self.coding in ("regions", "corrections"):
            return True
        return self.coding == "corrections" and self._is_corrected(plane)

    def _lists(self, plane: Index) -> bool:
        return (plane[0] if plane else 0) in self.planes

    def _is_corrected(self, plane: Index) -> bool:
        drawn = np.asarray(self.data[plane])
        return bool(
            (plane in self.touched and self.touched[plane].any())
            or (self.predicted is not None and (drawn != self.predicted[plane]).any())
            or (self.checked and np.isin(drawn, list(self.checked)).any())
        )

    def _where(self, drawn: IntArray, plane: Index, box: Box) -> NDArray[np.bool_]:
        if self.coding == "scribbles":
            return np.asarray(drawn > 0)
        is_whole = self.coding == "dense" or (self.coding != "regions" and self._lists(plane))
        annotated = np.full(drawn.shape, is_whole)
        if is_whole or self.coding == "planes":
            return annotated
        for region in self.regions.get(plane, ()):
            annotated[_within(region, box)] = True
        if self.coding == "corrections":
            if plane in self.touched:
                annotated |= self.touched[plane][box]
            if self.predicted is not None:
                annotated |= drawn != self.predicted[(*plane, *box)]
            if self.checked:
                annotated |= self._around_checked(plane, box)
        return annotated

    def _around_checked(self, plane: Index, box: Box) -> NDArray[np.bool_]:
        wider = tuple(
            slice(max(0, part.start - RIM_PX), min(length, part.stop + RIM_PX))
            for part, length in zip(box, self.data.shape[-2:], strict=True)
        )
        is_checked = np.isin(np.asarray(self.data[(*plane, *wider)]), list(self.checked))
        return _with_rim(is_checked)[_within(box, (wider[0], wider[1]))]


def _with_rim(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Everything that is at most `RIM_PX` away: whole rows at a time, since a plane may be large."""
    wider = np.zeros_like(mask)
    for rows_off in range(-RIM_PX, RIM_PX + 1):
        reach = math.isqrt(RIM_PX**2 - rows_off**2)
        for columns_off in range(-reach, reach + 1):
            into, out_of = zip(*(_shift(by) for by in (rows_off, columns_off)), strict=True)
            wider[into] |= mask[out_of]
    return wider


def _shift(by: int) -> tuple[slice, slice]:
    """Where an axis that is moved by so much arrives, and where it comes from."""
    return slice(max(0, by), min(0, by) or None), slice(max(0, -by), min(0, -by) or None)


def view_of(
    labels_layer: Any, regions: Any = None, boxes: Mapping[Index, Sequence[Box]] | None = None
) -> AnnotationView:
    """What a layer says now.

    Parameters
    ----------
    regions
        The shapes layer whose rectangles belong to it, see `regions_layer_of`.
    boxes
        What `boxes_by_plane` has found in these already.

    Raises
    ------
    InputError
        The layer is no annotation.
    """
    if boxes is None:
        boxes = boxes_by_plane(regions, labels_layer)
    return view_with(labels_layer, coding_that_counts(labels_layer), boxes, None)


def view_with(
    labels: Any, coding: Coding, boxes: Mapping[Index, Sequence[Box]], planes: Sequence[int] | None
) -> AnnotationView:
    said = said_of(labels)
    return AnnotationView(
        data_of(labels),
        coding,
        frozenset(planes if planes is not None else said.get("planes", ())),
        boxes,
        dict(said.get("touched", {})),
        said.get("predicted"),
        frozenset(said.get("checked", ())),
        class_names_of(labels),
    )


def read_plane(
    labels_layer: Any, plane: Index, box: Box | None = None, *, regions: Any = None
) -> PlaneAnnotation:
    """What a layer says about one plane, or a box of it; see `view_of`."""
    return view_of(labels_layer, regions).read(plane, box)


def annotated_planes(labels_layer: Any, regions: Any = None) -> list[Index]:
    """The planes of a layer on which anything counts; looks through all of its labels. See `view_of`."""
    return list(view_of(labels_layer, regions).annotated_planes())


def boxes_by_plane(shapes: Any, labels: Any) -> dict[Index, list[Box]]:
    """What the bounding boxes of shapes touch of the labels, cut at the edge; empty without a layer."""
    boxes: dict[Index, list[Box]] = {}
    shape = data_of(labels).shape
    for drawn in () if shapes is None else shapes.data:
        corners = np.array([labels.world_to_data(shapes.data_to_world(corner)) for corner in drawn])
        plane = tuple(round(float(at)) for at in corners[0, :-2])
        box = tuple(
            slice(max(0, int(np.floor(low + 0.5))), min(length, int(np.ceil(high - 0.5)) + 1))
            for low, high, length in zip(
                corners.min(axis=0)[-2:], corners.max(axis=0)[-2:], shape[-2:], strict=True
            )
        )
        is_inside = all(0 <= at < length for at, length in zip(plane, shape, strict=False))
        if is_inside and all(part.start < part.stop for part in box):
            boxes.setdefault(plane, []).append((box[0], box[1]))
    return boxes


def _whole(data: Any) -> Box:
    height, width = data.shape[-2:]
    return slice(0, height), slice(0, width)


def _within(region: Box, box: Box) -> Box:
    """A region in a box's own rows and columns."""
    rows, columns = (
        slice(max(0, part.start - frame.start), max(0, min(part.stop, frame.stop) - frame.start))
        for part, frame in zip(region, box, strict=True)
    )
    return rows, columns
