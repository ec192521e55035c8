"""What a person paints in the annotations of a training while it runs, and when one of them is taken away."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet_seg._annotate.label_watcher import Change, LabelWatcher
from napari_unet_seg._annotate.layer import coding_of, regions_layer_of
from napari_unet_seg._annotate.what_counts import view_of
from napari_unet_seg._fine_tune.request import Painted
from napari_unet_seg._layers import Index
from napari_unet_seg.core.errors import InputError

QUIET_MS = 1000
"""Pause in painting after which it is handed on."""
_LOOK_MS = 1000
"""Time between two looks at rectangles, listed planes and checked objects."""


class Painting(QObject):  # type: ignore[misc]
    """Watches annotation layers.

    Attributes
    ----------
    painted
        Qt signal with a `Painted`, a moment after the last stroke.
    removed
        Qt signal with the name of a layer that was taken out of the viewer.
    """

    painted = Signal(object)
    removed = Signal(str)

    def __init__(self, labels_layers: Sequence[Any], viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers = dict(enumerate(labels_layers))
        self._watchers = {n: LabelWatcher(layer, viewer, self) for n, layer in self._layers.items()}
        self._marks = {n: self._marks_of(layer) for n, layer in self._layers.items()}
        self._planes: dict[int, set[Index] | None] = {}
        for number, watcher in self._watchers.items():
            watcher.changed.connect(partial(self._note_change, number))
            watcher.replaced.connect(partial(self._note_all, number))
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self._hand_on)
        self._looking = QTimer(self)
        self._looking.timeout.connect(self._look)
        self._looking.start(_LOOK_MS)
        viewer.layers.events.removed.connect(self._note_removal)

    def close(self) -> None:
        """Watch no longer."""
        self._quiet.stop()
        self._looking.stop()
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers.clear()
        self._layers.clear()
        self._viewer.layers.events.removed.disconnect(self._note_removal)

    def _note_change(self, number: int, change: Change) -> None:
        planes = self._planes.setdefault(number, set())
        if planes is not None:
            planes.add(change.plane)
        self._quiet.start()

    def _note_all(self, number: int) -> None:
        self._planes[number] = None
        self._quiet.start()

    def _look(self) -> None:
        """Notice what says where labels count; napari tells nobody of it."""
        for number, layer in self._layers.items():
            marks = self._marks_of(layer)
            if marks != self._marks[number]:
                self._marks[number] = marks
                self._note_all(number)

    def _marks_of(self, layer: Any) -> Hashable:
        try:
            said = view_of(layer, boxes={})
        except InputError:  # it is no annotation any more
            return None
        regions = regions_layer_of(self._viewer.layers, layer)
        corners = () if regions is None else tuple(corner.tobytes() for corner in regions.data)
        return said.coding, said.planes, said.checked, corners

    def _hand_on(self) -> None:
        waiting, self._planes = self._planes, {}
        for number, planes in waiting.items():
            layer = self._layers.get(number)
            if layer is None or coding_of(layer) is None:
                continue
            said = view_of(layer, regions_layer_of(self._viewer.layers, layer))
            self.painted.emit(Painted(number, said, None if planes is None else frozenset(planes)))

    def _note_removal(self, event: Any) -> None:
        for number, layer in list(self._layers.items()):
            if layer is event.value:
                self._watchers.pop(number).close()
                del self._layers[number]
                self._planes.pop(number, None)
                self.removed.emit(str(layer.name))
