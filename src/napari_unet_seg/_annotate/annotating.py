"""Working on one annotation layer: tools, veil and counts; what the buttons of the Annotate dock do."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet_seg._annotate.counts import AnnotationCounts, Totals
from napari_unet_seg._annotate.layer import Coding, class_names_of, first_object_id
from napari_unet_seg._annotate.live import LiveAnnotation
from napari_unet_seg._annotate.veil import Veil
from napari_unet_seg._annotate.what_counts import Box
from napari_unet_seg._layers import Index
from napari_unet_seg.core.errors import InputError

ToolName: TypeAlias = Literal["object", "background", "erase", "pick"]

BACKGROUND_SCRIBBLE_ID = 1


class Annotating(QObject):  # type: ignore[misc]
    """One layer that a person paints in, and what helps them; nothing of it is global.

    Attributes
    ----------
    live
        The layer, its rectangles and marks.
    tool_changed
        Qt signal: another tool is in use.
    said
        Qt signal with a sentence about what was just done.
    """

    tool_changed = Signal()
    said = Signal(str)

    def __init__(self, viewer: Any, layer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer, self.layer = viewer, layer
        self.live = LiveAnnotation(viewer, layer, self)
        self.veil = Veil(self.live, self)
        self.counts = AnnotationCounts(self.live, self)
        self._n_regions = self.live.n_regions
        self._is_open = True
        layer.events.mode.connect(self._note_tool)
        layer.events.selected_label.connect(self._note_selected)
        self.live.marked.connect(self._note_marks)

    @property
    def is_there(self) -> bool:
        """Whether its layer is still in the viewer."""
        return self.layer in self._viewer.layers

    def close(self) -> None:
        """Leave the layer as any other; what was painted stays."""
        if not self._is_open:
            return
        self._is_open = False
        self.layer.events.mode.disconnect(self._note_tool)
        self.layer.events.selected_label.disconnect(self._note_selected)
        self.counts.close()
        self.veil.close()
        self.live.close()

    # Tools

    @property
    def tool(self) -> ToolName | None:
        """The one in use; None: another one of napari's."""
        mode = str(self.layer.mode)
        if mode in ("erase", "pick"):
            return "erase" if mode == "erase" else "pick"
        if mode not in ("paint", "fill", "polygon"):
            return None
        selected = self.layer.selected_label
        if selected >= first_object_id(self.live.coding):
            return "object"
        return "background" if self.live.coding == "scribbles" and selected else "erase"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of a class map, the background first; empty where labels are objects."""
        return class_names_of(self.layer)

    def take_new_object(self) -> None:
        """The brush, with an id that no object has; in a class map, with the next class."""
        if self.class_names:
            self._take_next_class()
            return
        object_id = self._free_id()
        self.take("paint")
        self.layer.selected_label = object_id

    def _take_next_class(self) -> None:
        last = len(self.class_names) - 1
        selected = int(self.layer.selected_label) if self.tool == "object" else 0
        self.take("paint")
        self.layer.selected_label = selected % last + 1
        self.said.emit(f"The brush paints {self.class_names[self.layer.selected_label]}.")

    def take_background(self) -> None:
        """The brush, with what background is painted with."""
        self.take("paint")
        self.layer.selected_label = BACKGROUND_SCRIBBLE_ID if self.live.coding == "scribbles" else 0

    def take(self, mode: str) -> None:
        """One of napari's tools on this layer, which is shown and chosen for it."""
        self.layer.visible = True
        self._viewer.layers.selection.active = self.layer
        self.layer.mode = mode

    def draw_region(self) -> None:
        """The rectangle tool; after the rectangle the brush is back."""
        regions = self.live.make_regions()
        self._viewer.layers.selection.active = regions
        regions.mode = "add_rectangle"

    def _free_id(self) -> int:
        """An id that no object has; wider labels where there is none left."""
        try:
            return self.live.next_object_id
        except InputError as error:
            self.said.emit(str(error))
        self.layer.data = self.layer.data.astype(np.int32)
        return self.live.next_object_id

    def _note_tool(self, _event: Any = None) -> None:
        self.tool_changed.emit()

    def _note_selected(self, _event: Any = None) -> None:
        self.tool_changed.emit()
        if str(self.layer.mode) == "pick" and self.layer.selected_label > 0:
            QTimer.singleShot(0, self._paint_on)  # not inside napari's own handling of the click

    def _paint_on(self) -> None:
        if self._is_open and self.is_there:
            self.layer.mode = "paint"

    # Marks

    def toggle_complete(self, *, is_complete: bool) -> None:
        """Say that the plane in view is complete, or that it is not."""
        self.live.set_complete(self.live.plane, is_complete=is_complete)

    def toggle_checked(self, *, at_cursor: bool) -> None:
        """Say that a predicted object is right, or take it back: the one at the mouse, else the chosen."""
        if self.live.coding != "corrections":
            self.said.emit("Only predicted objects are checked: press Correct in the Segment dock.")
            return
        if self.class_names:
            self.said.emit("Classes are not checked one by one: draw a rectangle around what is right.")
            return
        object_id = (self._at_cursor() if at_cursor else 0) or int(self.layer.selected_label)
        if object_id <= 0 or not (np.asarray(self.layer.data[self.live.plane]) == object_id).any():
            self.said.emit("There is no object: point at one and press K, or pick one first.")
            return
        is_checked = object_id not in self.live.checked
        self.live.set_checked(object_id, is_checked=is_checked)
        self.said.emit(f"Object {object_id} is {'checked' if is_checked else 'no longer checked'}.")

    def _at_cursor(self) -> int:
        value = self.layer.get_value(self._viewer.cursor.position, world=True)
        return int(value) if value is not None else 0

    def _note_marks(self) -> None:
        """After a rectangle was drawn, painting goes on."""
        n_before, self._n_regions = self._n_regions, self.live.n_regions
        if self._n_regions > n_before and self._viewer.layers.selection.active is self.live.regions:
            QTimer.singleShot(0, self._leave_regions)  # not inside napari's own handling of the drag

    def _leave_regions(self) -> None:
        if not self._is_open or self.live.regions is None or not self.is_there:
            return
        self.live.regions.mode = "pan_zoom"
        self.take("paint")

    # Id 1 means two things

    @property
    def has_id_1(self) -> bool:
        """Whether anything is painted with the id that is background among scribbles only."""
        return bool((self.layer.data == BACKGROUND_SCRIBBLE_ID).any())

    def replace_id_1(self, by: int) -> None:
        """Give what is painted with it another id; can be undone."""
        self.layer.data_setitem(np.nonzero(self.layer.data == BACKGROUND_SCRIBBLE_ID), by)

    # What is to be done

    def unfinished(self, totals: Totals) -> list[tuple[Index, tuple[int, int], Box | None, str]]:
        """Places where something is to be done: rectangles without an object, then what is wrong."""
        view = self.live.view
        empty = [
            (plane, _middle(box), box, "Nothing is labelled in this rectangle yet.")
            for plane in sorted(view.regions)
            for box in view.regions[plane]
            if not np.asarray(view.data[(*plane, *box)]).any()
        ]
        return [*empty, *((one.plane, one.center, None, one.message) for one in totals.problems)]


def _middle(box: Box) -> tuple[int, int]:
    rows, columns = ((part.start + part.stop) // 2 for part in box)
    return rows, columns


def advice(coding: Coding, totals: Totals, n_regions: int, *, has_classes: bool = False) -> str:
    """What to do first, for a person who has just begun; afterwards the problems say what is missing."""
    if has_classes and not totals.n_planes:
        return "Paint what is wrong, N takes the next class; or draw a rectangle where all is right."
    if coding == "regions" and not n_regions:
        return "Draw a rectangle around a few objects, then label every object inside it."
    if totals.n_planes:
        return ""
    if coding == "scribbles":
        return "Press N and paint a line in an object; then G, and lines in the background around it."
    if coding == "planes":
        return "Label every object of a plane, then mark the plane as complete."
    return "Paint where the prediction is wrong, or point at a right object and press K."
