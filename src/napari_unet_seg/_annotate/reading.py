"""`annotation_from_layers`: a painted labels layer and its image as an annotation for training; no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._annotate.layer import CODINGS, Coding, check_fit, coding_that_counts
from napari_unet_seg._annotate.what_counts import boxes_by_plane, view_with
from napari_unet_seg._layers import Index, LayerImage, Part, read_image
from napari_unet_seg.core._axes import PlaneView, understand
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.errors import InputError

_NOTHING: dict[Coding, str] = {
    "dense": "There are no labels: choose a layer that has some.",
    "scribbles": "Nothing is annotated: paint background with 1 and objects with 2 and up.",
    "regions": "There is no rectangle: draw one around what is annotated, and give its layer as regions=.",
    "planes": "Nothing is annotated: name the planes that are complete.",
    "corrections": "Nothing is annotated: paint where the prediction is wrong, or mark objects as checked.",
}


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
    coding = coding or _coding_given(regions, planes) or coding_that_counts(labels)
    _check_wish(coding, regions, planes, found.label_shape)
    view = view_with(labels, coding, boxes_by_plane(regions, labels), planes)
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


def _coding_given(regions: Any, planes: Sequence[int] | None) -> Coding | None:
    if regions is not None:
        return "regions"
    return None if planes is None else "planes"


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


def _pixel_size_of(image: LayerImage) -> float | tuple[float, ...] | None:
    sizes = image.voxel_size_nm
    axes = image.label_axes[-3:]
    if set(axes) <= sizes.keys():
        return tuple(sizes[axis] for axis in axes)
    return sizes["Y"] if "Y" in sizes and sizes["Y"] == sizes.get("X") else None
