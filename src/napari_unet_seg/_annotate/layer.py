"""What a person says by painting: labels layers that are annotations, and where in them labels count; no Qt.

Layers are duck-typed: whatever has napari's attributes will do. Everything here runs on the main thread.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_unet_seg._layers import (
    METADATA,
    Index,
    LayerImage,
    Part,
    label_dtype,
    placement,
    read_image,
    unused_name,
)
from napari_unet_seg.core._axes import PlaneView, understand
from napari_unet_seg.core._label_checks import by
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.errors import InputError

Coding: TypeAlias = Literal["dense", "scribbles", "regions", "planes", "corrections"]
CODINGS: tuple[Coding, ...] = get_args(Coding)

Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of a plane."""
IntArray: TypeAlias = NDArray[np.integer[Any]]

RIM_PX = 3
"""How far around a checked object its surroundings count, too: its border was looked at with it."""

_MAP_NORESERVE = 0x4000  # Python 3.11 has no name for it


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


# Making and finding them


def new_annotation_layer(viewer: Any, image_layer: Any, *, coding: Coding = "scribbles") -> Any:
    """Add an empty labels layer for an image, where the image lies.

    Raises
    ------
    InputError
        The layer is no image that can be annotated, or there is not enough memory.
    """
    image = read_image(image_layer)
    layer = viewer.add_labels(
        empty_labels(image.label_shape, image.name),
        name=unused_name(viewer, f"{image.name} › annotation"),
        metadata={METADATA: _entry(coding, image_layer)},
        **placement(image_layer, image.axes.replace("S", ""), image.label_axes),
    )
    layer.selected_label = first_object_id(coding)
    return layer


def correction_layer(viewer: Any, prediction_labels_layer: Any, image_layer: Any) -> Any:
    """Add a copy of predicted labels, in which nothing counts until a person has touched or checked it.

    What was touched is what differs from the prediction as it is now, so undoing takes it back.

    Raises
    ------
    InputError
        The labels do not belong to the image, or there is not enough memory.
    """
    image = read_image(image_layer)
    _check_is_labels(prediction_labels_layer)
    check_fit(prediction_labels_layer, image)
    predicted = _data_of(prediction_labels_layer)
    planes = _planes_with_objects(predicted)
    largest = max(planes.values(), default=0)
    dtype = label_dtype(largest)
    # A copy of its own to compare with: the Segment dock goes on writing into the layer of the prediction.
    kept, corrected = (_copy_of_planes(predicted, planes, dtype, image.name) for _ in range(2))
    said = {"predicted": kept, "prediction": str(prediction_labels_layer.name)}
    classes = class_names_of(prediction_labels_layer)
    layer = viewer.add_labels(
        corrected,
        name=unused_name(viewer, f"{image.name} › corrections"),
        metadata={METADATA: _entry("corrections", image_layer) | said | {"classes": classes}},
        **placement(image_layer, image.axes.replace("S", ""), image.label_axes),
    )
    layer.selected_label = 1 if classes else largest + 1
    return layer


def _planes_with_objects(labels: Any) -> dict[Index, int]:
    """The largest id of each plane that has one."""
    largest = {
        plane: int(np.asarray(labels[plane]).max(initial=0)) for plane in np.ndindex(*labels.shape[:-2])
    }
    return {plane: object_id for plane, object_id in largest.items() if object_id > 0}


def _copy_of_planes(labels: Any, planes: Iterable[Index], dtype: DTypeLike, name: str) -> IntArray:
    """A copy that takes memory only for the planes named: of a large stack a few may be segmented."""
    copy = empty_labels(labels.shape, name, dtype)
    for plane in planes:
        copy[plane] = labels[plane]
    return copy


