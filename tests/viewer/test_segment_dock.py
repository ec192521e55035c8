"""The Segment dock, by clicks: what it fills in, what it does, what it says when something is wrong."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QPushButton, QWidget
from tests.viewer.conftest import add_stack

from napari_unet_seg._jobs import Job
from napari_unet_seg._layers import LayerImage
from napari_unet_seg._segment import segmenting
from napari_unet_seg._widgets.preferences import remember
from napari_unet_seg._widgets.segment_dock import SegmentDock
from napari_unet_seg._widgets.segment_rows import WhereRow, nearest_model
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.models import Model, load_model, new_model
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.steps import STOP
from napari_unet_seg.core.synthetic import synthetic_nuclei

LABELS = "em › bright › labels"
LONG_MS = 60_000


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    remember("segment", model="", where="plane", device="auto")
    return make_napari_viewer()


def dock_in(viewer: Any, qtbot: QtBot) -> SegmentDock:
    """The dock as the Plugins menu opens it, ready for the first click."""
    _, dock = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    dock.model.choose("bright")
    qtbot.waitUntil(lambda: dock.is_ready, timeout=LONG_MS)
    return dock


@pytest.fixture
def dock(viewer: Any, qtbot: QtBot, bright_model: Model, squares: Any) -> SegmentDock:
    add_stack(viewer, squares)
    return dock_in(viewer, qtbot)


def click(qtbot: QtBot, button: QWidget) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def segment(qtbot: QtBot, dock: SegmentDock) -> None:
    click(qtbot, dock.button)
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)


def settle(qtbot: QtBot, dock: SegmentDock) -> None:
    """Until changed settings have acted."""
    qtbot.waitUntil(lambda: dock.is_settled, timeout=LONG_MS)


def test_opening_the_dock_fills_in_what_the_layer_says(dock: SegmentDock) -> None:
    assert dock.image.layers.currentText() == "em"
    assert dock.model.info is not None
    assert dock.model.info.name == "bright"
    assert "Bright squares" in dock.model.said.text()
    assert dock.scale.pixel_size_nm == (10, 10)
    assert dock.scale.said.text() == "10 nm/px from the layer → zoom 1×"
    assert "3 planes" in dock.where.stack.text()
    assert dock.button.isEnabled()
    assert dock.why.text().startswith("Runs on ")


def shown(dock: SegmentDock) -> ObjectSettings:
    return replace(dock.objects.settings, min_size_px=None)


def of_model(settings: ObjectSettings) -> ObjectSettings:
    return settings.without_grid


def test_object_settings_are_those_of_the_model(viewer: Any, qtbot: QtBot, squares: Any) -> None:
    add_stack(viewer, squares)
    _, dock = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    assert shown(dock) == of_model(dock.model.info.objects), "of the one that is there at first"
    dock.model.choose("nuclei-fluorescence")
    assert shown(dock) == of_model(load_model("nuclei-fluorescence").objects), "of the one chosen next"
    assert shown(dock) != of_model(ObjectSettings())
    qtbot.waitUntil(lambda: dock.is_ready, timeout=LONG_MS)


def test_the_smallest_size_follows_the_zoom_until_a_person_sets_it(
    qtbot: QtBot, viewer: Any, dock: SegmentDock
) -> None:
    assert dock.objects.smallest.value() == 20
    dock.scale.zoom.setValue(0.5)
    assert dock.objects.smallest.value() == 80, "20 px of the model"
    segment(qtbot, dock)
    assert dock.refinement is not None
    assert dock.refinement.latest is not None
    assert dock.refinement.latest.prediction.object_settings.min_size_px == 80
    dock.objects.smallest.setValue(30)
    settle(qtbot, dock)
    assert dock.refinement.latest.prediction.object_settings.min_size_px == 30
    dock.scale.zoom.setValue(0.25)
    assert dock.objects.smallest.value() == 30
    dock.model.choose("nuclei-fluorescence")
    assert dock.objects.smallest.value() == 320, "of another model it is open again"


def test_the_first_click_segments_the_plane_in_view(qtbot: QtBot, viewer: Any, dock: SegmentDock) -> None:
    segment(qtbot, dock)
    assert viewer.layers[LABELS].data[1].max() == 2
    assert dock.objects.heading.text() == "Objects: 2 found"
    assert dock.progress.text.text().startswith("Done: 1 plane in")
    assert dock.button.isEnabled()


def test_the_whole_stack(qtbot: QtBot, viewer: Any, dock: SegmentDock) -> None:
    click(qtbot, dock.where.stack)
    segment(qtbot, dock)
    assert viewer.layers[LABELS].data.max() == 6
    assert dock.objects.heading.text() == "Objects: 6 found"


def test_a_drawn_rectangle(qtbot: QtBot, viewer: Any, dock: SegmentDock) -> None:
    click(qtbot, dock.where.rectangle)
    assert not dock.button.isEnabled()
    assert "Draw a rectangle" in dock.why.text()
    shapes = viewer.layers["em › rectangle"]
    assert shapes.mode == "add_rectangle"
    shapes.add_rectangles(np.array([[1, 10, 0], [1, 10, 24], [1, 40, 24], [1, 40, 0]]))
    assert dock.button.isEnabled()
    segment(qtbot, dock)
    assert dock.objects.heading.text() == "Objects: 1 found"
    assert not viewer.layers[LABELS].data[1, :, 26:].any()


def test_without_an_image_the_button_says_what_to_do(viewer: Any, qtbot: QtBot, bright_model: Model) -> None:
    dock = dock_in(viewer, qtbot)
    assert not dock.button.isEnabled()
    assert "Choose an image layer: none is open yet" in dock.why.text()
    add_stack(viewer, np.zeros((3, 20, 20), np.uint8))
    assert dock.button.isEnabled()


def test_without_a_model_the_button_says_what_to_do(
    viewer: Any, qtbot: QtBot, squares: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_unet_seg._widgets.segment_rows.list_models", list)
    add_stack(viewer, squares)
    dock = dock_in(viewer, qtbot)
    assert not dock.button.isEnabled()
    assert "There is no model yet" in dock.why.text()


def test_axes_that_nobody_named_are_asked_for(viewer: Any, qtbot: QtBot, bright_model: Model) -> None:
    viewer.add_image(np.zeros((2, 3, 20, 20), np.uint8), name="odd")
    dock = dock_in(viewer, qtbot)
    assert not dock.button.isEnabled()
    assert "such as TZYX" in dock.why.text()
    qtbot.keyClicks(dock.more.axes, "tzyx")
    dock.more.axes.editingFinished.emit()
    assert dock.button.isEnabled()


def test_an_unknown_pixel_size_is_said_and_a_zoom_can_be_set(
    viewer: Any, qtbot: QtBot, bright_model: Model, squares: Any
) -> None:
    viewer.add_image(squares[0], name="plain")
    dock = dock_in(viewer, qtbot)
    assert dock.scale.size.text() == "unknown"
    assert "Looking which zoom fits" in dock.scale.said.text()
    dock.scale.zoom.setValue(0.5)
    assert dock.scale.said.text() == "Zoom 0.5×, as you set it"
    segment(qtbot, dock)
    assert dock.refinement.latest.prediction.zoom == (0.5, 0.5)


@pytest.fixture
def plain(viewer: Any, qtbot: QtBot, squares: Any) -> SegmentDock:
    """A dock with nuclei whose pixel size is unknown, twice as large as the model knows them."""
    nuclei = synthetic_nuclei((160, 160)).image
    viewer.add_image(nuclei.repeat(2, axis=0).repeat(2, axis=1), name="plain")
    _, dock = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    dock.model.choose("nuclei-fluorescence")
    qtbot.waitUntil(lambda: dock.is_ready, timeout=LONG_MS)
    return dock


def test_an_unknown_zoom_is_found_before_the_first_click(qtbot: QtBot, plain: SegmentDock) -> None:
    assert plain.is_looking_for_zoom
    assert plain.scale.said.text().startswith("Looking which zoom fits")
    qtbot.waitUntil(lambda: not plain.is_looking_for_zoom, timeout=LONG_MS)
    found = plain.scale.chosen_zoom
    assert 0.2 < found < 1
    assert f"Zoom {found:g}×, found" in plain.scale.said.text()
    segment(qtbot, plain)
    prediction = plain.refinement.latest.prediction
    assert prediction.zoom == (found, found)
    assert prediction.found_zoom is None, "it was known by then"
    assert f"zoom={found}" in plain.script()


def test_a_click_during_the_search_finds_the_same_zoom(qtbot: QtBot, plain: SegmentDock) -> None:
    assert plain.is_looking_for_zoom
    segment(qtbot, plain)
    assert not plain.is_looking_for_zoom
    prediction = plain.refinement.latest.prediction
    assert prediction.found_zoom is not None
    assert plain.scale.chosen_zoom == prediction.zoom[0]
    assert "found" in plain.scale.said.text()


def test_a_click_before_anything_is_ready_finds_the_zoom_once(viewer: Any, qtbot: QtBot) -> None:
    viewer.add_image(synthetic_nuclei((160, 160)).image, name="plain")
    _, dock = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    dock.model.choose("nuclei-fluorescence")
    assert not dock.is_ready
    dock.segment()
    qtbot.waitUntil(lambda: dock.job is None and dock.is_ready, timeout=LONG_MS)
    assert not dock.is_looking_for_zoom
    prediction = dock.refinement.latest.prediction
    assert prediction.found_zoom is not None
    assert dock.scale.chosen_zoom == prediction.zoom[0]
    assert "found" in dock.scale.said.text()


def test_a_zoom_that_a_person_sets_is_left_alone(qtbot: QtBot, viewer: Any, plain: SegmentDock) -> None:
    plain.scale.zoom.setValue(0.8)
    assert not plain.is_looking_for_zoom
    assert plain.scale.said.text() == "Zoom 0.8×, as you set it"
    plain.scale.zoom.setValue(0)
    assert plain.is_looking_for_zoom, "it is automatic again"
    qtbot.waitUntil(lambda: not plain.is_looking_for_zoom, timeout=LONG_MS)
    plain.scale.zoom.setValue(0.8)
    assert plain.scale.chosen_zoom == 0.8
    click(qtbot, plain.scale.find)
    qtbot.waitUntil(lambda: not plain.is_looking_for_zoom, timeout=LONG_MS)
    assert plain.scale.chosen_zoom != 0.8


def test_another_image_or_model_is_searched_anew(qtbot: QtBot, viewer: Any, plain: SegmentDock) -> None:
    qtbot.waitUntil(lambda: not plain.is_looking_for_zoom, timeout=LONG_MS)
    found = plain.scale.chosen_zoom
    half = viewer.layers["plain"].data[::2, ::2]
    viewer.add_image(half, name="half")
    plain.image.layers.setCurrentText("half")
    assert plain.is_looking_for_zoom
    assert plain.scale.chosen_zoom is None
    qtbot.waitUntil(lambda: not plain.is_looking_for_zoom, timeout=LONG_MS)
    assert plain.scale.chosen_zoom == pytest.approx(2 * found, rel=0.3)


def test_where_no_zoom_fits_it_is_one_and_that_is_said(qtbot: QtBot, viewer: Any, plain: SegmentDock) -> None:
    viewer.add_image(np.zeros((120, 120), np.uint8), name="empty")
    plain.image.layers.setCurrentText("empty")
    qtbot.waitUntil(lambda: not plain.is_looking_for_zoom, timeout=LONG_MS)
    assert plain.scale.chosen_zoom == 1
    assert "nothing in the image tells which zoom fits" in plain.scale.said.text()


def test_a_search_ends_with_its_dock(qtbot: QtBot, viewer: Any, plain: SegmentDock) -> None:
    assert plain.is_looking_for_zoom
    viewer.window.remove_dock_widget(plain)
    assert not plain.is_looking_for_zoom


def test_settings_act_at_once(qtbot: QtBot, viewer: Any, dock: SegmentDock) -> None:
    segment(qtbot, dock)
    dock.objects.smallest.setValue(1000)
    settle(qtbot, dock)
    assert dock.objects.heading.text() == "Objects: 0 found"
    assert not viewer.layers[LABELS].data.any()
    dock.objects.smallest.setValue(20)
    settle(qtbot, dock)
    assert viewer.layers[LABELS].data.max() == 2
    assert len(viewer.layers) == 2


def test_settings_act_on_every_plane_that_was_segmented(qtbot: QtBot, viewer: Any, dock: SegmentDock) -> None:
    for z in (1, 2):
        viewer.dims.set_current_step(0, z)
        segment(qtbot, dock)
    assert dock.objects.heading.text() == "Objects: 5 found"
    dock.objects.smallest.setValue(1000)
    settle(qtbot, dock)
    assert not viewer.layers[LABELS].data.any()
    dock.objects.smallest.setValue(0)
    settle(qtbot, dock)
    ids = [set(np.unique(plane)) - {0} for plane in viewer.layers[LABELS].data[1:]]
    assert not ids[0] & ids[1], "an id is used once in the layer"
    assert [len(part) for part in ids] == [2, 3]


def test_sizes_can_be_given_in_square_micrometres(qtbot: QtBot, viewer: Any, dock: SegmentDock) -> None:
    segment(qtbot, dock)
    dock.objects.smallest.setValue(100)
    dock.objects.unit.setCurrentText("µm²")
    assert dock.objects.settings.min_size_um2 == pytest.approx(0.01)
    settle(qtbot, dock)
    assert viewer.layers[LABELS].data.max() == 2
    dock.objects.smallest.setValue(0.015)
    settle(qtbot, dock)
    assert not viewer.layers[LABELS].data.any(), "squares of 144 px are 0.0144 µm²"


def test_cancel_answers_and_the_dock_works_again(qtbot: QtBot, viewer: Any, dock: SegmentDock) -> None:
    dock.more.tile.setValue(8)
    click(qtbot, dock.where.stack)
    click(qtbot, dock.button)
    assert not dock.button.isEnabled()
    qtbot.waitUntil(lambda: LABELS in viewer.layers and viewer.layers[LABELS].data.any(), timeout=LONG_MS)
    click(qtbot, dock.progress.cancel)
    qtbot.waitUntil(lambda: dock.job is None, timeout=10_000)
    assert dock.progress.text.text().startswith("Stopped; what was done is kept")
    assert dock.progress.cancel.isHidden()
    dock.more.tile.setValue(0)
    segment(qtbot, dock)
    assert viewer.layers[f"{LABELS} #2"].data.max() == 6


def test_cancel_before_the_first_tile_keeps_the_result_before(
    qtbot: QtBot, viewer: Any, dock: SegmentDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(qtbot, dock)
    begun = []
    begin = Job.begin
    monkeypatch.setattr(Job, "begin", lambda job: begun.append(job))
    click(qtbot, dock.button)
    click(qtbot, dock.progress.cancel)
    begin(*begun)
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)
    assert dock.progress.text.text() == "Stopped; nothing was kept."
    assert [layer.name for layer in viewer.layers] == ["em", LABELS]
    assert viewer.layers[LABELS].visible
    assert dock.refinement is not None
    assert dock.refinement.n_objects == 2


def test_settings_that_are_stopped_half_way_say_so(
    qtbot: QtBot, viewer: Any, dock: SegmentDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(qtbot, dock)

    def endless(*_: Any) -> Any:
        while (yield) is not STOP:
            time.sleep(0.01)

    with monkeypatch.context() as patch:
        patch.setattr(segmenting, "relabel_steps", endless)
        dock.objects.certainty.setValue(0.6)
        qtbot.waitUntil(lambda: not dock.progress.cancel.isHidden(), timeout=LONG_MS)
        click(qtbot, dock.progress.cancel)
        qtbot.waitUntil(lambda: dock.is_settled, timeout=LONG_MS)
    assert dock.message.sentence.text().startswith("Stopped half way")
    dock.objects.certainty.setValue(0.55)
    qtbot.waitUntil(lambda: dock.message.isHidden() and dock.is_settled, timeout=LONG_MS)


def test_a_result_that_is_removed_while_settings_act_is_nothing_to_be_told(
    qtbot: QtBot, viewer: Any, dock: SegmentDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(qtbot, dock)
    is_removed = threading.Event()
    relabel_steps = segmenting.relabel_steps

    def later(*request: Any) -> Any:
        is_removed.wait(LONG_MS / 1000)
        return (yield from relabel_steps(*request))

    monkeypatch.setattr(segmenting, "relabel_steps", later)
    before = dock.message.sentence.text()
    dock.objects.certainty.setValue(0.6)
    qtbot.waitUntil(lambda: not dock.progress.cancel.isHidden(), timeout=LONG_MS)
    viewer.layers.remove(LABELS)
    is_removed.set()
    qtbot.waitUntil(lambda: dock.is_settled, timeout=LONG_MS)
    assert dock.message.sentence.text() == before


def test_an_error_is_a_sentence_with_details_to_copy_and_the_dock_works_again(
    qtbot: QtBot, viewer: Any, dock: SegmentDock
) -> None:
    nan = np.full((3, 64, 80), np.nan, np.float32)
    viewer.add_image(nan, name="nan", contrast_limits=(0, 1))
    dock.image.layers.setCurrentText("nan")
    segment(qtbot, dock)
    assert "no finite pixel" in dock.message.sentence.text()
    assert dock.message.details.isHidden()
    click(qtbot, dock.message.toggle)
    assert not dock.message.details.isHidden()
    click(qtbot, dock.message.copy)
    assert "Traceback" in QGuiApplication.clipboard().text()
    dock.image.layers.setCurrentText("em")
    segment(qtbot, dock)
    assert viewer.layers[LABELS].data.max() == 2
    assert not dock.message.isVisible()


def test_a_device_that_is_not_there_is_said(qtbot: QtBot, dock: SegmentDock) -> None:
    dock.more.choose_device("mps")
    qtbot.waitUntil(lambda: dock.is_ready, timeout=LONG_MS)
    assert "no Apple GPU" in dock.message.sentence.text()
    dock.more.choose_device("cpu")
    qtbot.waitUntil(lambda: dock.is_ready, timeout=LONG_MS)
    assert dock.why.text() == "Runs on cpu, as chosen."


def test_an_rgb_layer_offers_grey(qtbot: QtBot, viewer: Any, dock: SegmentDock, squares: Any) -> None:
    viewer.add_image(np.stack([squares[0]] * 3, axis=-1), name="rgb")
    dock.image.layers.setCurrentText("rgb")
    assert dock.image.channel.currentText() == "grey"
    segment(qtbot, dock)
    assert viewer.layers["rgb › bright › labels"].data.max() == 1


def test_channels_can_be_chosen(qtbot: QtBot, viewer: Any, dock: SegmentDock, squares: Any) -> None:
    viewer.add_image(squares, name="multi", axis_labels=("c", "y", "x"))
    dock.image.layers.setCurrentText("multi")
    assert [dock.image.channel.itemText(n) for n in range(3)] == ["channel 0", "channel 1", "channel 2"]
    dock.image.channel.setCurrentIndex(2)
    segment(qtbot, dock)
    assert viewer.layers["multi › bright › labels"].data.max() == 3


def test_a_class_model_shows_classes_and_offers_no_object_settings(
    qtbot: QtBot, viewer: Any, squares: Any
) -> None:
    architecture = Architecture(base_channels=2, out_channels=3, depth=1, padding="same", dropout=0.0)
    new_model(architecture, task="classes").save("tissue")
    add_stack(viewer, squares)
    dock = dock_in(viewer, qtbot)
    dock.model.choose("tissue")
    assert not dock.objects.certainty.isEnabled()
    segment(qtbot, dock)
    assert viewer.layers["em › tissue › labels"].data.max() <= 2
    assert dock.objects.heading.text().startswith("Classes")


@pytest.fixture
def tissue_dock(viewer: Any, qtbot: QtBot, bright_model: Model, squares: Any) -> SegmentDock:
    """With a model of classes, of which the bright one holds objects."""
    names = ("dark", "bright")
    bright_model.copy(task="classes", class_names=names, object_class="bright").save("tissue")
    add_stack(viewer, squares)
    dock = dock_in(viewer, qtbot)
    dock.model.choose("tissue")
    return dock


def test_the_objects_of_a_class_get_a_layer_a_count_and_the_table(
    qtbot: QtBot, viewer: Any, tissue_dock: SegmentDock, squares: Any, tmp_path: Path
) -> None:
    dock = tissue_dock
    dock.where.choose("stack")
    segment(qtbot, dock)
    classes, objects = viewer.layers["em › tissue › labels"], viewer.layers["em › tissue › bright objects"]
    np.testing.assert_array_equal(classes.data, squares > 128)
    np.testing.assert_array_equal(objects.data > 0, squares > 128)
    assert len(np.unique(objects.data)) == 1 + 6
    assert dock.objects.heading.text() == "Bright objects: 6 found"
    qtbot.waitUntil(lambda: classes.visible and objects.visible, timeout=LONG_MS)
    dock.save_table(tmp_path / "table.csv")
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)
    assert len((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()) == 1 + 6


def test_an_objects_layer_that_was_removed_meanwhile_is_not_missed(
    qtbot: QtBot, viewer: Any, tissue_dock: SegmentDock, tmp_path: Path
) -> None:
    dock = tissue_dock
    segment(qtbot, dock)
    viewer.layers.remove("em › tissue › bright objects")
    dock.save_table(tmp_path / "table.csv")
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").count("\n") == 2, "the class"


def test_the_table_is_saved(qtbot: QtBot, dock: SegmentDock, tmp_path: Path) -> None:
    assert not dock.table_button.isEnabled()
    segment(qtbot, dock)
    assert dock.table_button.isEnabled()
    dock.save_table(tmp_path / "table.csv")
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)
    assert dock.message.sentence.text() == ""
    header, *rows = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2
    assert {"label", "area_um2", "grey_mean"} <= set(header.split(","))
    dock.save_table(tmp_path / "absent" / "table.csv")
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)
    assert "absent" in dock.message.sentence.text()


def test_the_script_does_the_same_again(qtbot: QtBot, viewer: Any, dock: SegmentDock) -> None:
    dock.objects.certainty.setValue(0.6)
    click(qtbot, dock.script_button)
    script = QGuiApplication.clipboard().text()
    settle(qtbot, dock)
    segment(qtbot, dock)
    names: dict[str, Any] = {}
    exec(script, names)  # noqa: S102 - that it runs is the promise
    np.testing.assert_array_equal(names["prediction"].labels, viewer.layers[LABELS].data[1])


def test_the_dock_comes_back_as_it_was(qtbot: QtBot, viewer: Any, dock: SegmentDock) -> None:
    click(qtbot, dock.where.stack)
    segment(qtbot, dock)
    again = SegmentDock(viewer)
    qtbot.addWidget(again)
    assert again.where.place == "stack"
    again.where.choose("plane")
    qtbot.waitUntil(lambda: again.is_ready, timeout=LONG_MS)


def test_taking_the_dock_out_stops_its_run(
    qtbot: QtBot, viewer: Any, dock: SegmentDock, no_thread_left: Callable[[], bool]
) -> None:
    dock.more.tile.setValue(8)
    click(qtbot, dock.where.stack)
    click(qtbot, dock.button)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(no_thread_left, timeout=LONG_MS)


def test_every_control_has_one_sentence_that_explains_it(dock: SegmentDock) -> None:
    kinds = (QPushButton, QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit)
    controls = [
        w for kind in kinds for w in dock.findChildren(kind) if w.objectName() != "qt_spinbox_lineedit"
    ]
    own = [w for w in controls if not isinstance(w.parent(), (QAbstractSpinBox, QComboBox))]
    for control in own:
        explained = control if control.toolTip() else control.parent()
        assert explained.toolTip().endswith("."), control


@pytest.mark.parametrize(
    ("pixel_size_nm", "name"), [((8, 8), "em"), ((300, 300), "nuclei"), (None, None), ((60, 60), "tissue")]
)
def test_the_model_nearest_to_the_pixel_size_is_suggested(
    pixel_size_nm: tuple[float, float] | None, name: str | None
) -> None:
    sizes = {"em": 10.0, "nuclei": None, "tissue": 25.0}
    models = [
        ModelInfo(key, Architecture(), pixel_size_nm=size, history=({"n": 1},)) for key, size in sizes.items()
    ]
    found = nearest_model(models, pixel_size_nm)
    assert (found and found.name) == name


def test_an_image_that_is_opened_next_is_chosen_but_not_our_own_probabilities(
    qtbot: QtBot, viewer: Any, dock: SegmentDock
) -> None:
    viewer.add_image(np.zeros((20, 20), np.uint8), name="next")
    assert dock.image.layers.currentText() == "next"
    dock.image.layers.setCurrentText("em")
    dock.more.keep.setChecked(True)
    segment(qtbot, dock)
    assert "em › bright › P(object)" in viewer.layers
    assert dock.image.layers.currentText() == "em"


def test_how_long_the_stack_takes_is_said_after_a_plane(qtbot: QtBot) -> None:
    row, image = WhereRow(), LayerImage("em", np.zeros((600, 10, 10)), "ZYX", {})
    row.describe(image, None)
    assert row.stack.text() == "stack (600 planes)"
    row.describe(image, 0.014)
    assert row.stack.text() == "stack (600 planes, ~14 min)"


def test_settings_that_change_while_it_runs_act_when_it_is_done(
    qtbot: QtBot, viewer: Any, dock: SegmentDock
) -> None:
    segment(qtbot, dock)
    viewer.dims.set_current_step(0, 2)
    dock.objects.smallest.setValue(1000)  # and the click comes before it has acted
    segment(qtbot, dock)
    settle(qtbot, dock)
    assert not viewer.layers[LABELS].data.any(), "in both planes"


def test_another_model_chosen_while_it_runs_leaves_the_result_alone(
    qtbot: QtBot, viewer: Any, dock: SegmentDock
) -> None:
    dock.more.tile.setValue(8)
    click(qtbot, dock.button)
    dock.model.choose("nuclei-fluorescence")
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)
    settle(qtbot, dock)
    assert dock.refinement is not None
    assert dock.refinement.latest is not None
    split = dock.refinement.latest.prediction.object_settings.split_touching
    assert (
        split == ObjectSettings().split_touching != load_model("nuclei-fluorescence").objects.split_touching
    )


def test_a_zoom_found_for_one_model_is_not_taken_for_another(qtbot: QtBot, plain: SegmentDock) -> None:
    assert plain.is_looking_for_zoom
    click(qtbot, plain.button)
    plain.model.choose("cells-phase-contrast")
    qtbot.waitUntil(lambda: plain.job is None, timeout=LONG_MS)
    assert plain.refinement.latest.prediction.found_zoom is not None
    qtbot.waitUntil(lambda: plain.is_looking_for_zoom, timeout=LONG_MS)


def test_the_zoom_is_looked_for_in_the_channel_that_is_chosen(
    qtbot: QtBot, viewer: Any, plain: SegmentDock
) -> None:
    nuclei = viewer.layers["plain"].data
    viewer.add_image(np.stack([nuclei, nuclei[::-1]]), name="two", axis_labels=("c", "y", "x"))
    qtbot.waitUntil(lambda: not plain.is_looking_for_zoom, timeout=LONG_MS)
    assert plain.image.chosen_channel == 0
    qtbot.keyClick(plain.image.channel, Qt.Key.Key_Down)
    assert plain.image.chosen_channel == 1
    assert plain.is_looking_for_zoom


def test_a_table_of_half_old_and_half_new_objects_is_not_made(
    qtbot: QtBot, dock: SegmentDock, tmp_path: Path
) -> None:
    segment(qtbot, dock)
    dock.objects.smallest.setValue(30)
    dock.save_table(tmp_path / "table.csv")
    assert "being made anew: save the table when that is done" in dock.message.sentence.text()
    assert dock.job is None
    settle(qtbot, dock)
    assert not (tmp_path / "table.csv").exists()


def test_a_corrected_pixel_size_holds_for_sizes_and_the_table(
    qtbot: QtBot, dock: SegmentDock, tmp_path: Path
) -> None:
    dock.scale.size.setValue(5)
    segment(qtbot, dock)
    dock.objects.smallest.setValue(100)
    dock.objects.unit.setCurrentText("µm²")
    assert dock.objects.settings.min_size_um2 == pytest.approx(100 * 25e-6)
    settle(qtbot, dock)
    dock.save_table(tmp_path / "table.csv")
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert float(row["area_um2"]) == pytest.approx(int(row["area_px"]) * 25e-6)


def test_a_layer_that_was_calibrated_after_it_was_chosen_is_read_again(
    qtbot: QtBot, viewer: Any, dock: SegmentDock
) -> None:
    viewer.layers["em"].scale = (40, 20, 20)
    segment(qtbot, dock)
    assert dock.refinement is not None
    assert dock.refinement.latest is not None
    assert dock.refinement.latest.prediction.zoom == (2, 2)
    assert dock.scale.pixel_size_nm == (20, 20)


def test_after_a_broken_model_file_the_one_before_can_be_chosen_again(
    qtbot: QtBot, dock: SegmentDock, tmp_path: Path
) -> None:
    dock.objects.certainty.setValue(0.7)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nonsense")
    dock.model.add_file(str(broken))
    assert not dock.button.isEnabled()
    dock.model.models.activated.emit(dock.model.models.currentIndex())
    assert dock.button.isEnabled()
    assert dock.objects.certainty.value() == pytest.approx(0.7)
    settle(qtbot, dock)
