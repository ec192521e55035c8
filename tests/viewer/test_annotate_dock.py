"""The Annotate dock, by clicks, keys and strokes of the brush."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QGuiApplication, QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QPushButton, QWidget
from tests.viewer.conftest import add_stack

from napari_unet_seg._annotate import live
from napari_unet_seg._annotate.correcting import correct
from napari_unet_seg._annotate.layer import coding_of
from napari_unet_seg._annotate.new_layers import new_annotation_layer
from napari_unet_seg._annotate.what_counts import annotated_planes, read_plane
from napari_unet_seg._fine_tune.model_news import NEWS
from napari_unet_seg._layers import METADATA
from napari_unet_seg._open_docks import raised_dock
from napari_unet_seg._widgets.annotate_dock import AnnotateDock
from napari_unet_seg._widgets.preferences import remember, remembered
from napari_unet_seg._widgets.segment_dock import SegmentDock
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.models import Model, list_models, new_model

LABELS = "em › annotation"
VEIL = f"{LABELS} › veil"
LONG_MS = 60_000


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    remember("annotate", veil=True, weight_map=False)
    remember("segment", model="bright")
    remember("fine_tune", model="")
    return make_napari_viewer(show=True)  # Qt's test mouse moves over visible windows only


def dock_in(viewer: Any) -> AnnotateDock:
    """The dock as the Plugins menu opens it; the whole image stays in view, where a mouse can reach it."""
    viewer.window.resize(1400, 900)
    _, dock = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Annotate")
    QGuiApplication.processEvents()
    viewer.reset_view()
    return dock


@pytest.fixture
def dock(viewer: Any, squares: Any) -> AnnotateDock:
    add_stack(viewer, squares)
    return dock_in(viewer)


def click(qtbot: QtBot, button: QWidget) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def canvas_of(viewer: Any) -> QWidget:
    return viewer.window._qt_viewer.canvas.native


def pixel(viewer: Any, layer: Any, row: float, column: float) -> QPoint:
    """Where a place of the plane in view lies on the canvas."""
    canvas, camera = canvas_of(viewer), viewer.scene.camera
    plane = [round(at) for at in layer.world_to_data(viewer.dims.point)[:-2]]
    down, right = layer.data_to_world((*plane, row, column))[-2:]
    middle = canvas.height() / 2, canvas.width() / 2
    return QPoint(
        round((right - camera.center[2]) * camera.zoom + middle[1]),
        round((down - camera.center[1]) * camera.zoom + middle[0]),
    )


def send_mouse(viewer: Any, kind: QEvent.Type, point: QPoint, *, is_down: bool = False) -> None:
    """What Qt makes of a mouse; of `QTest.mouseMove` the window hears later, after the button was let go."""
    canvas = canvas_of(viewer)
    button = Qt.MouseButton.NoButton if kind == QEvent.Type.MouseMove else Qt.MouseButton.LeftButton
    pressed = Qt.MouseButton.LeftButton if is_down else Qt.MouseButton.NoButton
    here, there = QPointF(point), QPointF(canvas.mapToGlobal(point))
    event = QMouseEvent(kind, here, there, button, pressed, Qt.KeyboardModifier.NoModifier)
    QGuiApplication.sendEvent(canvas, event)
    QGuiApplication.processEvents()


def drag(viewer: Any, layer: Any, *places: tuple[float, float]) -> None:
    """A stroke with the left button through places of a layer, as Qt sends it."""
    QGuiApplication.processEvents()  # the dock may be about to take another width
    points = [pixel(viewer, layer, *place) for place in places]
    assert all(canvas_of(viewer).rect().contains(point) for point in points), "a hand reaches the canvas only"
    send_mouse(viewer, QEvent.Type.MouseMove, points[0])
    send_mouse(viewer, QEvent.Type.MouseButtonPress, points[0], is_down=True)
    for start, end in pairwise(points):
        for part in np.linspace(0, 1, 5)[1:]:
            send_mouse(viewer, QEvent.Type.MouseMove, start + (end - start) * float(part), is_down=True)
    send_mouse(viewer, QEvent.Type.MouseButtonRelease, points[-1])


def hover(viewer: Any, layer: Any, row: float, column: float) -> None:
    """The mouse over a place."""
    QGuiApplication.processEvents()
    send_mouse(viewer, QEvent.Type.MouseMove, pixel(viewer, layer, row, column))


def press(viewer: Any, key: str) -> None:
    """A key, while the canvas has the focus."""
    QTest.keyClick(canvas_of(viewer), key)


def settle(qtbot: QtBot, dock: AnnotateDock) -> None:
    """Until what was painted is counted."""
    dock.annotating.live.watcher.flush()
    qtbot.waitUntil(lambda: dock.annotating.counts.is_settled, timeout=LONG_MS)


def veiled(viewer: Any) -> Any:
    return viewer.layers[VEIL].data[0] == 1


def test_the_first_click_makes_a_layer_to_paint_in(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    assert dock.layers.images.currentText() == "em"
    assert dock.layers.labels.currentText() == "none yet"
    assert "Press New object" in dock.why.text()
    click(qtbot, dock.tools.buttons["object"])
    labels = viewer.layers[LABELS]
    assert viewer.layers.selection.active is labels
    assert (labels.mode, labels.selected_label, coding_of(labels)) == ("paint", 2, "scribbles")
    assert dock.tools.buttons["object"].isChecked()
    assert viewer.layers.index(VEIL) == viewer.layers.index(LABELS) + 1


def test_objects_and_background_are_painted_with_mouse_and_keys_and_counted(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock
) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    drag(viewer, labels, (24, 8), (28, 12))
    press(viewer, "N")
    assert labels.selected_label == 3
    drag(viewer, labels, (24, 34), (28, 38))
    press(viewer, "G")
    assert labels.selected_label == 1
    assert dock.tools.buttons["background"].isChecked()
    drag(viewer, labels, (45, 5), (45, 60))
    settle(qtbot, dock)
    assert set(np.unique(labels.data[1])) == {0, 1, 2, 3}
    assert dock.counted.text().startswith("2 objects on 1 plane · ")
    np.testing.assert_array_equal(veiled(viewer), labels.data[1] == 0)
    press(viewer, "E")
    assert labels.mode == "erase"
    drag(viewer, labels, (24, 34), (28, 38))
    labels.undo()
    settle(qtbot, dock)
    assert dock.counted.text().startswith("2 objects"), "undo works"
    np.testing.assert_array_equal(veiled(viewer), labels.data[1] == 0)


def test_pressing_new_object_twice_wastes_no_id(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    for _ in range(3):
        click(qtbot, dock.tools.buttons["object"])
    assert viewer.layers[LABELS].selected_label == 2


def test_picking_an_object_goes_on_painting_it(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    drag(viewer, labels, (24, 8), (28, 12))
    press(viewer, "N")
    click(qtbot, dock.tools.buttons["pick"])
    drag(viewer, labels, (26, 10))
    qtbot.waitUntil(lambda: labels.mode == "paint")
    assert labels.selected_label == 2


def test_the_veil_follows_the_plane_and_stays_out_of_the_way(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock
) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    drag(viewer, labels, (24, 8), (28, 12))
    settle(qtbot, dock)
    viewer.dims.set_current_step(0, 2)
    assert veiled(viewer).all()
    veil = viewer.layers[VEIL]
    np.testing.assert_allclose(veil.data_to_world((0, 3, 4)), labels.data_to_world((2, 3, 4)))
    viewer.dims.set_current_step(0, 1)
    assert not veiled(viewer).all()
    assert viewer.layers.selection.active is labels
    labels.name = "mine"
    assert "mine › veil" in viewer.layers
    click_box(dock.veil)
    assert len(viewer.layers) == 2
    click_box(dock.veil)
    assert len(viewer.layers) == 3
    assert viewer.layers.selection.active is labels


def click_box(box: QAbstractButton) -> None:
    box.click()


def test_a_rectangle_says_what_counts_and_painting_goes_on_after_it(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock
) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    dock.coding.regions.click()
    assert coding_of(labels) == "regions"
    assert "Draw a rectangle" in dock.advice.text()
    click(qtbot, dock.coding.rectangle)
    assert viewer.layers.selection.active.mode == "add_rectangle"
    drag(viewer, labels, (10, 10), (20, 20), (40, 50))
    qtbot.waitUntil(lambda: viewer.layers.selection.active is labels)
    assert labels.mode == "paint"
    assert dock.coding.said.text() == "1 rectangle"
    inside = ~veiled(viewer)
    assert 0.8 < inside.sum() / (30 * 40) < 1.3
    settle(qtbot, dock)
    assert any("rectangle" in line.sentence.text() for line in dock.problems.lines)
    press(viewer, "N")
    drag(viewer, labels, (24, 14), (28, 14))
    settle(qtbot, dock)
    assert dock.counted.text().startswith("1 object on 1 plane")
    regions = dock.annotating.live.regions
    regions.selected_data = {0}
    regions.remove_selected()
    assert veiled(viewer).all()
    assert dock.coding.said.text() == "0 rectangles"


def test_an_empty_plane_can_be_complete(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    press(viewer, "N")
    dock.coding.planes.click()
    assert dock.coding.complete.text() == "plane 1 is complete"
    dock.coding.complete.click()
    assert annotated_planes(viewer.layers[LABELS]) == [(1,)]
    assert not veiled(viewer).any()
    assert dock.coding.said.text() == "1 plane complete"
    viewer.dims.set_current_step(0, 2)
    assert not dock.coding.complete.isChecked()
    assert veiled(viewer).all()


def test_a_single_image_can_be_complete(qtbot: QtBot, viewer: Any, squares: Any) -> None:
    viewer.add_image(squares[0], name="em")
    dock = dock_in(viewer)
    press(viewer, "N")
    assert dock.coding.planes.text() == "the whole image"
    dock.coding.planes.click()
    dock.coding.complete.click()
    assert annotated_planes(viewer.layers[LABELS]) == [()]
    assert not (viewer.layers[VEIL].data == 1).any()


def predicted(viewer: Any) -> Any:
    labels = np.zeros((3, 64, 80), np.uint16)
    labels[1, 20:32, 5:17], labels[1, 20:32, 30:42] = 1, 2
    return viewer.add_labels(labels, name="em › bright › labels", scale=(40, 10, 10), translate=(5, 7, 9))


def test_a_prediction_is_corrected_in_a_copy(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    source = predicted(viewer)
    dock.layers.labels.setCurrentText(source.name)
    assert "correct a copy" in dock.question.sentence.text()
    click(qtbot, dock.question.answers[0])
    copy = viewer.layers["em › corrections"]
    assert viewer.layers.selection.active is copy
    assert not source.visible
    viewer.dims.set_current_step(0, 1)
    assert (viewer.layers[f"{copy.name} › veil"].data == 1).all()
    press(viewer, "E")
    drag(viewer, copy, (26, 36), (28, 38))
    settle(qtbot, dock)
    np.testing.assert_array_equal(read_plane(copy, (1,)).annotated, copy.data[1] != source.data[1])
    assert source.data[1].max() == 2
    hover(viewer, copy, 26, 10)
    press(viewer, "K")
    assert dock.annotating.live.checked == {1}
    assert dock.coding.said.text() == "1 object checked"
    assert not (viewer.layers[f"{copy.name} › veil"].data[0, 20:32, 5:17] == 1).any()
    press(viewer, "K")
    assert not dock.annotating.live.checked
    assert dock.coding.scribbles.isHidden()


def segmented(qtbot: QtBot, viewer: Any, model: str = "bright") -> SegmentDock:
    """The Segment dock with a result of the plane in view."""
    _, segment = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    segment.model.choose(model)
    qtbot.waitUntil(lambda: segment.is_ready, timeout=LONG_MS)
    click(qtbot, segment.button)
    qtbot.waitUntil(lambda: segment.job is None, timeout=LONG_MS)
    return segment


def test_correct_these_opens_the_annotate_dock_with_a_copy_of_the_result(
    qtbot: QtBot, viewer: Any, squares: Any, bright_model: Model
) -> None:
    add_stack(viewer, squares)
    segment = segmented(qtbot, viewer)
    click(qtbot, segment.correct_button)
    dock = viewer.window.dock_widgets["Annotate (napari-unet-seg)"]
    copy, result = viewer.layers["em › corrections"], viewer.layers["em › bright › labels"]
    assert dock.layers.labels_layer is viewer.layers.selection.active is copy
    assert (copy.mode, result.visible) == ("paint", False)
    np.testing.assert_array_equal(copy.data, result.data)
    click(qtbot, segment.correct_button)
    assert len([name for name in viewer.window.dock_widgets if name.startswith("Annotate")]) == 1
    assert "em › corrections #2" in viewer.layers
    viewer.layers.remove(copy)
    click(qtbot, dock.script_button)
    done: dict[str, Any] = {}
    with pytest.raises(InputError, match="mark objects as checked"):  # nothing was corrected
        exec(QGuiApplication.clipboard().text(), done)  # noqa: S102 - that the lines run is what is tested
    np.testing.assert_array_equal(done["labels"].data, result.data)


def test_a_class_map_is_corrected_class_by_class(
    qtbot: QtBot, viewer: Any, squares: Any, bright_model: Model
) -> None:
    names = ("dark", "bright", "odd")
    architecture = Architecture(base_channels=2, out_channels=3, depth=1, padding="same", dropout=0.0)
    new_model(architecture, task="classes", class_names=names, object_class="odd").save("tissue")
    add_stack(viewer, squares)
    segment = segmented(qtbot, viewer, "tissue")
    click(qtbot, segment.correct_button)
    dock = viewer.window.dock_widgets["Annotate (napari-unet-seg)"]
    copy = viewer.layers["em › corrections"]
    assert copy.selected_label == 1
    assert not viewer.layers["em › tissue › odd objects"].visible
    assert dock.tools.buttons["object"].text().startswith("● Next class")
    assert "next class" in dock.advice.text()
    painted = []
    for _ in range(3):
        click(qtbot, dock.tools.buttons["object"])
        painted.append(int(copy.selected_label))
    assert painted == [2, 1, 2]
    copy.paint((0, 5, 5), 2)
    settle(qtbot, dock)
    assert "object" not in dock.counted.text()
    assert not dock.problems.isVisibleTo(dock)
    press(viewer, "K")
    assert not dock.annotating.live.checked
    click(qtbot, dock.weights.shown)
    qtbot.waitUntil(lambda: any("weight" in layer.name for layer in viewer.layers), timeout=LONG_MS)


def test_before_there_is_a_result_nothing_can_be_corrected(
    qtbot: QtBot, viewer: Any, squares: Any, bright_model: Model
) -> None:
    add_stack(viewer, squares)
    _, segment = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    assert not segment.correct_button.isEnabled()


def test_the_dock_of_the_menu_is_raised_not_doubled(viewer: Any, squares: Any) -> None:
    add_stack(viewer, squares)
    dock = AnnotateDock(viewer)
    viewer.window.add_dock_widget(dock, name="Annotate (U-Net segmentation)")
    assert raised_dock(viewer, "Annotate") is dock


def test_only_background_painted_is_asked_about(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    labels.selected_label = 1
    drag(viewer, labels, (24, 8), (28, 12))
    settle(qtbot, dock)
    assert "objects start at 2" in dock.question.sentence.text()
    click(qtbot, dock.question.answers[0])
    assert set(np.unique(labels.data)) == {0, 2}
    settle(qtbot, dock)
    assert dock.question.isHidden()
    labels.undo()
    assert set(np.unique(labels.data)) == {0, 1}


def test_changing_what_counts_never_turns_background_into_an_object_unasked(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock
) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    labels.data[1, 2, 2], labels.data[1, 8, 8] = 1, 2
    labels.refresh()
    dock.coding.planes.click()
    assert "would become an object" in dock.question.sentence.text()
    click(qtbot, dock.question.answers[1])
    assert (coding_of(labels), dock.coding.scribbles.isChecked()) == ("scribbles", True)
    dock.coding.planes.click()
    click(qtbot, dock.question.answers[0])
    assert (coding_of(labels), labels.data[1, 2, 2], labels.data[1, 8, 8]) == ("planes", 0, 2)
    labels.data[1, 3, 3] = 1
    dock.coding.scribbles.click()
    assert "would become background" in dock.question.sentence.text()
    click(qtbot, dock.question.answers[0])
    assert (coding_of(labels), labels.data[1, 3, 3]) == ("scribbles", 3)


def test_problems_take_the_view_to_their_place(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    labels.data[2, 2:5, 2:40], labels.data[2, 50:53, 2:40] = 2, 3
    labels.refresh()
    dock.annotating.counts.count_all()
    settle(qtbot, dock)
    line = dock.problems.lines[0]
    assert line.problem is not None
    assert line.problem.plane == (2,)
    click(qtbot, line.button)
    assert viewer.dims.current_step[0] == 2
    np.testing.assert_allclose(
        viewer.scene.camera.center[1:], labels.data_to_world((2, *line.problem.center))[1:]
    )
    viewer.dims.set_current_step(0, 0)
    press(viewer, "R")
    assert viewer.dims.current_step[0] == 2


def test_without_an_image_the_dock_says_what_to_do(qtbot: QtBot, viewer: Any) -> None:
    dock = dock_in(viewer)
    assert "none is open yet" in dock.why.text()
    assert not dock.layers.new.isEnabled()
    assert not dock.tools.isEnabled()
    press(viewer, "N")
    assert len(viewer.layers) == 0
    viewer.add_image(np.zeros((20, 20, 3), np.uint8), rgb=True, name="slide")
    press(viewer, "N")
    assert viewer.layers["slide › annotation"].data.shape == (20, 20)


def labels_of_another_shape(viewer: Any) -> Any:
    return viewer.add_labels(np.zeros((6, 7), int), name="odd")


def lazy_labels(viewer: Any) -> Any:
    import dask.array

    return viewer.add_labels(dask.array.zeros((3, 64, 80), dtype=int), name="odd")


def pyramid(viewer: Any) -> Any:
    levels = [np.zeros((3, 64, 80), int), np.zeros((3, 32, 40), int)]
    return viewer.add_labels(levels, name="odd")


@pytest.mark.parametrize(
    ("add", "sentence"),
    [
        (labels_of_another_shape, "Labels 'odd' is 6×7 but image 'em' is 3×64×80"),
        (lazy_labels, "is a dask array"),
        (pyramid, "is a pyramid"),
    ],
)
def test_labels_that_cannot_be_painted_in_are_refused_in_a_sentence(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock, add: Callable[[Any], Any], sentence: str
) -> None:
    layer = add(viewer)
    dock.layers.labels.setCurrentText("odd")
    dock.coding.scribbles.click()
    assert sentence in dock.message.sentence.text()
    assert coding_of(layer) is None
    click(qtbot, dock.layers.new)
    drag(viewer, viewer.layers[LABELS], (24, 8), (28, 12))
    assert viewer.layers[LABELS].data.any(), "the dock works on"
    assert dock.message.isHidden()


def test_labels_that_are_floats_are_no_labels_and_the_dock_works_on(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock, squares: Any
) -> None:
    floats = viewer.add_image(squares.astype(float), name="floats")
    with pytest.raises(TypeError, match="Only integer types"):  # napari's sentence, in a notification
        viewer.add_labels(floats.data)
    with pytest.raises(InputError, match="'floats' is not a labels layer: choose one, or press New"):
        correct(viewer, floats)
    assert dock.layers.labels.findText("floats") == -1
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    with pytest.raises(TypeError, match="Only integer types"):
        labels.data = floats.data
    drag(viewer, labels, (24, 8), (28, 12))
    settle(qtbot, dock)
    assert dock.counted.text().startswith("1 object")


def test_an_image_with_nan_is_annotated_as_any_other(
    qtbot: QtBot, viewer: Any, doubtful: Any, bright_model: Model
) -> None:
    image = doubtful.astype(np.float32)
    image[:, :, 40:] = np.nan  # and there lies the least sure place
    add_stack(viewer, image)
    dock = dock_in(viewer)
    viewer.dims.set_current_step(0, 2)
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    drag(viewer, labels, (24, 50), (28, 60))
    dock.weights.shown.click()
    settle(qtbot, dock)
    assert dock.counted.text().startswith("1 object on 1 plane")
    qtbot.waitUntil(lambda: dock._map is not None and dock._map.is_settled, timeout=LONG_MS)
    assert np.isfinite(viewer.layers[f"{LABELS} › weight map"].data).all()
    press(viewer, "U")
    found(qtbot, dock)
    assert looked_at(viewer, labels)[2] < 40


def test_existing_labels_are_adopted_where_they_are(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    source = predicted(viewer)
    before = source.data.copy()
    dock.layers.labels.setCurrentText(source.name)
    dock.coding.planes.click()
    assert coding_of(source) == "planes"
    np.testing.assert_array_equal(source.data, before)
    press(viewer, "N")
    assert source.selected_label == 3


def test_a_deleted_layer_leaves_a_dock_that_works(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    press(viewer, "N")
    drag(viewer, viewer.layers[LABELS], (24, 8), (28, 12))
    viewer.layers.remove(LABELS)
    assert dock.annotating is None
    assert dock.counted.isHidden()
    assert VEIL not in viewer.layers
    assert dock.layers.labels.currentText() == "none yet"
    press(viewer, "N")
    drag(viewer, viewer.layers[LABELS], (24, 8), (28, 12))
    settle(qtbot, dock)
    assert dock.counted.text().startswith("1 object")
    viewer.layers.clear()  # without guard_removals the next drawing ends the process
    qtbot.wait(50)
    assert dock.counted.isHidden()


def test_a_renamed_layer_and_a_removed_veil_do_no_harm(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    labels.name = "my cells"
    assert dock.layers.labels.currentText() == "my cells"
    viewer.layers.remove("my cells › veil")
    drag(viewer, labels, (24, 8), (28, 12))
    settle(qtbot, dock)
    assert dock.counted.text().startswith("1 object")


def test_full_16_bits_give_a_free_id_and_then_wider_labels(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock
) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    labels.data[0].flat[:5000] = np.arange(2, 5002)
    labels.data[1, 0, 0] = 65535
    labels.refresh()
    press(viewer, "N")
    assert labels.selected_label == 5002
    every = np.zeros((260, 260), np.uint16)
    every.flat[:65536] = np.arange(65536)
    full = viewer.add_labels(every, name="full")
    viewer.add_image(np.zeros((260, 260)), name="other")
    dock.choose(full)
    dock.coding.planes.click()
    press(viewer, "N")
    assert "are used" in dock.message.sentence.text()
    assert (full.data.dtype, full.selected_label) == (np.int32, 65536)


def test_other_data_in_the_layer_are_counted_anew(qtbot: QtBot, viewer: Any, dock: AnnotateDock) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    other = np.zeros_like(labels.data)
    other[1, 3:9, 3:9] = 7
    labels.data = other
    settle(qtbot, dock)
    assert dock.counted.text().startswith("1 object on 1 plane")
    np.testing.assert_array_equal(veiled(viewer), other[1] == 0)
    press(viewer, "N")
    assert labels.selected_label == 8


def test_closing_the_dock_gives_everything_back_and_reopening_goes_on(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock
) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    drag(viewer, labels, (24, 8), (28, 12))
    painted = labels.data.copy()
    viewer.window.remove_dock_widget(dock)
    assert [layer.name for layer in viewer.layers] == ["em", LABELS]
    press(viewer, "G")
    assert labels.selected_label == 2, "the keys are given back"
    again = dock_in(viewer)
    assert again is not dock
    assert again.layers.labels.currentText() == LABELS
    settle(qtbot, again)
    assert again.counted.text().startswith("1 object on 1 plane")
    np.testing.assert_array_equal(labels.data, painted)
    press(viewer, "N")
    assert labels.selected_label == 3


def test_two_viewers_are_annotated_side_by_side(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], viewer: Any, dock: AnnotateDock, squares: Any
) -> None:
    other = make_napari_viewer(show=True)
    add_stack(other, squares)
    other_dock = dock_in(other)
    press(viewer, "N")
    press(other, "N")
    drag(viewer, viewer.layers[LABELS], (24, 8), (28, 12))
    settle(qtbot, dock)
    settle(qtbot, other_dock)
    assert dock.counted.text().startswith("1 object")
    assert other_dock.counted.text().startswith("0 objects")
    assert not other.layers[LABELS].data.any()


def test_keys_that_somebody_else_has_are_left_to_them(viewer: Any, squares: Any) -> None:
    pressed = []
    viewer.bind_key("G", lambda _viewer: pressed.append("G"))
    add_stack(viewer, squares)
    dock_in(viewer)
    press(viewer, "N")
    press(viewer, "G")
    assert pressed == ["G"]
    assert viewer.layers[LABELS].selected_label == 2


def test_an_annotation_that_is_there_is_gone_on_with(viewer: Any, squares: Any) -> None:
    image = add_stack(viewer, squares)
    new_annotation_layer(viewer, image)
    second = new_annotation_layer(viewer, image)
    dock = dock_in(viewer)
    assert dock.layers.labels_layer is second
    viewer.layers.selection.active = viewer.layers[LABELS]
    assert dock.layers.labels_layer is viewer.layers[LABELS], "the dock follows napari's layer list"


def test_each_image_has_its_own_annotation(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock, squares: Any
) -> None:
    press(viewer, "N")
    viewer.add_image(squares.copy(), name="em2")
    dock.layers.images.setCurrentText("em2")
    assert dock.layers.labels.currentText() == "none yet"
    press(viewer, "N")
    assert dock.layers.labels.currentText() == "em2 › annotation"
    dock.layers.images.setCurrentText("em")
    assert dock.layers.labels.currentText() == LABELS


def test_the_annotation_of_an_image_that_was_removed_is_not_painted_for_the_next(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock, squares: Any
) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    viewer.layers.remove("em")
    viewer.add_image(squares.copy(), name="another")
    assert dock.layers.images.currentText() == "another"
    assert dock.layers.labels.currentText() == "none yet"
    press(viewer, "N")
    assert dock.layers.labels.currentText() == "another › annotation"
    assert not labels.data.any()


def test_new_ids_of_a_large_correction_are_not_those_of_the_prediction(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_LOOKED_THROUGH_BYTES", 0)
    dock.layers.labels.setCurrentText(predicted(viewer).name)
    click(qtbot, dock.question.answers[0])
    copy = viewer.layers["em › corrections"]
    copy.selected_label = 1
    press(viewer, "N")
    assert copy.selected_label == copy.data.max() + 1


@pytest.mark.parametrize("coding", ["scribbles", "regions", "planes"])
def test_the_script_runs_and_reads_what_was_painted(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock, coding: str
) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    drag(viewer, labels, (24, 8), (28, 12))
    getattr(dock.coding, coding).click()
    if coding == "planes":
        dock.coding.complete.click()
    if coding == "regions":
        dock.annotating.draw_region()
        drag(viewer, labels, (10, 5), (20, 20), (40, 50))
    click(qtbot, dock.script_button)
    lines = QGuiApplication.clipboard().text()
    done: dict[str, Any] = {}
    exec(lines, done)  # noqa: S102 - that the lines run is what is tested
    assert done["annotation"].labels.max() >= 1
    assert done["weights"].shape == done["annotation"].labels.shape
    counted = read_plane(labels, (1,), regions=dock.annotating.live.regions).annotated
    np.testing.assert_array_equal(done["annotation"].annotated_mask[0], counted)
    viewer.layers.remove(LABELS)
    if coding != "scribbles":
        exec(lines, done)  # noqa: S102
        assert coding_of(viewer.layers[LABELS]) == coding


def test_everything_that_can_be_set_has_a_tooltip_of_one_sentence(dock: AnnotateDock) -> None:
    for widget in dock.findChildren((QPushButton, QAbstractButton)):
        if widget.objectName().startswith("qt_") or not widget.text():
            continue
        assert widget.toolTip(), widget.text()


def test_window_closed_while_annotating(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], squares: Any
) -> None:
    viewer: napari.Viewer = make_napari_viewer(show=True)
    add_stack(viewer, squares)
    dock_in(viewer)
    press(viewer, "N")
    drag(viewer, viewer.layers[LABELS], (24, 8), (28, 12))
    assert viewer.layers[LABELS].metadata[METADATA]["coding"] == "scribbles"
    qtbot.wait(200)  # napari's status bar is written a moment after the mouse, and warns when it is gone
    viewer.close()


def test_the_weight_map_follows_the_brush_and_leaves_with_its_layer(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock
) -> None:
    press(viewer, "N")
    labels = viewer.layers[LABELS]
    dock.weights.shown.click()
    assert viewer.layers.selection.active is labels, "painting goes on"
    drag(viewer, labels, (24, 8), (28, 12))
    dock.tools.buttons["background"].click()
    drag(viewer, labels, (40, 8), (44, 12))
    qtbot.waitUntil(lambda: dock._map is not None and dock._map.is_settled, timeout=10_000)
    shown = viewer.layers[f"{LABELS} › weight map"]
    assert shown.data.max() > 0, "what was painted counts"
    dock.weights.shown.click()
    assert not shown.visible
    dock.weights.shown.click()
    viewer.layers.remove(shown)
    qtbot.waitUntil(lambda: not dock.weights.shown.isChecked())


def test_fine_tune_with_this_opens_the_other_dock_with_the_layer(
    qtbot: QtBot, viewer: Any, dock: AnnotateDock
) -> None:
    press(viewer, "N")
    drag(viewer, viewer.layers[LABELS], (24, 8), (28, 12))
    dock.button.click()
    other = next(w for name, w in viewer.window.dock_widgets.items() if name.startswith("Fine-tune"))
    qtbot.waitUntil(lambda: other.is_ready, timeout=60_000)
    assert [source.name for source in other.request().sources] == [LABELS]


@pytest.fixture
def doubtful(squares: Any) -> Any:
    """The squares with a little noise; on plane 2 two places are neither bright nor dark, one less so."""
    stack = squares.astype(float) + np.random.default_rng(0).normal(0, 4, squares.shape)
    stack[2, 40:60, 55:75] += 95
    stack[2, 2:18, 2:18] += 75
    return np.clip(stack, 0, 255).astype(np.uint8)


@pytest.fixture
def doubting(qtbot: QtBot, viewer: Any, doubtful: Any, bright_model: Model) -> AnnotateDock:
    add_stack(viewer, doubtful)
    return dock_in(viewer)


def looked_at(viewer: Any, layer: Any) -> tuple[int, float, float]:
    """Plane, row and column in the middle of the canvas."""
    _, down, right = viewer.scene.camera.center
    plane, row, column = layer.world_to_data((viewer.dims.point[0], down, right))
    return round(plane), row, column


def found(qtbot: QtBot, dock: AnnotateDock) -> None:
    qtbot.waitUntil(lambda: not dock.unsure.is_searching, timeout=LONG_MS)


def test_next_unsure_goes_to_the_least_sure_place_and_then_to_the_next(
    qtbot: QtBot, viewer: Any, doubting: AnnotateDock
) -> None:
    dock = doubting
    assert dock.unsure.asks.text() == "Next unsure asks 'bright' (used last)."
    viewer.dims.set_current_step(0, 2)
    press(viewer, "U")
    assert dock.unsure.progress.isVisible()
    found(qtbot, dock)
    labels = viewer.layers[LABELS]
    plane, row, column = looked_at(viewer, labels)
    assert plane == 2
    assert (40 < row < 60, 55 < column < 75) == (True, True)
    assert "place 1 of " in dock.message.sentence.text()
    assert "'bright' is unsure" in dock.message.sentence.text()
    viewer.dims.set_current_step(0, 0)
    click(qtbot, dock.tools.buttons["unsure"])
    assert not dock.unsure.is_searching, "the list is there already"
    plane, row, column = looked_at(viewer, labels)
    assert plane == 2
    assert (row < 30, column < 40) == (True, True)
    assert "place 2 of " in dock.message.sentence.text()


def test_what_is_annotated_meanwhile_is_not_gone_to(
    qtbot: QtBot, viewer: Any, doubting: AnnotateDock
) -> None:
    viewer.dims.set_current_step(0, 2)
    press(viewer, "U")
    found(qtbot, doubting)
    labels = viewer.layers[LABELS]
    labels.data[2, :36, :44] = 1
    labels.refresh()
    settle(qtbot, doubting)
    press(viewer, "U")
    _, row, column = looked_at(viewer, labels)
    assert not (row < 30 and column < 40)


def test_another_model_is_asked_anew(
    qtbot: QtBot, viewer: Any, doubting: AnnotateDock, bright_model: Model
) -> None:
    press(viewer, "U")
    found(qtbot, doubting)
    bright_model.save("bright too")
    _, segment = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    segment.model.choose("bright too")
    qtbot.waitUntil(lambda: "'bright too' (chosen in the Segment dock)" in doubting.unsure.asks.text())
    press(viewer, "U")
    assert doubting.unsure.is_searching
    found(qtbot, doubting)
    assert "'bright too' is unsure" in doubting.message.sentence.text()
    NEWS.changed.emit("bright", viewer)
    qtbot.waitUntil(lambda: "'bright' (chosen in the Segment dock)" in doubting.unsure.asks.text())
    qtbot.waitUntil(lambda: segment.is_ready, timeout=LONG_MS)


def test_a_search_can_be_cancelled_and_ends_with_its_layer(
    qtbot: QtBot, viewer: Any, bright_model: Model
) -> None:
    add_stack(viewer, np.random.default_rng(0).integers(0, 255, (8, 700, 700), np.uint8))
    dock = dock_in(viewer)
    press(viewer, "U")
    click(qtbot, dock.unsure.progress.cancel)
    found(qtbot, dock)
    assert not dock.unsure.progress.isVisible()
    press(viewer, "U")
    viewer.layers.remove(LABELS)
    assert not dock.unsure.progress.isVisible()
    qtbot.waitUntil(lambda: "Where bright is unsure" not in thread_names(), timeout=LONG_MS)
    press(viewer, "N")
    assert LABELS in viewer.layers


def thread_names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_why_nothing_could_be_searched_is_said(
    qtbot: QtBot, viewer: Any, squares: Any, bright_model: Model
) -> None:
    add_stack(viewer, np.full((3, 64, 80), np.nan, np.float32))
    dock = dock_in(viewer)
    press(viewer, "U")
    found(qtbot, dock)
    assert "holds no finite pixel" in dock.message.sentence.text()
    (model_file,) = model_files("bright")
    model_file.write_bytes(b"no model")
    press(viewer, "U")
    found(qtbot, dock)
    assert dock.message.sentence.text().startswith("⚠")
    press(viewer, "N")
    assert viewer.layers[LABELS].mode == "paint", "the dock works on"


def model_files(name: str) -> list[Path]:
    return [info.path for info in list_models() if info.name == name and info.path is not None]


def test_without_an_image_no_place_is_searched(viewer: Any) -> None:
    dock = dock_in(viewer)
    press(viewer, "U")
    assert not dock.unsure.is_searching
    assert dock.unsure.asks.isHidden()


def test_the_dock_comes_back_as_it_was(viewer: Any, dock: AnnotateDock) -> None:
    dock.veil.click()
    dock.weights.shown.click()
    assert remembered("annotate") == {"veil": False, "weight_map": True}
    viewer.window.remove_dock_widget(dock)
    again = dock_in(viewer)
    assert (again.veil.isChecked(), again.weights.shown.isChecked()) == (False, True)
    press(viewer, "N")
    assert VEIL not in viewer.layers
    assert f"{LABELS} › weight map" in viewer.layers


def test_the_weight_map_is_measured_in_the_pixels_of_the_model_that_learns(
    qtbot: QtBot, viewer: Any, squares: Any, bright_model: Model
) -> None:
    add_stack(viewer, squares, scale=(40, 5, 5))  # the model was trained at 10 nm
    dock = dock_in(viewer)
    press(viewer, "N")
    dock.weights.shown.click()
    assert dock._map is not None
    assert dock._map._on_layer_grid().sigma_px == 2 * dock.weights.settings.sigma_px
    assert dock.weights.grid.text() == "px of 'bright': 0.5 of them per pixel of the image"
    assert "(50 nm)" in dock.weights.lengths[dock.weights.sigma].text()
    _, fine_tune = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Fine-tune")
    fine_tune.model.choose("nuclei-fluorescence")  # knows no pixel size
    qtbot.waitUntil(lambda: dock.weights.grid.isHidden())
    assert dock._map._on_layer_grid().sigma_px == dock.weights.settings.sigma_px
    qtbot.waitUntil(lambda: not fine_tune._warming.is_running, timeout=LONG_MS)


def test_a_zoom_that_was_set_for_an_image_without_a_pixel_size_scales_the_weight_map(
    qtbot: QtBot, viewer: Any, squares: Any, bright_model: Model
) -> None:
    add_stack(viewer, squares, scale=(1, 1, 1), units=("pixel",) * 3)
    dock = dock_in(viewer)
    press(viewer, "N")
    dock.weights.shown.click()
    assert dock._map is not None
    assert dock._map._on_layer_grid().sigma_px == dock.weights.settings.sigma_px
    _, segment = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    segment.scale.zoom.setValue(0.25)
    qtbot.waitUntil(lambda: "0.25 of them" in dock.weights.grid.text())
    assert dock._map._on_layer_grid().sigma_px == 4 * dock.weights.settings.sigma_px
    qtbot.waitUntil(lambda: segment.is_ready, timeout=LONG_MS)
    _, fine_tune = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Fine-tune")
    fine_tune.annotations.scale.zoom.setValue(0.5)
    qtbot.waitUntil(lambda: "0.5 of them" in dock.weights.grid.text())
    qtbot.waitUntil(lambda: not fine_tune._warming.is_running, timeout=LONG_MS)