def adopt(layer: Any, coding: Coding, image_layer: Any = None) -> None:
    """Make an existing labels layer an annotation: note what its labels mean; its data stay as they are.

    Raises
    ------
    InputError
        It cannot be painted in, or its labels are none.
    """
    name, way_out = f"Labels '{layer.name}'", "press New for a layer that can."
    _check_is_labels(layer)
    if layer.multiscale:
        raise InputError(f"{name} is a pyramid, which cannot be painted in: {way_out}")
    data = layer.data
    if not isinstance(data, np.ndarray):
        kind = type(data).__module__.partition(".")[0]
        raise InputError(f"{name} is a {kind} array and cannot be painted in quickly and undone: {way_out}")
    if not data.flags.writeable:
        raise InputError(f"{name} is read-only and cannot be painted in: {way_out}")
    if not np.issubdtype(data.dtype, np.integer):
        raise InputError(f"{name} is {data.dtype}, and ids are integers: {way_out}")
    if np.issubdtype(data.dtype, np.signedinteger) and data.min(initial=0) < 0:
        raise InputError(f"{name} holds the negative id {data.min()}: ids are 0 and up; {way_out}")
    said = _said(layer)
    layer.metadata[METADATA] = _entry(coding, None) | said | {"coding": coding}
    if image_layer is not None:
        layer.metadata[METADATA]["image"] = str(image_layer.unique_id)


def _check_is_labels(layer: Any) -> None:
    if getattr(layer, "_type_string", "labels") != "labels" or not hasattr(layer, "selected_label"):
        raise InputError(f"Layer '{layer.name}' is not a labels layer: choose one, or press New.")


def coding_of(layer: Any) -> Coding | None:
    """What the labels of a layer mean; None when it is no annotation."""
    coding = _said(layer).get("coding")
    return coding if coding in CODINGS else None


def class_names_of(layer: Any) -> tuple[str, ...]:
    """Names of the classes, the background first, that the labels of a class map are; else empty."""
    return tuple(_said(layer).get("classes", ()))


def first_object_id(coding: Coding) -> int:
    """The smallest id of an object: among scribbles, 1 is background."""
    return 2 if coding == "scribbles" else 1


def new_regions_layer(viewer: Any, labels_layer: Any) -> Any:
    """Add the shapes layer whose rectangles say where the labels of a layer count."""
    axes = "".join(str(number) for number in range(labels_layer.ndim))
    return viewer.add_shapes(
        ndim=labels_layer.ndim,
        name=unused_name(viewer, f"{labels_layer.name} › regions"),
        metadata={"regions_of": str(labels_layer.unique_id)},
        face_color="transparent",
        edge_color="#ffb000",
        edge_width=2,
        **placement(labels_layer, axes, axes),
    )


def regions_layer_of(viewer_layers: Iterable[Any], labels_layer: Any) -> Any:
    """The shapes layer whose rectangles belong to a labels layer; None when there is none."""
    owner = str(labels_layer.unique_id)
    return next((layer for layer in viewer_layers if layer.metadata.get("regions_of") == owner), None)


def image_layer_of(viewer_layers: Iterable[Any], labels_layer: Any) -> Any:
    """The image that a labels layer annotates: the one it was made for, else one that it fits; or None."""
    images = [layer for layer in viewer_layers if getattr(layer, "_type_string", "") == "image"]
    wanted = _said(labels_layer).get("image")
    made_for = next((layer for layer in images if str(layer.unique_id) == wanted), None)
    return made_for or next((layer for layer in images if _fits(labels_layer, layer)), None)


def check_fit(labels_layer: Any, image: LayerImage) -> None:
    """Refuse labels that do not have the image's shape.

    Raises
    ------
    InputError
        With both shapes, and what to do.
    """
    shape = _data_of(labels_layer).shape
    if tuple(shape) != image.label_shape:
        raise InputError(
            f"Labels '{labels_layer.name}' is {by(shape)} but image '{image.name}' is "
            f"{by(image.label_shape)}: draw on all slices, or choose one."
        )


def _fits(labels_layer: Any, image_layer: Any) -> bool:
    try:
        check_fit(labels_layer, read_image(image_layer))
    except InputError:
        return False
    return True


