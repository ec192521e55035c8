"""Correcting a prediction: what the "Correct these…" button does, and `correct` from the console."""

from __future__ import annotations

from typing import Any

from napari_unet_seg._annotate.layer import image_layer_of
from napari_unet_seg._annotate.new_layers import correction_layer
from napari_unet_seg._layers import behind_proxy
from napari_unet_seg._open_docks import raised_dock
from napari_unet_seg.core.errors import InputError


def correct(viewer: Any, labels_layer: Any, image_layer: Any = None) -> Any:
    """Hide predicted labels and add a copy of them to be corrected; the Annotate dock opens with it.

    Parameters
    ----------
    image_layer
        That was segmented. None: the one that the labels fit.

    Returns
    -------
    layer
        The copy, in which nothing counts until it is touched or checked.

    Raises
    ------
    InputError
        There is no image for these labels, or they cannot be corrected; nothing was added.
    """
    viewer = behind_proxy(viewer)
    image_layer = image_layer or image_layer_of(viewer.layers, labels_layer)
    if image_layer is None:
        raise InputError(f"There is no image that '{labels_layer.name}' belongs to: open it first.")
    layer = correction_layer(viewer, labels_layer, image_layer)
    labels_layer.visible = False
    dock = raised_dock(viewer, "Annotate")
    if dock is not None:
        dock.paint_in(layer)
    return layer
