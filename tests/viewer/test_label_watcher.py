"""Whatever changes labels is noticed: where, on which plane, and nothing besides."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtCore import QObject

from napari_unet_seg._annotate import label_watcher as module
from napari_unet_seg._annotate.label_watcher import Change, LabelWatcher

pytestmark = pytest.mark.usefixtures("qapp")
SIDE = 600


class Listener:
    """What a watcher has said."""

    def __init__(self, watcher: LabelWatcher) -> None:
        self.watcher = watcher
        self.changes: list[Change] = []
        self.planes: list[Any] = []
        self.n_replaced = 0
        watcher.changed.connect(self.changes.append)
        watcher.plane_changed.connect(self.planes.append)
        watcher.replaced.connect(self._count)

    def _count(self) -> None:
        self.n_replaced += 1

    def news(self) -> list[Change]:
        """Since the last time."""
        self.watcher.flush()
        news, self.changes = self.changes, []
        self.watcher.changed.disconnect()
        self.watcher.changed.connect(self.changes.append)
        return news


@pytest.fixture
def viewer() -> ViewerModel:
    viewer = ViewerModel()
    labels = np.zeros((4, SIDE, SIDE), np.uint16)
    labels[:, 100:160, 100:160] = 3
    viewer.add_labels(labels, name="cells")
    viewer.dims.set_current_step(0, 1)
    return viewer


@pytest.fixture
def layer(viewer: ViewerModel) -> Any:
    return viewer.layers["cells"]


@pytest.fixture
def heard(viewer: ViewerModel, layer: Any) -> Iterator[Listener]:
    watcher = LabelWatcher(layer, viewer)
    yield Listener(watcher)
    watcher.close()


def box(top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    return slice(top, bottom), slice(left, right)


def drag(layer: Any, mouse_event: Any, points: list[tuple[int, ...]]) -> None:
    """A stroke of the brush, as the canvas hands it to the layer."""
    event = mouse_event(
        type="mouse_press", position=points[0], button=1, dims_displayed=(1, 2), view_direction=None
    )
    mouse_press_callbacks(layer, event)
    event.type, event.is_dragging = "mouse_move", True
    for event.position in points[1:]:
        mouse_move_callbacks(layer, event)
    event.type, event.is_dragging = "mouse_release", False
    mouse_release_callbacks(layer, event)


def set_items(layer: Any) -> None:
    layer.data_setitem((np.array([1, 1]), np.array([40, 45]), np.array([50, 60])), 7)


def write_in_place(layer: Any) -> None:
    layer.data[1, 300:310, 20:40] = 5
    layer.refresh()


WAYS: dict[str, Callable[[Any], None]] = {
    "paint": lambda layer: layer.paint((1, 50, 50), 2),
    "erase": lambda layer: layer.paint((1, 130, 130), 0),
    "fill": lambda layer: layer.fill((1, 130, 130), 9),
    "polygon": lambda layer: layer.paint_polygon([(1, 5, 5), (1, 5, 20), (1, 30, 5)], 4),
    "items": set_items,
    "across tiles": lambda layer: layer.paint_polygon([(1, 200, 250), (1, 200, 280), (1, 290, 260)], 4),
}


@pytest.mark.parametrize("act", [*WAYS.values(), write_in_place], ids=[*WAYS, "in place"])
def test_a_change_is_noticed_with_its_place_and_pixels(
    layer: Any, heard: Listener, act: Callable[[Any], None]
) -> None:
    before = layer.data[1].copy()
    act(layer)
    [change] = heard.news()
    rows, columns = np.nonzero(layer.data[1] != before)
    assert change == Change((1,), box(rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))
    np.testing.assert_array_equal(change.mask, (layer.data[1] != before)[change.box])
    assert heard.news() == [], "a change is told once"


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_undo_and_redo_are_noticed_where_they_happen(
    viewer: ViewerModel, layer: Any, heard: Listener, act: Callable[[Any], None], elsewhere: bool
) -> None:
    act(layer)
    [done] = heard.news()
    if elsewhere:
        viewer.dims.set_current_step(0, 3)
        assert heard.news() == []
    layer.undo()
    assert heard.news() == [done]
    layer.redo()
    assert heard.news() == [done]


def test_a_drag_is_told_while_it_lasts_and_not_again_at_its_end(
    layer: Any, heard: Listener, MouseEvent: Any, qtbot: Any
) -> None:
    layer.mode = "paint"
    middle = []

    def note_middle(_event: Any) -> None:
        qtbot.wait(2 * module.DRAG_MS)
        middle.append(len(heard.changes))

    layer.events.labels_update.connect(note_middle)
    drag(layer, MouseEvent, [(1, 20 + 4 * i, 30 + 9 * i) for i in range(20)])
    assert 0 < middle[1] < middle[-1]
    told = heard.news()
    assert sum(int(change.mask.sum()) for change in told if change.mask is not None) == int(
        (layer.data[1] == layer.selected_label).sum()
    )


def test_a_long_thin_stroke_is_not_told_as_the_box_around_it(
    layer: Any, heard: Listener, MouseEvent: Any
) -> None:
    layer.mode = "paint"
    drag(layer, MouseEvent, [(1, 20 + 50 * i, 20 + 50 * i) for i in range(11)])
    areas = [np.prod([part.stop - part.start for part in change.box]) for change in heard.news()]
    assert sum(areas) < 0.5 * 500**2


def test_strokes_through_planes_are_told_plane_by_plane(layer: Any, heard: Listener) -> None:
    layer.n_edit_dimensions = 3
    layer.brush_size = 3
    layer.paint((1, 50, 50), 2)
    assert {change.plane for change in heard.news()} == {(0,), (1,), (2,)}
    layer.undo()
    changes = heard.news()
    assert {change.plane for change in changes} == {(0,), (1,), (2,)}
    assert all(change.box == box(49, 52, 49, 52) for change in changes if change.plane == (1,))


def test_labels_are_told_in_their_own_axes_when_the_view_is_turned(
    viewer: ViewerModel, layer: Any, heard: Listener
) -> None:
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 300)
    layer.brush_size = 3
    layer.paint((2, 300, 40), 2)
    changes = heard.news()
    assert {change.plane for change in changes} == {(1,), (2,), (3,)}
    assert all(change.box[0] == slice(300, 301) for change in changes)


@pytest.mark.parametrize("change", ["visible", "colours", "contour", "drawing", "3D", "plane"])
def test_what_changes_no_label_is_not_told(
    viewer: ViewerModel, layer: Any, heard: Listener, change: str
) -> None:
    if change == "visible":
        layer.visible = False
        layer.visible = True
    elif change == "colours":
        layer.new_colormap()
        layer.selected_label = 12
    elif change == "contour":
        layer.contour = 2
    elif change == "drawing":
        layer.refresh()
    elif change == "3D":
        viewer.dims.ndisplay = 3
    else:
        viewer.dims.set_current_step(0, 2)
    assert heard.news() == []


def test_undo_while_hidden_is_told_when_it_is_shown_again(layer: Any, heard: Listener) -> None:
    layer.paint((1, 50, 50), 2)
    painted = heard.news()
    layer.visible = False
    layer.undo()
    layer.visible = True
    assert heard.news() == painted


def test_other_data_are_a_replacement(viewer: ViewerModel, layer: Any, heard: Listener) -> None:
    layer.data = np.zeros((2, 30, 40), np.uint8)
    assert heard.n_replaced == 1
    assert heard.news() == []
    layer.paint((1, 20, 20), 2)
    assert [change.plane for change in heard.news()] == [(1,)]


def test_planes_are_told_and_keep_their_own_changes(viewer: ViewerModel, layer: Any, heard: Listener) -> None:
    layer.paint((1, 50, 50), 2)
    viewer.dims.set_current_step(0, 3)
    layer.paint((3, 80, 80), 2)
    assert heard.planes == [(3,)]
    assert heard.watcher.plane == (3,)
    assert [change.plane for change in heard.news()] == [(1,), (3,)]


def test_a_plane_written_right_after_going_there_is_told_even_if_not_where(
    viewer: ViewerModel, layer: Any, heard: Listener
) -> None:
    viewer.dims.set_current_step(0, 2)
    layer.data[2, 5, 5] = 1
    layer.refresh()
    boxes = [change.box for change in heard.news() if change.plane == (2,)]
    assert any(rows.start <= 5 < rows.stop and columns.start <= 5 < columns.stop for rows, columns in boxes)


def test_strokes_right_after_going_to_a_plane_are_all_told(
    viewer: ViewerModel, layer: Any, heard: Listener
) -> None:
    viewer.dims.set_current_step(0, 2)
    layer.paint((2, 50, 50), 2)
    layer.fill((2, 130, 130), 9)
    layer.undo()
    layer.paint((2, 200, 200), 2)
    told = np.zeros((SIDE, SIDE), bool)
    for change in heard.news():
        assert change.plane == (2,)
        told[change.box] = True
    assert told[50, 50]
    assert told[200, 200]
    assert told[130, 130], "also what was undone: it may have been read in between"


def test_an_image_without_planes_has_one(viewer: ViewerModel) -> None:
    flat = viewer.add_labels(np.zeros((50, 60), np.uint8))
    watcher = LabelWatcher(flat, viewer)
    heard = Listener(watcher)
    viewer.dims.set_current_step(0, 2)
    flat.paint((20, 20), 2)
    [change] = heard.news()
    assert (change.plane, flat.data[change.box].max(), flat.data.sum()) == (
        (),
        2,
        flat.data[change.box].sum(),
    )
    assert heard.planes == []
    watcher.close()


def test_it_is_told_without_being_asked(layer: Any, heard: Listener, qtbot: Any) -> None:
    layer.paint((1, 50, 50), 2)
    qtbot.waitUntil(lambda: len(heard.changes) == 1)
    layer.undo()
    qtbot.waitUntil(lambda: len(heard.changes) == 2)


def test_watchers_of_one_layer_share_its_memory_and_end_one_by_one(
    viewer: ViewerModel, layer: Any, heard: Listener
) -> None:
    other = LabelWatcher(layer, viewer)
    assert other._watch is heard.watcher._watch
    second = Listener(other)
    layer.paint((1, 50, 50), 2)
    assert len(second.news()) == len(heard.news()) == 1
    other.close()
    layer.paint((1, 90, 90), 2)
    assert (len(second.news()), len(heard.news())) == (0, 1)


@pytest.mark.parametrize("end", ["dropped", "closed", "parent gone"])
def test_nothing_is_left_of_a_watcher_at_its_end(
    viewer: ViewerModel, layer: Any, qtbot: Any, end: str
) -> None:
    parent = QObject()
    watcher = LabelWatcher(layer, viewer, parent if end == "parent gone" else None)
    watch = weakref.ref(watcher._watch)
    if end == "closed":
        watcher.close()
    del watcher, parent

    def is_gone() -> bool:
        gc.collect()  # more than once: Qt's part of a watcher may go first, and that of Python with the next
        return watch() is None

    qtbot.waitUntil(is_gone)
    layer.paint((1, 50, 50), 2)
    layer.undo()