def _entry(coding: Coding, image_layer: Any) -> dict[str, Any]:
    """What our entry in an annotation's metadata holds at first."""
    entry: dict[str, Any] = {"coding": coding, "planes": [], "touched": {}, "checked": set()}
    return entry if image_layer is None else entry | {"image": str(image_layer.unique_id)}


def empty_labels(shape: tuple[int, ...], name: str, dtype: DTypeLike = np.uint16) -> IntArray:
    """Zeros, of which only what is painted takes memory.

    Raises
    ------
    InputError
        There is not enough memory for the labels of the image of that name.
    """
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        return np.zeros(shape, dtype)
    except MemoryError as error:
        # Linux refuses what is larger than the memory unless it is told that not all of it will be used.
        if not sys.platform.startswith("linux"):
            raise _too_large(name, n_bytes) from error
    try:
        pages = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    except OSError as error:
        raise _too_large(name, n_bytes) from error
    return np.frombuffer(pages, dtype).reshape(shape)


def _too_large(name: str, n_bytes: int) -> InputError:
    return InputError(
        f"Labels for '{name}' take {n_bytes / 1e9:.0f} GB, and there is less memory: open fewer planes."
    )


# What counts


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
    return _view(labels_layer, _coding_that_counts(labels_layer), boxes, None)


