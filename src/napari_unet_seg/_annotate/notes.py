"""What is noted of an annotation beside its labels, out of layers, and layers made of it again; no Qt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_unet_seg._annotate.layer import CODINGS, coding_of, image_layer_of, regions_layer_of
from napari_unet_seg._annotate.new_layers import new_regions_layer
from napari_unet_seg._layers import METADATA, placement, read_image, unused_name
from napari_unet_seg._opening import add_layers, layers_again
from napari_unet_seg.core._label_checks import by
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.saved_annotation import AnnotationNotes, ImageNotes, RegionNotes

# Out of layers


def notes_of(
    viewer_layers: Any, labels: Any, regions: RegionNotes | None, before: AnnotationNotes | None
) -> AnnotationNotes:
    """What is to be noted of an annotation layer now.

    Parameters
    ----------
    regions
        What `regions_of` said last: finding their places takes a moment.
    before
        What was noted last; of an image that was removed since, that is what stays.
    """
    said = labels.metadata.get(METADATA, {})
    return AnnotationNotes(
        name=str(labels.name),
        coding=coding_of(labels) or "",
        shape=tuple(labels.data.shape),
        selected_label=int(labels.selected_label),
        planes=tuple(int(plane) for plane in said.get("planes", ())),
        checked=tuple(sorted(int(label) for label in said.get("checked", ()))),
        classes=tuple(map(str, said.get("classes", ()))),
        regions=regions,
        placement=_plain_placement(labels),
        **_about_image(viewer_layers, labels, before),
    )


def _about_image(viewer_layers: Any, labels: Any, before: AnnotationNotes | None) -> dict[str, Any]:
    layer = image_layer_of(viewer_layers, labels)
    made_for = labels.metadata.get(METADATA, {}).get("image")
    is_other = layer is None or made_for != str(layer.unique_id)
    if is_other and before is not None and before.image is not None:
        return {"image": before.image, "axes": before.axes, "voxel_size_nm": before.voxel_size_nm}
    if layer is None:
        return {}
    found = read_image(layer)
    return {
        "image": _image_notes(layer),
        "axes": found.label_axes,
        "voxel_size_nm": found.voxel_size_nm,
    }


def regions_of(viewer_layers: Any, labels: Any) -> RegionNotes | None:
    """The shapes that say where the labels of a layer count, in its pixels; None without."""
    shapes = regions_layer_of(viewer_layers, labels)
    if shapes is None:
        return None
    corners = tuple(
        tuple(tuple(map(float, labels.world_to_data(shapes.data_to_world(corner)))) for corner in drawn)
        for drawn in shapes.data
    )
    return RegionNotes(str(shapes.name), corners, tuple(map(str, shapes.shape_type)))


def look_of_regions(viewer_layers: Any, labels: Any) -> object:
    """Something that is another when `regions_of` may say something else."""
    shapes = regions_layer_of(viewer_layers, labels)
    if shapes is None:
        return None
    return str(shapes.name), tuple(shapes.shape_type), tuple(corners.tobytes() for corners in shapes.data)


def _image_notes(layer: Any) -> ImageNotes:
    said = layer.metadata.get(METADATA, {})
    source = layer.source
    if "path" in said:
        return ImageNotes(str(layer.name), str(said["path"]), said.get("opened", {}))
    if source.sample is not None:
        return ImageNotes(str(layer.name), None, {"sample": list(source.sample)})
    if source.path is not None:
        return ImageNotes(str(layer.name), str(source.path), {"reader": source.reader_plugin})
    return ImageNotes(str(layer.name))


def _plain_placement(layer: Any) -> dict[str, Any]:
    axes = "".join(map(str, range(layer.ndim)))
    where = placement(layer, axes, axes)
    return {name: _plain(value) for name, value in where.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [entry if isinstance(entry, int | float) else str(entry) for entry in value]


# Layers again


def labels_layer(
    viewer: Any,
    notes: AnnotationNotes,
    data: NDArray[Any],
    *,
    image_layer: Any,
    predicted: NDArray[Any] | None,
    touched: Mapping[tuple[int, ...], NDArray[np.bool_]],
) -> Labels:
    """A layer as it was, not yet in the viewer."""
    entry: dict[str, Any] = {
        "coding": notes.coding,
        "planes": list(notes.planes),
        "touched": dict(touched),
        "checked": set(notes.checked),
        "classes": notes.classes,
    }
    if predicted is not None:
        entry["predicted"] = predicted
    if image_layer is not None:
        entry["image"] = str(image_layer.unique_id)
    if notes.image is not None:
        entry["image_name"] = notes.image.name
    layer = Labels(
        data,
        name=unused_name(viewer, notes.name),
        metadata={METADATA: entry} if notes.coding in CODINGS else {},
        **notes.placement,
    )
    layer.selected_label = notes.selected_label
    return layer


def add_regions(viewer: Any, labels: Any, regions: RegionNotes) -> None:
    """Add the shapes of an annotation that is in the viewer."""
    layer = new_regions_layer(viewer, labels)
    if layer.name != regions.name:
        layer.name = unused_name(viewer, regions.name)
    for corners, kind in zip(regions.corners, regions.kinds, strict=True):
        layer.add(np.array(corners), shape_type=kind)


def find_or_open_image(viewer: Any, notes: AnnotationNotes) -> Any:
    """The image layer that an annotation was made for, opened again if need be.

    Raises
    ------
    InputError
        It is not open, and cannot be opened; the sentence says which one it was.
    """
    image = notes.image
    if image is None:
        return None
    fitting = _layers_that_fit(viewer.layers, notes.shape)
    same = [layer for layer in fitting if _is_same(image, _image_notes(layer))]
    is_there = image.path is not None and Path(image.path).exists()
    may_be = [one for one in fitting if not (is_there and _image_notes(one).path not in (None, image.path))]
    named = [layer for layer in same or may_be if layer.name == image.name]
    if same or named:
        return (named or same)[0]
    try:
        opened = _opened_again(viewer, image)
    except InputError as error:
        raise InputError(f"Image '{image.name}' could not be opened again: {error}") from error
    fitting = _layers_that_fit(opened, notes.shape)
    if not fitting:
        raise InputError(f"Image '{image.name}' is not what it was: its annotation is {by(notes.shape)}.")
    return next((layer for layer in fitting if layer.name == image.name), fitting[0])


def _opened_again(viewer: Any, image: ImageNotes) -> list[Any]:
    if "sample" in image.opened:
        return _by_napari(lambda: viewer.open_sample(*image.opened["sample"]))
    if image.path is None:
        raise InputError("it had no file. Open it, and choose it in the dock.")
    if not Path(image.path).exists():
        raise InputError(f"'{image.path}' is not there any more. Open it from where it is now.")
    if "reader" in image.opened:
        return _by_napari(lambda: viewer.open(image.path, plugin=image.opened["reader"]))
    return add_layers(viewer, layers_again(Path(image.path), image.opened))


def _by_napari(open_it: Any) -> list[Any]:
    try:
        return list(open_it() or ())
    except Exception as error:  # readers of other plugins raise what they like
        raise InputError(f"{type(error).__name__}: {error}") from error


def _is_same(image: ImageNotes, other: ImageNotes) -> bool:
    """Whether both come from the same part of the same file."""
    return image.path is not None and (image.path, image.opened) == (other.path, other.opened)


def _layers_that_fit(layers: Any, shape: tuple[int, ...]) -> list[Any]:
    """Images of an annotation's shape."""
    return [layer for layer in layers if _fits(layer, shape)]


def _fits(layer: Any, shape: tuple[int, ...]) -> bool:
    try:
        return read_image(layer).label_shape == shape
    except InputError:
        return False
