"""The part of an image that the viewer shows, and a layer of ours that covers it; no Qt.

Layers are duck-typed: whatever has napari's attributes will do. Everything here runs on the main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._layers import Index, LayerImage, placement, plane_in_view

Box: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True)
class View:
    """Rows and columns of one plane of an image.

    Attributes
    ----------
    plane
        One index per label axis before Y and X.
    """

    plane: Index
    box: Box

    def is_in(self, other: View) -> bool:
        """Whether the other one shows all of this."""
        return self.plane == other.plane and all(
            wider.start <= part.start and part.stop <= wider.stop
            for part, wider in zip(self.box, other.box, strict=True)
        )


def visible(
    image_layer: Any, image: LayerImage, point: Sequence[float], most_px: tuple[float, float] | None = None
) -> View:
    """What is seen of an image.

    Parameters
    ----------
    point
        Of the world, the viewer's `dims.point`.
    most_px
        Most rows and columns; of what is seen, the middle is taken.
    """
    plane = plane_in_view(image_layer, image, point)
    axes = image.axes.replace("S", "")
    corners = np.asarray(image_layer.corner_pixels, float)
    if image_layer.multiscale:
        corners = corners * np.asarray(image_layer.downsample_factors)[image_layer.data_level]
    spans = []
    for number, (axis, length) in enumerate(zip("YX", image.label_shape[-2:], strict=True)):
        first, last = corners[:, axes.index(axis)]
        most = length if most_px is None else max(1, min(length, round(most_px[number])))
        spans.append(_middle(int(first), int(last) + 1, length, most))
    return View(plane, (spans[0], spans[1]))


def _middle(start: int, stop: int, length: int, most: int) -> slice:
    """The middle of a span; of everything where the span is none, because nothing was drawn yet."""
    start, stop = max(0, start), min(length, stop)
    if stop - start < 2:
        start, stop = 0, length
    if stop - start > most:
        start = (start + stop - most) // 2
        stop = start + most
    return slice(start, stop)


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image layer, what it holds, and the labels layer that annotates it."""

    layer: Any
    image: LayerImage
    labels_layer: Any


class ViewLayer:
    """One layer that shows a box of one plane where it lies in the image, and can be moved.

    Parameters
    ----------
    make
        Makes the napari layer of data, with the given keyword arguments for its place.
    """

    def __init__(self, viewer: Any, subject: AnnotatedImage, make: Callable[..., Any]) -> None:
        self._viewer, self._subject, self._make = viewer, subject, make
        self.layer: Any = None
        self.view: View | None = None

    @property
    def is_removed(self) -> bool:
        """Whether a person has taken it out of the viewer."""
        return self.layer is not None and self.layer not in self._viewer.layers

    def show(self, values: NDArray[Any], view: View) -> None:
        """Show (Y, X) values of a view; not when a person has removed the layer."""
        if self.is_removed:
            return
        data = values.reshape((1,) * len(view.plane) + values.shape)
        place = self._place(view)
        if self.layer is None:
            self.layer = self._make(data, **place)
            add_quietly(self._viewer, self.layer, self._subject)
        else:
            self.layer.data = data
            self.layer.translate = place["translate"]
        self.view = view

    def remove(self) -> None:
        """Take it out, if it is there."""
        if self.layer is not None and not self.is_removed:
            self._viewer.layers.remove(self.layer)
        self.layer = self.view = None

    def _place(self, view: View) -> dict[str, Any]:
        image = self._subject.image
        corner = dict(zip(image.label_axes, (*view.plane, *(part.start for part in view.box)), strict=True))
        return placement(self._subject.layer, image.axes.replace("S", ""), image.label_axes, corner)


def add_quietly(viewer: Any, layer: Any, subject: AnnotatedImage) -> None:
    """Add a layer below the labels of an image, or else above the image; what is selected stays selected.

    Someone may be painting in it.
    """
    layers = viewer.layers
    selected, active = set(layers.selection), layers.selection.active
    above_image = layers.index(subject.layer) + 1 if subject.layer in layers else len(layers)
    below_labels = layers.index(subject.labels_layer) if subject.labels_layer in layers else 0
    layers.insert(max(above_image, below_labels), layer)
    layers.selection = selected
    layers.selection.active = active
