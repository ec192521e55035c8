"""The rectangle that a person draws on an image, on a shapes layer of its own."""

from __future__ import annotations

from typing import Any

from napari.layers import Shapes
from qtpy.QtCore import QObject, Signal

from napari_unet_seg import _layers
from napari_unet_seg._layers import LayerImage, Where

_COLOUR = "#ffb000"


class Rectangle(QObject):
    """Where it is, and the tool to draw it.

    Attributes
    ----------
    changed
        Qt signal: a shape was drawn, moved or removed.
    """

    changed = Signal()

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer

    def is_drawn(self, image_layer: Any) -> bool:
        """Whether there is a shapes layer with a shape."""
        return self._shapes(image_layer) is not None

    def place(self, image_layer: Any, image: LayerImage) -> Where | None:
        """Its rows and columns; None without one."""
        shapes = self._shapes(image_layer)
        return None if shapes is None else _layers.rectangle_of(shapes, image_layer, image)

    def draw(self, image_layer: Any, image: LayerImage) -> None:
        """Take the rectangle tool on our shapes layer, made when it is missing."""
        name = _name(image_layer)
        if name not in self._viewer.layers:
            where = _layers.placement(image_layer, image.axes.replace("S", ""), image.label_axes)
            shapes = self._viewer.add_shapes(
                ndim=len(image.label_axes),
                name=name,
                face_color="transparent",
                edge_color=_COLOUR,
                edge_width=2,
                **where,
            )
            shapes.events.data.connect(self._note)
        shapes = self._viewer.layers[name]
        self._viewer.layers.selection.active = shapes
        shapes.mode = "add_rectangle"

    def _shapes(self, image_layer: Any) -> Any:
        """The shapes layer that is meant: the active one, else ours, else any that holds a shape."""
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]
        active, name = self._viewer.layers.selection.active, _name(image_layer)
        ranked = sorted(layers, key=lambda layer: (layer is not active, layer.name != name))
        return next((layer for layer in ranked if len(layer.data)), None)

    def _note(self, event: Any = None) -> None:  # noqa: ARG002 - napari's event
        self.changed.emit()


def _name(image_layer: Any) -> str:
    return f"{image_layer.name} › rectangle"
