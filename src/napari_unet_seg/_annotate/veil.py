"""A veil over what is not annotated, so that a person sees on the canvas what counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.utils import Colormap
from numpy.typing import NDArray
from qtpy.QtCore import QObject

from napari_unet_seg._annotate.label_watcher import Change
from napari_unet_seg._annotate.live import LiveAnnotation
from napari_unet_seg._annotate.what_counts import RIM_PX
from napari_unet_seg._layers import METADATA, Index, placement, unused_name

_COLOR = (0.13, 0.15, 0.2)
_OPACITY = 0.4
_VEILED, _CLEAR = 1, 0


class Veil(QObject):  # type: ignore[misc]
    """An image layer above the labels, of one plane: it moves to the one in view.

    Attributes
    ----------
    layer
        Of napari; None while the veil is off.
    """

    def __init__(self, live: LiveAnnotation, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._live, self._viewer = live, live.viewer
        self.layer: Any = None
        live.changed.connect(self._follow_change)
        live.replaced.connect(self._draw)
        live.plane_changed.connect(self._draw)
        live.layer.events.name.connect(self._rename)
        live.layer.events.visible.connect(self._follow_visibility)

    @property
    def is_on(self) -> bool:
        """Whether it is in the viewer; a person may have removed it."""
        return self.layer is not None and self.layer in self._viewer.layers

    def show(self) -> None:
        """Put it over the labels, of which not all need to count; what a person paints in stays selected."""
        if self.is_on:
            self.layer.visible = True
            return
        labels = self._live.layer
        selected, active = set(self._viewer.layers.selection), self._viewer.layers.selection.active
        axes = "".join(map(str, range(labels.ndim)))
        self.layer = self._viewer.add_image(
            self._of_plane(),
            name=unused_name(self._viewer, self._name()),
            metadata={METADATA: {"veil_of": str(labels.unique_id)}},
            colormap=Colormap([(*_COLOR, 0), (*_COLOR, 1)], name="veil"),
            contrast_limits=(_CLEAR, _VEILED),
            opacity=_OPACITY,
            interpolation2d="nearest",
            visible=labels.visible,
            **placement(labels, axes, axes, self._corner()),
        )
        layers = self._viewer.layers
        layers.move(layers.index(self.layer), layers.index(labels) + 1)
        layers.selection = selected
        layers.selection.active = active

    def hide(self) -> None:
        """Take it off."""
        if self.is_on:
            self._viewer.layers.remove(self.layer)
        self.layer = None

    def close(self) -> None:
        """Take it off, and follow nothing any more."""
        self.hide()
        self._live.layer.events.name.disconnect(self._rename)
        self._live.layer.events.visible.disconnect(self._follow_visibility)

    def _name(self) -> str:
        return f"{self._live.layer.name} › veil"

    def _rename(self, _event: Any = None) -> None:
        if self.is_on:
            self.layer.name = self._name()

    def _follow_visibility(self, _event: Any = None) -> None:
        if self.is_on:
            self.layer.visible = self._live.layer.visible

    def _corner(self) -> dict[str, int]:
        """Index of its first pixel, by axis of the labels."""
        return {str(axis): at for axis, at in enumerate(self._live.plane)}

    def _of_plane(self) -> NDArray[np.uint8]:
        """(1, …, Y, X) of the plane in view."""
        counts = self._live.view.annotated(self._live.plane)
        return np.where(counts, np.uint8(_CLEAR), np.uint8(_VEILED))[(None,) * len(self._live.plane)]

    def _draw(self, _plane: Index | None = None) -> None:
        """All of the plane in view."""
        if not self.is_on:
            return
        labels = self._live.layer
        axes = "".join(map(str, range(labels.ndim)))
        values = self._of_plane()
        if values.shape == self.layer.data.shape:
            self.layer.data[:] = values
        else:
            self.layer.data = values
        self.layer.translate = placement(labels, axes, axes, self._corner())["translate"]
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _follow_change(self, change: Change) -> None:
        """What changed, and the rim that a checked object has."""
        if not self.is_on or change.plane != self._live.plane:
            return
        rows, columns = (
            slice(max(0, part.start - RIM_PX), min(length, part.stop + RIM_PX))
            for part, length in zip(change.box, self.layer.data.shape[-2:], strict=True)
        )
        plane = self.layer.data[(0,) * len(self._live.plane)]
        plane[rows, columns] = ~self._live.view.annotated(change.plane, (rows, columns))
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)
