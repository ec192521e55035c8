"""Labels layers that are annotations: what their labels mean, which image and regions they belong to; no Qt.

Layers are duck-typed: whatever has napari's attributes will do. Everything here runs on the main thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from napari_unet_seg._layers import METADATA, LayerImage, is_made_here, read_image
from napari_unet_seg.core._label_checks import by
from napari_unet_seg.core.errors import InputError

Coding: TypeAlias = Literal["dense", "scribbles", "regions", "planes", "corrections"]
CODINGS: tuple[Coding, ...] = get_args(Coding)


def coding_of(layer: Any) -> Coding | None:
    """What the labels of a layer mean; None when it is no annotation."""
    coding = said_of(layer).get("coding")
    return coding if coding in CODINGS else None


def coding_that_counts(labels: Any) -> Coding:
    coding = coding_of(labels)
    if coding is None:
        raise InputError(
            f"Labels '{labels.name}' does not say what counts as annotated: "
            "give coding='scribbles' or 'dense', or regions= or planes=."
        )
    return coding


def class_names_of(layer: Any) -> tuple[str, ...]:
    """Names of the classes, the background first, that the labels of a class map are; else empty."""
    return tuple(said_of(layer).get("classes", ()))


def first_object_id(coding: Coding) -> int:
    """The smallest id of an object: among scribbles, 1 is background."""
    return 2 if coding == "scribbles" else 1


def adopt(layer: Any, coding: Coding, image_layer: Any = None) -> None:
    """Make an existing labels layer an annotation: note what its labels mean; its data stay as they are.

    Raises
    ------
    InputError
        It cannot be painted in, or its labels are none.
    """
    name, way_out = f"Labels '{layer.name}'", "press New for a layer that can."
    check_is_labels(layer)
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
    said = said_of(layer)
    # napari's copy of a layer has the same collections.
    own = {name: copy(said[name]) for name in ("planes", "touched", "checked") if name in said}
    layer.metadata[METADATA] = new_entry(coding, image_layer) | said | own | {"coding": coding}
    layer.metadata[METADATA] |= _about_image(image_layer)


def check_is_labels(layer: Any) -> None:
    if getattr(layer, "_type_string", "labels") != "labels" or not hasattr(layer, "selected_label"):
        raise InputError(f"Layer '{layer.name}' is not a labels layer: choose one, or press New.")


def regions_layer_of(viewer_layers: Iterable[Any], labels_layer: Any) -> Any:
    """The shapes layer whose rectangles belong to a labels layer; None when there is none."""
    owner = str(labels_layer.unique_id)
    return next((layer for layer in viewer_layers if layer.metadata.get("regions_of") == owner), None)


def image_layer_of(viewer_layers: Iterable[Any], labels_layer: Any) -> Any:
    """The image that a labels layer annotates: the one it was made for, else one that it fits; or None.

    Of another image than it was made for, the name has to be the same: it may have been opened again.
    """
    images = [layer for layer in viewer_layers if getattr(layer, "_type_string", "") == "image"]
    said = said_of(labels_layer)
    made_for = next((layer for layer in images if str(layer.unique_id) == said.get("image")), None)
    return made_for or next(
        (
            layer
            for layer in images
            if said.get("image_name") in (None, str(layer.name))
            and not is_made_here(layer)  # a veil or a weight map fits, too
            and _fits(labels_layer, layer)
        ),
        None,
    )


def check_fit(labels_layer: Any, image: LayerImage) -> None:
    """Refuse labels that do not have the image's shape.

    Raises
    ------
    InputError
        With both shapes, and what to do.
    """
    shape = data_of(labels_layer).shape
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


def new_entry(coding: Coding, image_layer: Any) -> dict[str, Any]:
    """What our entry in an annotation's metadata holds at first."""
    entry: dict[str, Any] = {"coding": coding, "planes": [], "touched": {}, "checked": set()}
    return entry | _about_image(image_layer)


def _about_image(image_layer: Any) -> dict[str, str]:
    """Which image it is, also when it is opened again; empty for None."""
    if image_layer is None:
        return {}
    return {"image": str(image_layer.unique_id), "image_name": str(image_layer.name)}


def said_of(layer: Any) -> dict[str, Any]:
    """Our entry in the layer's metadata."""
    entry = layer.metadata.get(METADATA, {})
    return entry if isinstance(entry, dict) else {}


def data_of(labels: Any) -> Any:
    return labels.data[0] if labels.multiscale else labels.data
