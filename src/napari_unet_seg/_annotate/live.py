"""An annotation layer while a person works on it: what is painted, drawn and marked, told to who shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_unet_seg._annotate.label_watcher import Change, LabelWatcher
from napari_unet_seg._annotate.layer import Coding, adopt, coding_of, first_object_id, regions_layer_of
from napari_unet_seg._annotate.new_layers import is_empty_map, new_regions_layer
from napari_unet_seg._annotate.what_counts import RIM_PX, AnnotationView, Box, boxes_by_plane, view_of
from napari_unet_seg._layers import METADATA, Index
from napari_unet_seg.core.errors import InputError

_LOOKED_THROUGH_BYTES = 1 << 26
"""Labels up to this size are looked through while the window waits."""

_AROUND = 3.0
"""How much more than a place itself is shown of its surroundings."""


class LiveAnnotation(QObject):  # type: ignore[misc]
    """One labels layer, its rectangles and its marks.

    Attributes
    ----------
    changed
        Qt signal with a `Change`: in this box labels, or what counts of them, are other than before.
    replaced
        Qt signal: everything may be.
    marked
        Qt signal: coding, complete planes, checked objects or rectangles are others.
    plane_changed
        Qt signal with the plane that is now in view.
    """

    changed = Signal(object)
    replaced = Signal()
    marked = Signal()
    plane_changed = Signal(object)

    def __init__(self, viewer: Any, layer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer, self.layer = viewer, layer
        self.watcher = LabelWatcher(layer, viewer, self)
        self.watcher.changed.connect(self._note_change)
        self.watcher.replaced.connect(self._note_replacement)
        self.watcher.plane_changed.connect(self.plane_changed)
        self.regions: Any = None
        self._boxes: Mapping[Index, Sequence[Box]] = {}
        self._largest_id = _largest_in(layer.data)
        self._is_searched = _is_small(layer.data)
        """Whether all ids were seen; else that is done when one is needed that no object has."""
        viewer.layers.events.inserted.connect(self._find_regions)
        viewer.layers.events.removed.connect(self._find_regions)
        self._find_regions()

    def close(self) -> None:
        """Listen no more."""
        self.watcher.close()
        self.viewer.layers.events.inserted.disconnect(self._find_regions)
        self.viewer.layers.events.removed.disconnect(self._find_regions)
        self._leave_regions()

    # What is said

    @property
    def coding(self) -> Coding:
        """What its labels mean."""
        return coding_of(self.layer) or "dense"

    @property
    def plane(self) -> Index:
        """In view."""
        return self.watcher.plane

    @property
    def view(self) -> AnnotationView:
        """What the layer says now."""
        return view_of(self.layer, boxes=self._boxes)

    @property
    def checked(self) -> frozenset[int]:
        """Predicted objects that were found right."""
        return frozenset(self._entry["checked"])

    @property
    def n_regions(self) -> int:
        """How many rectangles there are."""
        return sum(map(len, self._boxes.values()))

    def is_complete(self, plane: Index) -> bool:
        """Whether a plane was said to be annotated as a whole."""
        return (plane[0] if plane else 0) in self._entry["planes"]

    @property
    def next_object_id(self) -> int:
        """One that no object has; of those that the layer's type can hold, if there is one.

        Raises
        ------
        InputError
            There is none.
        """
        self.watcher.flush()
        data, first = self.layer.data, first_object_id(self.coding)
        if not self._is_searched and not is_empty_map(data):
            self._largest_id = max(self._largest_id, int(data.max(initial=0)))
            self._is_searched = True
        largest, possible = max(self._largest_id, _largest_in(data)), np.iinfo(data.dtype).max
        if largest < possible:
            return max(largest + 1, first)
        used = np.unique(data)
        used = used[used >= first]
        is_gap = used != np.arange(first, first + used.size, dtype=used.dtype)
        free = first + (int(is_gap.argmax()) if is_gap.any() else used.size)
        if free > possible:
            raise InputError(
                f"All {largest} ids of '{self.layer.name}' are used: its labels are turned into 32 bits."
            )
        return free

    # What a person marks

    def set_coding(self, coding: Coding) -> None:
        """Say what the labels mean; the labels stay as they are."""
        adopt(self.layer, coding)
        self.marked.emit()
        self.replaced.emit()

    def set_complete(self, plane: Index, *, is_complete: bool) -> None:
        """Say that a plane, also an empty one, is annotated as a whole, or that it is not."""
        number = plane[0] if plane else 0
        planes = set(self._entry["planes"]) - {number}
        self._entry["planes"] = sorted(planes | {number} if is_complete else planes)
        self.marked.emit()
        self.replaced.emit()

    def set_checked(self, object_id: int, *, is_checked: bool) -> None:
        """Say that a predicted object is right as it is, or take that back."""
        if is_checked:
            self._entry["checked"].add(object_id)
        else:
            self._entry["checked"].discard(object_id)
        self.marked.emit()
        found = np.asarray(self.layer.data[self.plane]) == object_id
        if found.any():
            self._note_change(Change(self.plane, _around(found, RIM_PX)))
        if len(self.layer.data.shape) > 2:
            self.replaced.emit()

    def note_largest(self, object_id: int) -> None:
        """An id as large as this was found by who looks through all planes."""
        self._largest_id = max(self._largest_id, object_id)

    def make_regions(self) -> Any:
        """The shapes layer for its rectangles, made when it is missing."""
        if self.regions is None:
            new_regions_layer(self.viewer, self.layer)
        return self.regions

    # Going there

    def go_to(self, plane: Index, center: tuple[float, float], box: Box | None = None) -> None:
        """Show a place in the middle of the canvas; a box is shown with a good deal around it."""
        dims, camera = self.viewer.dims, self.viewer.scene.camera
        first_axis = dims.ndim - self.layer.ndim
        point = self.layer.data_to_world((*plane, *center))
        for axis, at in enumerate(point):
            if first_axis + axis not in dims.displayed:
                dims.set_point(first_axis + axis, float(at))
        across = [axis - first_axis for axis in dims.displayed[-2:]]
        camera.center = (0.0, *(float(point[axis]) if axis >= 0 else 0.0 for axis in across))
        if box is not None:
            corners = [
                self.layer.data_to_world((*plane, *(getattr(part, end) for part in box)))
                for end in ("start", "stop")
            ]
            extent = max(abs(float(b - a)) for a, b in zip(*(corner[-2:] for corner in corners), strict=True))
            camera.zoom = min(self.viewer.canvas.size) / (_AROUND * extent)

    @property
    def _entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = self.layer.metadata[METADATA]
        return entry

    # What happens

    def _note_change(self, change: Change) -> None:
        painted = np.asarray(self.layer.data[(*change.plane, *change.box)])
        self._largest_id = max(self._largest_id, int(painted.max(initial=0)))
        self.changed.emit(change)

    def _note_replacement(self) -> None:
        self._largest_id = _largest_in(self.layer.data)
        self._is_searched = _is_small(self.layer.data)
        self._boxes = boxes_by_plane(self.regions, self.layer)
        self.replaced.emit()

    def _find_regions(self, _event: Any = None) -> None:
        found = regions_layer_of(self.viewer.layers, self.layer)
        if found is self.regions:
            return
        self._leave_regions()
        self.regions = found
        if found is not None:
            found.events.data.connect(self._note_regions)
        self._note_regions()

    def _leave_regions(self) -> None:
        if self.regions is not None:
            self.regions.events.data.disconnect(self._note_regions)

    def _note_regions(self, _event: Any = None) -> None:
        """Rectangles were drawn, moved or removed: what lay in an old or a new one may count or not."""
        before, self._boxes = self._boxes, boxes_by_plane(self.regions, self.layer)
        for plane in before.keys() | self._boxes.keys():
            old, new = before.get(plane, ()), self._boxes.get(plane, ())
            for box in [*(box for box in old if box not in new), *(box for box in new if box not in old)]:
                self.changed.emit(Change(plane, box))
        if before != self._boxes:
            self.marked.emit()


def _largest_in(data: Any) -> int:
    """The largest id; 0 where looking for it would take long."""
    return int(data.max(initial=0)) if _is_small(data) else 0


def _is_small(data: Any) -> bool:
    return bool(data.nbytes <= _LOOKED_THROUGH_BYTES)


def _around(mask: Any, margin_px: int) -> Box:
    """Rows and columns of what is True, and a margin."""
    rows, columns = (
        slice(max(0, int(where[0]) - margin_px), min(length, int(where[-1]) + 1 + margin_px))
        for where, length in (
            (np.flatnonzero(mask.any(axis=1)), mask.shape[0]),
            (np.flatnonzero(mask.any(axis=0)), mask.shape[1]),
        )
    )
    return rows, columns
