"""New layers for an annotation: empty labels, copies of a prediction, rectangles; no Qt."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from napari_unet_seg._annotate.layer import (
    Coding,
    check_fit,
    check_is_labels,
    class_names_of,
    data_of,
    first_object_id,
    new_entry,
)
from napari_unet_seg._annotate.what_counts import IntArray
from napari_unet_seg._layers import METADATA, Index, label_dtype, placement, read_image, unused_name
from napari_unet_seg.core.errors import InputError

_MAP_NORESERVE = 0x4000  # Python 3.11 has no name for it


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
        metadata={METADATA: new_entry(coding, image_layer)},
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
    check_is_labels(prediction_labels_layer)
    check_fit(prediction_labels_layer, image)
    predicted = data_of(prediction_labels_layer)
    planes = _planes_with_objects(predicted)
    largest = max(planes.values(), default=0)
    dtype = _dtype_for(largest, str(prediction_labels_layer.name))
    # A copy of its own to compare with: the Segment dock goes on writing into the layer of the prediction.
    kept, corrected = (_copy_of_planes(predicted, planes, dtype, image.name) for _ in range(2))
    said = {"predicted": kept, "prediction": str(prediction_labels_layer.name)}
    classes = class_names_of(prediction_labels_layer)
    layer = viewer.add_labels(
        corrected,
        name=unused_name(viewer, f"{image.name} › corrections"),
        metadata={METADATA: new_entry("corrections", image_layer) | said | {"classes": classes}},
        **placement(image_layer, image.axes.replace("S", ""), image.label_axes),
    )
    layer.selected_label = 1 if classes else largest + 1
    return layer


def _dtype_for(largest: int, name: str) -> DTypeLike:
    """The narrowest type of labels that holds an id; ids stay as they are."""
    if largest <= np.iinfo(np.int32).max:
        return label_dtype(largest)
    if largest <= np.iinfo(np.int64).max:
        return np.int64
    raise InputError(f"Labels '{name}' holds the id {largest}, which is too large: number its objects anew.")


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


def is_empty_map(data: Any) -> bool:
    """Whether an array just made by `empty_labels` is a map of memory, which it is when it is very large."""
    while isinstance(data, np.ndarray) and not isinstance(data, np.memmap):
        data = data.base
    return isinstance(data, memoryview | mmap.mmap)


def _too_large(name: str, n_bytes: int) -> InputError:
    return InputError(
        f"Labels for '{name}' take {n_bytes / 1e9:.0f} GB, and there is less memory: open fewer planes."
    )
