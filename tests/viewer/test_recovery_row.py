"""The rows of the Annotate dock about what is kept, in the real window: by strokes and clicks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog
from tests.viewer.conftest import add_stack

from napari_unet_seg._annotate.new_layers import new_annotation_layer
from napari_unet_seg._recover.recoverable import FoundAnnotation, FoundTraining, Recovery
from napari_unet_seg._recover.recovery import Recorder, recorder_of, recoverable
from napari_unet_seg._widgets.recovery_row import ProjectRow, RecoveryRow, in_words
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.models import list_models, new_model
from napari_unet_seg.core.project import annotations_in, recovery_folder
from napari_unet_seg.core.saved_annotation import AnnotationNotes, Extent, ImageNotes, SavedAnnotation
from napari_unet_seg.core.saved_training import SavedTraining

LONG_MS = 20_000


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any], squares: Any) -> Any:
    viewer = make_napari_viewer()
    add_stack(viewer, squares)
    return viewer


def click(qtbot: QtBot, button: Any) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def stroke(layer: Any, mouse_event: Any, rows: range, column: int) -> None:
    """A drag of the brush with the mouse, on the plane in view."""
    layer.mode = "paint"

    def at(row: int) -> tuple[float, ...]:
        return tuple(layer.data_to_world((1, row, column)))

    event = mouse_event(
        type="mouse_press", position=at(rows[0]), button=1, dims_displayed=(1, 2), view_direction=None
    )
    mouse_press_callbacks(layer, event)
    event.type, event.is_dragging = "mouse_move", True
    for row in rows:
        event.position = at(row)
        mouse_move_callbacks(layer, event)
    event.type, event.is_dragging = "mouse_release", False
    mouse_release_callbacks(layer, event)


@pytest.fixture
def left_behind(qtbot: QtBot, squares: Any) -> np.ndarray:
    """The labels of an annotation that a session has left, with the best model of its training."""
    from napari.components import ViewerModel

    earlier = ViewerModel()
    layer = new_annotation_layer(earlier, add_stack(earlier, squares))
    recorder = Recorder(earlier)
    layer.paint((1, 20, 20), 2)
    recorder.begin_training("em, mine", {})
    recorder.record_best(new_model(Architecture(base_channels=2, depth=1)))
    recorder.close()
    return layer.data


def settled(row: RecoveryRow, qtbot: QtBot) -> RecoveryRow:
    qtbot.waitUntil(lambda: not row.is_busy, timeout=LONG_MS)
    return row


def the_row(viewer: Any, qtbot: QtBot) -> RecoveryRow:
    row = RecoveryRow(viewer)
    viewer.window.add_dock_widget(row, name="recovery")
    return settled(row, qtbot)


def test_without_anything_to_offer_the_row_is_not_seen(viewer: Any, qtbot: QtBot) -> None:
    row = the_row(viewer, qtbot)
    assert row.isHidden()
    assert row.offers == []


def test_what_a_session_left_is_offered_and_comes_back_by_a_click(
    viewer: Any, qtbot: QtBot, left_behind: np.ndarray
) -> None:
    row = the_row(viewer, qtbot)
    (offer,) = row.offers
    assert not row.isHidden()
    said = "Unsaved annotation of 'em' (1 object) and the best model of an interrupted training ('em, mine')"
    assert offer.text.text().startswith(said)
    with qtbot.waitSignal(row.restored, timeout=LONG_MS) as restored:
        click(qtbot, offer.restore)
    (layer,) = restored.args[0].layers
    np.testing.assert_array_equal(layer.data, left_behind)
    assert layer in viewer.layers
    settled(row, qtbot)
    assert row.offers == []
    assert "saved as 'em, mine (recovered)'" in row.message.sentence.text()
    assert "em, mine (recovered)" in {info.name for info in list_models()}


def test_only_a_second_click_discards(viewer: Any, qtbot: QtBot, left_behind: np.ndarray) -> None:
    row = the_row(viewer, qtbot)
    (offer,) = row.offers
    click(qtbot, offer.discard)
    assert offer.discard.text() == "Discard for good"
    assert len(recoverable()) == 1
    click(qtbot, offer.discard)
    settled(row, qtbot)
    assert row.offers == []
    assert row.isHidden()
    assert recoverable() == []


def test_a_click_long_ago_does_not_count(
    viewer: Any, qtbot: QtBot, left_behind: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_unet_seg._widgets.recovery_row._CERTAIN_FOR_MS", 10)
    (offer,) = the_row(viewer, qtbot).offers
    click(qtbot, offer.discard)
    qtbot.waitUntil(lambda: offer.discard.text() == "Discard", timeout=LONG_MS)


def test_what_went_elsewhere_meanwhile_is_said(viewer: Any, qtbot: QtBot, left_behind: np.ndarray) -> None:
    from napari_unet_seg._recover.recovery import discard

    row = the_row(viewer, qtbot)
    discard(row.offers[0].recovery)
    click(qtbot, row.offers[0].restore)
    settled(row, qtbot)
    assert "another window has restored or discarded it" in row.message.sentence.text()
    assert row.offers[0].isEnabled()


def test_strokes_with_the_mouse_are_saved_and_a_deleted_layer_is_offered(
    viewer: Any, qtbot: QtBot, MouseEvent: Any
) -> None:
    row, project = the_row(viewer, qtbot), ProjectRow(viewer)
    qtbot.addWidget(project)
    layer = new_annotation_layer(viewer, viewer.layers["em"])
    stroke(layer, MouseEvent, range(10, 40), 30)
    qtbot.waitUntil(lambda: project.state.text().startswith("Saved "), timeout=LONG_MS)
    expected = layer.data.copy()
    assert expected.any()
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: len(row.offers) == 1, timeout=LONG_MS)
    with qtbot.waitSignal(row.restored, timeout=LONG_MS) as restored:
        click(qtbot, row.offers[0].restore)
    np.testing.assert_array_equal(restored.args[0].layers[0].data, expected)
    settled(row, qtbot)


def test_closing_the_window_keeps_the_last_stroke(
    make_napari_viewer: Callable[..., Any], squares: Any, qtbot: QtBot, MouseEvent: Any
) -> None:
    viewer = make_napari_viewer()
    add_stack(viewer, squares)
    the_row(viewer, qtbot)
    layer = new_annotation_layer(viewer, viewer.layers["em"])
    stroke(layer, MouseEvent, range(10, 40), 30)
    expected = layer.data.copy()
    viewer.close()
    qtbot.waitUntil(lambda: len(recoverable()) == 1, timeout=LONG_MS)
    found = recoverable()[0].annotations[0]
    np.testing.assert_array_equal(found.saved.read_labels().plane((1,)), expected[1])
    assert found.notes.image.name == "em"


def test_a_project_folder_is_chosen_by_its_button(
    viewer: Any, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ProjectRow(viewer)
    qtbot.addWidget(row)
    assert row.state.text() == "Nothing to save yet."
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "project"))
    with qtbot.waitSignal(row.chosen, timeout=LONG_MS):
        click(qtbot, row.browse)
    layer = new_annotation_layer(viewer, viewer.layers["em"])
    layer.data[1, 5, 5] = 3
    recorder_of(viewer).flush()
    assert row.line.text() == str(tmp_path / "project")
    assert len(annotations_in(tmp_path / "project")) == 1


def test_a_folder_that_will_not_do_is_said_and_the_old_one_stays(
    viewer: Any, qtbot: QtBot, tmp_path: Path
) -> None:
    row = ProjectRow(viewer)
    qtbot.addWidget(row)
    (tmp_path / "thesis.docx").write_text("")
    row.line.setText(str(tmp_path))
    qtbot.keyClick(row.line, Qt.Key.Key_Return)
    assert "holds other files" in row.message.sentence.text()
    assert row.line.text() == ""


def test_what_cannot_be_saved_is_said(viewer: Any, qtbot: QtBot) -> None:
    row = ProjectRow(viewer)
    qtbot.addWidget(row)
    recovery_folder().write_text("a file where the folder would be")
    layer = new_annotation_layer(viewer, viewer.layers["em"])
    layer.paint((1, 5, 5), 3)
    qtbot.waitUntil(lambda: row.state.text().startswith("⚠ Not saved: The folder"), timeout=LONG_MS)
    recovery_folder().unlink()
    assert recorder_of(viewer).flush()
    qtbot.waitUntil(lambda: row.state.text().startswith("Saved "), timeout=LONG_MS)


def test_what_cannot_be_saved_is_said_where_the_person_is_looking(viewer: Any, qtbot: QtBot) -> None:
    row = the_row(viewer, qtbot)
    recovery_folder().write_text("a file where the folder would be")
    layer = new_annotation_layer(viewer, viewer.layers["em"])
    layer.paint((1, 5, 5), 3)
    qtbot.waitUntil(lambda: row.unsaved.text().startswith("⚠ Not saved: The folder"), timeout=LONG_MS)
    assert not row.isHidden()
    recovery_folder().unlink()
    assert recorder_of(viewer).flush()
    qtbot.waitUntil(row.isHidden, timeout=LONG_MS)


def test_a_look_never_takes_the_place_of_a_restore(
    viewer: Any, qtbot: QtBot, left_behind: np.ndarray
) -> None:
    row = the_row(viewer, qtbot)
    with qtbot.waitSignal(row.restored, timeout=LONG_MS):
        click(qtbot, row.offers[0].restore)
        row.look()
    settled(row, qtbot)


NOW = datetime(2026, 3, 4, 15, 30, tzinfo=UTC)


def annotation(image: str = "em", n_objects: int = 37, when: datetime = NOW) -> FoundAnnotation:
    notes = AnnotationNotes(f"{image} › annotation", "scribbles", (4, 4), image=ImageNotes(image))
    return FoundAnnotation(SavedAnnotation(Path("a")), notes, Extent(n_objects, 1, is_empty=False), when)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Unsaved annotation of 'em' (37 objects), from 15:30."),
        ({"annotations": [annotation(n_objects=1)]}, "Unsaved annotation of 'em' (1 object), from 15:30."),
        (
            {"annotations": [annotation(), annotation("b", 2000)]},
            "Unsaved annotations of 'em' and 'b' (2,037 objects), from 15:30.",
        ),
        ({"session": Path("other")}, "Annotation of 'em' (37 objects) in 'a', from 15:30."),
        (
            {"annotations": [annotation(when=NOW - timedelta(days=3))]},
            "Unsaved annotation of 'em' (37 objects), from 01 March, 15:30.",
        ),
        (
            {"annotations": [annotation(when=NOW - timedelta(days=400))]},
            "Unsaved annotation of 'em' (37 objects), from 2025-01-28.",
        ),
        (
            {"annotations": [], "trainings": [FoundTraining(SavedTraining(Path("t")), "cells", NOW)]},
            "The best model of an interrupted training ('cells'), from 15:30.",
        ),
    ],
)
def test_an_offer_is_a_sentence(changes: dict[str, Any], said: str) -> None:
    recovery = replace(Recovery(Path("a"), Path("a"), [annotation()]), **changes)
    assert in_words(recovery, NOW) == said


def test_the_annotate_dock_goes_on_with_what_came_back(
    viewer: Any, qtbot: QtBot, left_behind: np.ndarray, tmp_path: Path
) -> None:
    _, dock = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Annotate")
    settled(dock.recovery, qtbot)
    with qtbot.waitSignal(dock.recovery.restored, timeout=LONG_MS) as restored:
        click(qtbot, dock.recovery.offers[0].restore)
    assert dock.annotating.layer is restored.args[0].layers[0]
    dock.project.use(tmp_path / "project")
    settled(dock.recovery, qtbot)
    assert dock.recovery.recorder.flush()
    assert len(annotations_in(tmp_path / "project")) == 1
