"""The Open dock, by real clicks: what it says before it opens, what it opens, what it refuses and how."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent, QGuiApplication

from napari_unet_seg import open_layers
from napari_unet_seg._widgets import open_dock
from napari_unet_seg._widgets.open_dock import OpenDock
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.image_files import LazyArray, look_at

STACK = np.arange(4 * 20 * 30, dtype=np.uint16).reshape(4, 20, 30)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def dock(viewer: ViewerModel, qtbot: QtBot) -> OpenDock:
    widget = OpenDock(viewer)
    qtbot.addWidget(widget)
    return widget


@pytest.fixture
def look(dock: OpenDock, qtbot: QtBot) -> Callable[[Path], None]:
    def look_and_wait(path: Path) -> None:
        dock.look(path)
        qtbot.waitUntil(lambda: not dock.is_busy)

    return look_and_wait


@pytest.fixture
def press_open(dock: OpenDock, qtbot: QtBot) -> Callable[[], None]:
    def press() -> None:
        assert dock.open_button.isEnabled(), dock.message.sentence.text()
        qtbot.mouseClick(dock.open_button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: not dock.is_busy)

    return press


def write(path: Path, array: np.ndarray = STACK, **options: Any) -> Path:
    tifffile.imwrite(path, array, photometric=options.pop("photometric", "minisblack"), **options)
    return path


def em(folder: Path) -> Path:
    """A stack of 40 × 8 × 4 nm."""
    space = {"axes": "ZYX", "unit": "nm", "spacing": 40}
    return write(folder / "em.tif", imagej=True, resolution=(1 / 4, 1 / 8), metadata=space)


def test_nothing_chosen_leaves_the_button_disabled_and_says_why(dock: OpenDock) -> None:
    assert not dock.open_button.isEnabled()
    assert dock.message.sentence.text().startswith("Choose a file or a folder")


def test_typing_a_path_shows_what_it_holds_before_anything_is_opened(
    dock: OpenDock, viewer: ViewerModel, qtbot: QtBot, tmp_path: Path
) -> None:
    qtbot.keyClicks(dock.path.line, str(em(tmp_path)))
    qtbot.waitUntil(dock.open_button.isEnabled)
    assert dock.found.text() == "ImageJ TIFF, 4 planes, 20 × 30 px, uint16."
    assert dock.axes.axes == "ZYX"
    assert [line.text() for line in dock.voxel.lines.values()] == ["40", "8", "4"]
    assert dock.voxel.source.text() == "from the file: please check"
    assert dock.amount.text() == "Z 4 × Y 20 × X 30, 4.8 kB, read when shown"
    assert not viewer.layers


def test_open_adds_a_lazy_layer_with_its_place_in_the_world(
    viewer: ViewerModel, look: Callable[[Path], None], press_open: Callable[[], None], tmp_path: Path
) -> None:
    look(em(tmp_path))
    press_open()
    (layer,) = viewer.layers
    assert layer.name == "em"
    assert isinstance(layer.data, LazyArray)
    assert layer.scale == pytest.approx([40, 8, 4])
    assert [str(unit) for unit in layer.units] == ["nanometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")


def test_a_folder_of_sections_opens_as_one_stack(
    dock: OpenDock,
    viewer: ViewerModel,
    look: Callable[[Path], None],
    press_open: Callable[[], None],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "sections"
    folder.mkdir()
    for number in (1, 2, 10):
        write(folder / f"s{number}.tif", STACK[0] + number)
    look(folder)
    assert dock.found.text() == "folder of sections, 3 planes, 20 × 30 px, uint16."
    press_open()
    assert viewer.layers["sections"].data.shape == (3, 20, 30)
    assert viewer.layers["sections"].data[2, 0, 0] == 10


def test_chosen_planes_and_a_crop_stay_at_their_place_in_the_whole(
    dock: OpenDock,
    viewer: ViewerModel,
    qtbot: QtBot,
    look: Callable[[Path], None],
    press_open: Callable[[], None],
    tmp_path: Path,
) -> None:
    look(em(tmp_path))
    dock.part.some_button.click()
    dock.part.planes.first.setValue(1)
    dock.part.planes.last.setValue(2)
    dock.part.crop_box.click()
    dock.part.rows.first.setValue(5)
    dock.part.columns.last.setValue(9)
    assert dock.amount.text().startswith("Z 2 × Y 15 × X 10,")
    press_open()
    layer = viewer.layers["em"]
    assert np.array_equal(np.asarray(layer.data), STACK[1:3, 5:, :10])
    assert layer.translate == pytest.approx([40, 40, 0])


def test_a_typed_voxel_size_is_used_and_an_empty_one_is_unknown(
    dock: OpenDock,
    viewer: ViewerModel,
    look: Callable[[Path], None],
    press_open: Callable[[], None],
    tmp_path: Path,
) -> None:
    look(em(tmp_path))
    dock.voxel.lines["Z"].clear()
    dock.voxel.lines["X"].setText("8,5")
    assert dock.voxel.source.text() == "as typed"
    press_open()
    layer = viewer.layers["em"]
    assert layer.scale == pytest.approx([1, 8, 8.5])
    assert [str(unit) for unit in layer.units] == ["pixel", "nanometer", "nanometer"]


@pytest.mark.parametrize("text", ["ten", "0", "-4", "inf"])
def test_an_unusable_voxel_size_disables_the_button_and_says_what_to_type(
    text: str, dock: OpenDock, look: Callable[[Path], None], tmp_path: Path
) -> None:
    look(em(tmp_path))
    dock.voxel.lines["Y"].setText(text)
    assert not dock.open_button.isEnabled()
    assert "leave it empty" in dock.message.sentence.text()


def test_a_part_that_runs_backwards_is_refused(
    dock: OpenDock, look: Callable[[Path], None], tmp_path: Path
) -> None:
    look(em(tmp_path))
    dock.part.some_button.click()
    dock.part.planes.first.setValue(3)
    dock.part.planes.last.setValue(1)
    assert not dock.open_button.isEnabled()
    assert "choose an end after the start" in dock.message.sentence.text()


def test_axes_that_the_file_does_not_name_are_asked_for(
    dock: OpenDock,
    viewer: ViewerModel,
    look: Callable[[Path], None],
    press_open: Callable[[], None],
    tmp_path: Path,
) -> None:
    look(write(tmp_path / "many.tif", np.zeros((2, 3, 20, 30), np.uint8)))
    assert not dock.open_button.isEnabled()
    assert dock.message.sentence.text().startswith("The axes of lengths 2, 3 have no name")
    dock.axes.boxes[0].setCurrentText("C")
    dock.axes.boxes[1].setCurrentText("Z")
    press_open()
    assert [layer.name for layer in viewer.layers] == ["many · channel 0", "many · channel 1"]
    assert viewer.layers[0].data.shape == (3, 20, 30)


def test_one_letter_for_two_axes_is_refused(
    dock: OpenDock, look: Callable[[Path], None], tmp_path: Path
) -> None:
    look(em(tmp_path))
    dock.axes.boxes[0].setCurrentText("Y")
    assert not dock.open_button.isEnabled()
    assert dock.message.sentence.text() == "Two axes are called Y: give each axis its own letter."


def test_of_a_colour_image_the_grey_can_be_opened_alone(
    dock: OpenDock,
    viewer: ViewerModel,
    look: Callable[[Path], None],
    press_open: Callable[[], None],
    tmp_path: Path,
) -> None:
    look(write(tmp_path / "tissue.tif", np.full((20, 30, 3), 100, np.uint8), photometric="rgb"))
    dock.channel.setCurrentText("grey")
    press_open()
    assert viewer.layers["tissue"].data.shape == (20, 30)
    assert not viewer.layers["tissue"].rgb


def test_what_is_no_image_is_told_in_the_dock_and_the_next_file_opens(
    dock: OpenDock,
    viewer: ViewerModel,
    look: Callable[[Path], None],
    press_open: Callable[[], None],
    tmp_path: Path,
) -> None:
    (tmp_path / "notes.tif").write_text("not an image")
    look(tmp_path / "notes.tif")
    assert not dock.open_button.isEnabled()
    assert "is not an image" in dock.message.sentence.text()
    look(em(tmp_path))
    press_open()
    assert "em" in viewer.layers


def test_a_file_that_vanished_meanwhile_is_told_and_the_dock_works_again(
    dock: OpenDock,
    viewer: ViewerModel,
    look: Callable[[Path], None],
    press_open: Callable[[], None],
    tmp_path: Path,
) -> None:
    path = em(tmp_path)
    look(path)
    path.unlink()
    press_open()
    assert "does not exist" in dock.message.sentence.text()
    em(tmp_path)
    press_open()
    assert "em" in viewer.layers


def test_a_slow_disk_does_not_hold_up_the_window_and_late_answers_are_dropped(
    dock: OpenDock, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk_answers = threading.Event()

    def slow(path: Path) -> Any:
        if path.name == "slow.tif":
            disk_answers.wait(20)
        return look_at(path)

    monkeypatch.setattr(open_dock, "look_at", slow)
    dock.look(write(tmp_path / "slow.tif", np.zeros((7, 9), np.uint8)))
    assert dock.message.sentence.text() == "Looking at slow.tif …"
    late = dock._job
    dock.look(em(tmp_path))
    qtbot.waitUntil(dock.open_button.isEnabled)
    disk_answers.set()
    qtbot.waitUntil(lambda: late is not None and not late.is_running)
    assert dock.found.text().startswith("ImageJ TIFF, 4 planes")


def test_a_dropped_file_is_looked_at(dock: OpenDock, qtbot: QtBot, tmp_path: Path) -> None:
    dropped = QMimeData()
    dropped.setUrls([QUrl.fromLocalFile(str(em(tmp_path)))])
    copy, left, no_key = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    dock.dropEvent(QDropEvent(QPointF(5, 5), copy, dropped, left, no_key))
    qtbot.waitUntil(dock.open_button.isEnabled)
    assert dock.found.text().startswith("ImageJ TIFF")


def test_from_the_menu_it_opens_into_the_real_window_and_closing_while_it_looks_leaves_no_error(
    make_napari_viewer: Callable[..., Any], qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    viewer = make_napari_viewer()
    dock = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Open")[1]
    dock.look(em(tmp_path))
    qtbot.waitUntil(dock.open_button.isEnabled)
    qtbot.mouseClick(dock.open_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "em" in viewer.layers)
    disk_answers = threading.Event()

    def slow(path: Path) -> Any:
        disk_answers.wait(20)
        return look_at(path)

    monkeypatch.setattr(open_dock, "look_at", slow)
    dock.look(write(tmp_path / "slow.tif"))
    job = dock._job
    viewer.close()
    disk_answers.set()
    qtbot.waitUntil(lambda: not job.is_running)


def test_the_script_opens_the_same_again(
    dock: OpenDock,
    viewer: ViewerModel,
    look: Callable[[Path], None],
    press_open: Callable[[], None],
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    look(em(tmp_path))
    dock.voxel.lines["Z"].setText("50")
    dock.part.some_button.setChecked(True)
    dock.part.planes.first.setValue(1)
    dock.part.planes.last.setValue(2)
    press_open()
    qtbot.mouseClick(dock.script_button, Qt.MouseButton.LeftButton)
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    done: dict[str, Any] = {}
    exec(QGuiApplication.clipboard().text(), done)  # noqa: S102 - that the lines run is what is tested
    by_hand, (by_script,) = viewer.layers[0], done["layers"]
    np.testing.assert_array_equal(by_script.data, by_hand.data)
    np.testing.assert_array_equal(by_script.scale, by_hand.scale)
    np.testing.assert_array_equal(by_script.translate, by_hand.translate)


def test_there_is_no_script_of_nothing(dock: OpenDock) -> None:
    assert not dock.script_button.isEnabled()


def test_without_a_viewer_a_script_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no viewer"):
        open_layers(em(tmp_path))