def _view(
    labels: Any, coding: Coding, boxes: Mapping[Index, Sequence[Box]], planes: Sequence[int] | None
) -> AnnotationView:
    said = _said(labels)
    return AnnotationView(
        _data_of(labels),
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


def annotation_from_layers(
    image: Any,
    labels: Any,
    *,
    coding: Coding | None = None,
    regions: Any = None,
    planes: Sequence[int] | None = None,
    channel: int | Literal["grey"] | None = None,
    pixel_size_nm: tuple[float, float] | None = None,
) -> Annotation:
    """What a person has said about an image by painting a labels layer.

    Of a stack, only the planes on which something counts are read: the annotation holds these, one after
    the other along a single axis.

    Parameters
    ----------
    image, labels
        Layers; the labels have the image's axes without channels.
    coding
        What a label means, and where it counts. "scribbles": 0 not annotated, 1 background, 2 and up objects.
        "regions": everything inside the rectangles of `regions`, a shapes layer. "planes": everything in the
        listed planes. "dense": everything. "corrections", a copy of a prediction: what was painted since or
        marked as checked, and what lies in regions or listed planes. None: regions or planes when they are
        given, else as the layer's metadata says.
    regions, planes
        See `coding`.
    channel
        The only one to keep, for a model that sees one; "grey" is the luminance of red, green and blue.
    pixel_size_nm
        (Y, X), where the image's layer does not know it.

    Raises
    ------
    InputError
        The layers do not fit each other, nothing is annotated, or the coding or the channel is not known.
    """
    found = read_image(image)
    check_fit(labels, found)
    coding = coding or _coding_given(regions, planes) or _coding_that_counts(labels)
    _check_wish(coding, regions, planes, found.label_shape)
    view = _view(labels, coding, boxes_by_plane(regions, labels), planes)
    wanted = list(view.annotated_planes())
    if not wanted:
        raise InputError(_NOTHING[coding])
    said = [view.read(plane) for plane in wanted]
    axes, values = _axes_of_planes(found), _read_planes(found, wanted)
    if channel is not None:
        axes, values = _one_channel(axes, values, channel)
    where: dict[str, Any] = {"axes": axes, "pixel_size_nm": _pixel_size_of(found) or pixel_size_nm}
    if len(found.label_axes) == 2:
        drawn, annotated = said[0].labels, said[0].annotated
    else:
        drawn, annotated = np.stack([one.labels for one in said]), np.stack([one.annotated for one in said])
    if coding == "dense":
        return Annotation.dense(values, drawn, **where)
    return Annotation(values, drawn, annotated, **where)


_NOTHING: dict[Coding, str] = {
    "dense": "There are no labels: choose a layer that has some.",
    "scribbles": "Nothing is annotated: paint background with 1 and objects with 2 and up.",
    "regions": "There is no rectangle: draw one around what is annotated, and give its layer as regions=.",
    "planes": "Nothing is annotated: name the planes that are complete.",
    "corrections": "Nothing is annotated: paint where the prediction is wrong, or mark objects as checked.",
}


def _check_wish(coding: str, regions: Any, planes: Sequence[int] | None, shape: Sequence[int]) -> None:
    if coding not in CODINGS:
        raise InputError(f"Coding '{coding}' is unknown: choose one of {', '.join(CODINGS)}.")
    if regions is not None and regions.ndim < len(shape):
        raise InputError(
            f"The rectangles of '{regions.name}' lie on no plane of the stack: draw them on a layer that has "
            "its axes."
        )
    n_planes = shape[0] if len(shape) > 2 else 1
    outside = [plane for plane in planes or () if not 0 <= plane < n_planes]
    if outside:
        raise InputError(f"Plane {outside[0]} does not exist: choose from 0 to {n_planes - 1}.")


def _axes_of_planes(image: LayerImage) -> str:
    """Of the planes that were read: one axis for all of them, channels where they were."""
    dropped = image.label_axes[:-3]
    return "".join(axis for axis in image.axes.replace("S", "C") if axis not in dropped)


def _read_planes(image: LayerImage, planes: Sequence[Index]) -> NDArray[Any]:
    """One by one, so that a stack on disk stays there; axes as `_axes_of_planes` says."""
    lead = image.label_axes[:-2]
    parts = (Part(image.data, image.axes, dict(zip(lead, plane, strict=True))) for plane in planes)
    read = [np.array(part[(slice(None),) * len(part.shape)]) for part in parts]
    if not lead:
        return read[0]
    return np.stack(read, axis=_axes_of_planes(image).index(lead[-1]))


def _one_channel(axes: str, values: NDArray[Any], channel: int | Literal["grey"]) -> tuple[str, NDArray[Any]]:
    """An image without its channel axis, and the axes that it still has."""
    layout = understand(values.shape, values.dtype, axes=axes, channel=channel, in_channels=1)
    planes = [PlaneView(values, layout, plane)[:, :, :] for plane in layout.planes()]
    return axes.replace("C", ""), np.concatenate(planes).reshape(*layout.plane_counts, *layout.plane_shape)


def _said(layer: Any) -> dict[str, Any]:
    """Our entry in the layer's metadata."""
    entry = layer.metadata.get(METADATA, {})
    return entry if isinstance(entry, dict) else {}


def _data_of(labels: Any) -> Any:
    return labels.data[0] if labels.multiscale else labels.data


def _whole(data: Any) -> Box:
    height, width = data.shape[-2:]
    return slice(0, height), slice(0, width)


def _coding_given(regions: Any, planes: Sequence[int] | None) -> Coding | None:
    if regions is not None:
        return "regions"
    return None if planes is None else "planes"


def _coding_that_counts(labels: Any) -> Coding:
    coding = coding_of(labels)
    if coding is None:
        raise InputError(
            f"Labels '{labels.name}' does not say what counts as annotated: "
            "give coding='scribbles' or 'dense', or regions= or planes=."
        )
    return coding


def boxes_by_plane(shapes: Any, labels: Any) -> dict[Index, list[Box]]:
    """What the bounding boxes of shapes touch of the labels, cut at the edge; empty without a layer."""
    boxes: dict[Index, list[Box]] = {}
    shape = _data_of(labels).shape
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


def _within(region: Box, box: Box) -> Box:
    """A region in a box's own rows and columns."""
    rows, columns = (
        slice(max(0, part.start - frame.start), max(0, min(part.stop, frame.stop) - frame.start))
        for part, frame in zip(region, box, strict=True)
    )
    return rows, columns


def _pixel_size_of(image: LayerImage) -> float | tuple[float, ...] | None:
    sizes = image.voxel_size_nm
    axes = image.label_axes[-3:]
    if set(axes) <= sizes.keys():
        return tuple(sizes[axis] for axis in axes)
    return sizes["Y"] if "Y" in sizes and sizes["Y"] == sizes.get("X") else None
