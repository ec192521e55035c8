"""The Fine-tune dock, by clicks: what it fills in, what it does, what it says when something is wrong."""

from __future__ import annotations

import errno
import gc
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QGuiApplication, QMovie
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QStatusBar,
    QWidget,
)
from tests.viewer.conftest import add_stack
from tests.viewer.test_fine_tuning import fresh_model, paint  # noqa: F401 - a fixture

from napari_unet_seg._annotate.new_layers import new_annotation_layer
from napari_unet_seg._widgets import job_row
from napari_unet_seg._widgets.annotate_weights import WeightRow
from napari_unet_seg._widgets.fine_tune_curves import MOST_POINTS, Series
from napari_unet_seg._widgets.fine_tune_dock import FineTuneDock
from napari_unet_seg._widgets.fine_tune_progress import bytes_in_words
from napari_unet_seg._widgets.preferences import remember
from napari_unet_seg.core import training
from napari_unet_seg.core._trainer import Trainer
from napari_unet_seg.core.models import Model, load_model
from napari_unet_seg.core.train_settings import TrainSettings
from napari_unet_seg.core.weight_map import WeightSettings

LONG_MS = 120_000


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    remember("segment", model="", where="plane", device="auto")
    remember("fine_tune", model="", preset="quick", preview=True, device="auto")
    return make_napari_viewer()


@pytest.fixture
def painted(viewer: Any, squares: Any) -> Any:
    return paint(viewer, add_stack(viewer, squares))


def dock_in(viewer: Any, qtbot: QtBot) -> FineTuneDock:
    """The dock as the Plugins menu opens it, set to train a small network for a short while."""
    _, dock = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Fine-tune")
    dock.model.choose("fresh")
    qtbot.waitUntil(lambda: dock.is_ready, timeout=LONG_MS)
    dock.more.steps.setValue(40)
    dock.more.time_limit.setValue(0)
    dock.more.rate.setText("0.01")
    dock.more.patch.setValue(32)
    dock.more.batch.setValue(2)
    dock.more.device.choose("cpu")
    qtbot.waitUntil(lambda: dock.is_ready, timeout=LONG_MS)
    return dock


@pytest.fixture
def dock(viewer: Any, qtbot: QtBot, fresh_model: Model, painted: Any) -> FineTuneDock:  # noqa: F811
    return dock_in(viewer, qtbot)


def click(qtbot: QtBot, button: QWidget) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def tick(qtbot: QtBot, box: QWidget) -> None:
    """Only the box itself and its text can be clicked."""
    qtbot.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))


def thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def fine_tune(qtbot: QtBot, dock: FineTuneDock) -> None:
    click(qtbot, dock.button)
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)


def start_endless(qtbot: QtBot, dock: FineTuneDock) -> None:
    """Start, and wait until it learns."""
    dock.more.steps.setValue(100_000)
    click(qtbot, dock.button)
    qtbot.waitUntil(lambda: len(dock.curves.loss.x) > 2, timeout=LONG_MS)


def stop(qtbot: QtBot, dock: FineTuneDock) -> None:
    click(qtbot, dock.progress.cancel)
    qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)


def test_opening_the_dock_fills_in_what_there_is(dock: FineTuneDock) -> None:
    assert dock.model.info is not None
    assert dock.model.info.name == "fresh"
    assert dock.annotations.layers.count() == 1
    assert "em › annotation" in dock.annotations.layers.item(0).text()
    assert len(dock.annotations.chosen) == 1
    assert dock.button.isEnabled()
    assert dock.why.text().startswith("Runs on ")
    assert dock.curves.isHidden()


def test_one_click_learns_shows_curves_and_says_whether_it_is_better(
    qtbot: QtBot, viewer: Any, dock: FineTuneDock
) -> None:
    fine_tune(qtbot, dock)
    assert not dock.curves.isHidden()
    assert dock.curves.loss.x[-1] == 40
    assert dock.curves.scores.x[0] == 0
    assert dock.curves.before == dock.curves.scores.y[0]
    assert "before" in dock.result.verdict.text()
    assert "after" in dock.result.verdict.text()
    assert dock.result.name.text() == "fresh, em"
    assert dock.button.isEnabled()
    qtbot.waitUntil(lambda: "em › after" in viewer.layers, timeout=LONG_MS)
    click(qtbot, dock.result.before)
    assert viewer.layers["em › before"].visible
    assert not viewer.layers["em › after"].visible


def test_keep_puts_the_model_into_every_dock_and_chooses_it_in_segment(
    qtbot: QtBot, viewer: Any, dock: FineTuneDock
) -> None:
    _, segment = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    qtbot.waitUntil(lambda: segment.is_ready, timeout=LONG_MS)
    fine_tune(qtbot, dock)
    click(qtbot, dock.result.keep)
    qtbot.waitUntil(lambda: "Kept as 'fresh, em'" in dock.result.why.text(), timeout=LONG_MS)
    assert segment.model.info.name == "fresh, em"
    assert dock.model.info is not None
    assert dock.model.info.name == "fresh", "the next training starts where this one did"
    assert dock.model.models.findText("fresh, em (yours)") >= 0
    assert not dock.result.keep.isEnabled()
    click(qtbot, dock.result.back)
    qtbot.waitUntil(lambda: "Back to 'fresh'" in dock.result.verdict.text(), timeout=LONG_MS)
    assert segment.model.info.name == "fresh"
    assert "em › after" not in viewer.layers
    qtbot.waitUntil(lambda: segment.is_ready, timeout=LONG_MS)


def test_a_name_that_is_taken_or_impossible_cannot_be_kept_and_says_why(
    qtbot: QtBot, dock: FineTuneDock
) -> None:
    fine_tune(qtbot, dock)
    for name, why in (("fresh", "You have a model 'fresh' already"), ("a/b", "cannot be a model's name")):
        dock.result.name.setText(name)
        assert not dock.result.keep.isEnabled()
        assert why in dock.result.why.text()
    dock.result.name.setText("em-boundaries")
    assert "came with the package" in dock.result.why.text()
    assert dock.result.replace.text() == "Replace 'fresh'"
    click(qtbot, dock.result.replace)
    qtbot.waitUntil(lambda: "Kept as 'fresh'" in dock.result.why.text(), timeout=LONG_MS)
    assert load_model("fresh").history
    click(qtbot, dock.result.back)
    qtbot.waitUntil(lambda: "Back to" in dock.result.verdict.text(), timeout=LONG_MS)
    assert not load_model("fresh").history


def test_a_full_disk_is_said_and_the_model_can_still_be_kept(
    qtbot: QtBot, dock: FineTuneDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    fine_tune(qtbot, dock)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        click(qtbot, dock.result.keep)
        qtbot.waitUntil(lambda: "No space left" in dock.message.sentence.text(), timeout=LONG_MS)
    assert dock.result.keep.isEnabled()
    click(qtbot, dock.result.keep)
    qtbot.waitUntil(lambda: "Kept as" in dock.result.why.text(), timeout=LONG_MS)


def test_pause_resume_and_stop(qtbot: QtBot, dock: FineTuneDock) -> None:
    start_endless(qtbot, dock)
    assert not dock.button.isEnabled()
    assert dock.progress.cancel.text() == "Stop, keep best"
    click(qtbot, dock.progress.pause)
    assert dock.progress.text.text().startswith("Paused · step")
    assert dock.progress.pause.text() == "Resume"
    click(qtbot, dock.progress.pause)
    assert dock.progress.pause.text() == "Pause"
    seen = len(dock.curves.loss.x)
    qtbot.waitUntil(lambda: len(dock.curves.loss.x) > seen, timeout=LONG_MS)
    stop(qtbot, dock)
    assert not dock.result.isHidden()
    assert dock.button.isEnabled()


def test_the_row_says_step_time_and_memory(qtbot: QtBot, dock: FineTuneDock) -> None:
    start_endless(qtbot, dock)
    qtbot.waitUntil(lambda: "left" in dock.progress.text.text(), timeout=LONG_MS)
    parts = dock.progress.text.text().split(" · ")
    assert parts[0].startswith("step ")
    assert parts[0].endswith(" of 100000")
    assert parts[1].endswith(" left")
    assert parts[2].endswith((" MB", " GB"))
    stop(qtbot, dock)
    assert [bytes_in_words(n) for n in (640_000_000, 1_100_000_000)] == ["640 MB", "1.1 GB"]


def test_nothing_turns_in_the_window_while_it_trains(
    qtbot: QtBot, dock: FineTuneDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_row, "_ACTIVITY_AFTER_S", 0.0)
    start_endless(qtbot, dock)
    bars = dock.window().findChildren(QStatusBar)
    wheels = [label.movie() for bar in bars for label in bar.findChildren(QLabel) if label.movie()]
    assert wheels, "napari shows that something is under way"
    assert all(wheel.state() == QMovie.MovieState.Paused for wheel in wheels), "each frame draws the window"
    stop(qtbot, dock)


def test_the_preview_can_be_switched_off_and_on(qtbot: QtBot, viewer: Any, dock: FineTuneDock) -> None:
    tick(qtbot, dock.preview)
    start_endless(qtbot, dock)
    assert "em › preview" not in viewer.layers
    tick(qtbot, dock.preview)
    qtbot.waitUntil(lambda: "em › preview" in viewer.layers, timeout=LONG_MS)
    tick(qtbot, dock.preview)
    assert not viewer.layers["em › preview"].visible
    stop(qtbot, dock)


def test_without_an_annotation_the_button_says_what_to_do(
    qtbot: QtBot,
    viewer: Any,
    squares: Any,
    fresh_model: Model,  # noqa: F811
) -> None:
    dock = dock_in(viewer, qtbot)
    assert not dock.button.isEnabled()
    assert "make a layer in the Annotate dock" in dock.why.text()
    em = add_stack(viewer, squares)
    layer = new_annotation_layer(viewer, em)
    assert not dock.button.isEnabled()
    assert "Nothing is painted in 'em › annotation' yet" in dock.why.text()
    layer.paint((1, 26, 11), 2)
    qtbot.waitUntil(lambda: dock.button.isEnabled(), timeout=LONG_MS)
    dock.annotations.layers.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert "Tick at least one layer" in dock.why.text()


def test_only_background_is_a_sentence_and_the_dock_works_again(
    qtbot: QtBot, viewer: Any, dock: FineTuneDock, painted: Any
) -> None:
    objects = painted.data > 1
    painted.data[objects] = 1
    fine_tune(qtbot, dock)
    assert "No object is annotated" in dock.message.sentence.text()
    painted.data[objects] = 2
    fine_tune(qtbot, dock)
    assert not dock.result.isHidden()


def test_a_second_image_can_be_left_out(qtbot: QtBot, viewer: Any, dock: FineTuneDock, squares: Any) -> None:
    other = viewer.add_image(squares[2], name="other", units=("nm", "nm"), scale=(10, 10))
    labels = new_annotation_layer(viewer, other)
    assert len(dock.annotations.chosen) == 2
    dock.annotations.layers.item(1).setCheckState(Qt.CheckState.Unchecked)
    assert len(dock.annotations.chosen) == 1
    dock.learn_from(labels)
    assert dock.annotations.chosen == [labels]


def test_a_pixel_size_that_is_not_known_is_asked_for(
    qtbot: QtBot, viewer: Any, dock: FineTuneDock, squares: Any
) -> None:
    scale = dock.annotations.scale
    assert scale.isHidden()
    plain = viewer.add_image(squares[0], name="plain")
    dock.learn_from(new_annotation_layer(viewer, plain))
    assert scale.size.isVisibleTo(dock)
    scale.size.setValue(5)
    assert dock.request().pixel_size_nm == (5, 5)
    scale.zoom.setValue(0.5)
    assert (dock.request().pixel_size_nm, dock.request().settings.zoom) == (None, 0.5)


def test_images_without_a_pixel_size_are_trained_at_the_zoom_at_which_they_are_segmented(
    qtbot: QtBot, viewer: Any, dock: FineTuneDock, squares: Any
) -> None:
    plain = viewer.add_image(squares, name="plain")
    labels = paint(viewer, plain)
    dock.learn_from(labels)
    _, segment = viewer.window.add_plugin_dock_widget("napari-unet-seg", "Segment")
    qtbot.waitUntil(lambda: segment.is_ready, timeout=LONG_MS)
    segment.image.layers.setCurrentText("plain")
    segment.scale.zoom.setValue(0.5)
    dock.learn_from(labels)
    assert dock.annotations.scale.zoom.value() == 0.5
    dock.annotations.scale.zoom.setValue(0.8)
    dock.learn_from(labels)
    assert dock.annotations.scale.zoom.value() == 0.8, "what the person chose stays"
    assert "zoom=0.8" in dock.script()
    fine_tune(qtbot, dock)
    assert dock.fine_tuning is not None
    assert dock.fine_tuning.tuned is not None
    assert dock.fine_tuning.tuned.after.info.usual_zoom == 0.8
    qtbot.waitUntil(lambda: "plain › after" in viewer.layers, timeout=LONG_MS)


def test_an_rgb_layer_offers_grey(qtbot: QtBot, viewer: Any, dock: FineTuneDock, squares: Any) -> None:
    colour = viewer.add_image(np.stack([squares[0]] * 3, axis=-1), rgb=True, name="rgb")
    dock.learn_from(new_annotation_layer(viewer, colour))
    assert dock.annotations.channel.isVisibleTo(dock)
    assert dock.annotations.channel.currentText() == "grey"
    assert dock.request().channel == "grey"


def test_presets_fill_in_what_is_folded_away(qtbot: QtBot, dock: FineTuneDock) -> None:
    click(qtbot, dock.more.toggle)
    assert dock.more.steps.isVisibleTo(dock)
    click(qtbot, dock.preset.paper)
    assert dock.more.steps.value() == 20000
    assert dock.settings().optimizer == "sgd"
    dock.more.batch.setValue(3)
    dock.more.weights.setCurrentText("none")
    wishes = dock.settings()
    assert wishes.batch_size == 3
    assert wishes.weights.w0 == 0


def test_a_weight_map_that_a_person_has_set_is_what_is_trained_with(
    qtbot: QtBot, dock: FineTuneDock, viewer: Any
) -> None:
    labels = viewer.layers["em › annotation"]
    mine = WeightSettings.paper(w0=20)
    dock.learn_from(labels, mine)
    assert dock.settings().weights == mine
    click(qtbot, dock.more.toggle)
    click(qtbot, dock.preset.thorough)
    assert dock.settings().weights == mine
    dock.more.weights.setCurrentText("as in the preset")
    assert dock.settings().weights == WeightSettings.border_only()
    dock.learn_from(labels, WeightSettings.border_only())
    assert dock.settings().weights == WeightSettings.border_only()
    assert dock.more.weights.findText("as the weight map shows") == -1


def test_the_weight_map_shows_at_first_what_training_uses_at_first(qtbot: QtBot) -> None:
    row = WeightRow()
    qtbot.addWidget(row)
    assert row.settings == TrainSettings.quick().weights


def test_a_learning_rate_may_have_a_comma_and_half_a_number_is_said(qtbot: QtBot, dock: FineTuneDock) -> None:
    dock.more.rate.setText("0,02")
    assert dock.settings().learning_rate == 0.02
    dock.more.rate.setText("1e-")
    click(qtbot, dock.button)
    assert "learning rate '1e-' is no number" in dock.message.sentence.text()


def test_what_became_worse_is_said_and_not_offered(
    qtbot: QtBot, dock: FineTuneDock, bright_model: Model
) -> None:
    dock.model.reload()
    dock.model.choose("bright")
    dock.more.steps.setValue(10)
    dock.more.rate.setText("0.5")
    fine_tune(qtbot, dock)
    assert dock.result.verdict.text().startswith("It became worse, so the old model stays.")
    assert dock.result.choices.isHidden()


def test_the_script_does_the_same_again(
    qtbot: QtBot, viewer: Any, dock: FineTuneDock, model_folder: Path
) -> None:
    click(qtbot, dock.script_button)
    script = QGuiApplication.clipboard().text()
    fine_tune(qtbot, dock)
    assert dock.fine_tuning is not None
    assert dock.fine_tuning.tuned is not None
    expected = dock.fine_tuning.tuned.after.network.state_dict()
    exec(script, {})  # noqa: S102 - that it runs is the promise
    found = load_model("fresh, em").network.state_dict()
    for key, weights in expected.items():
        np.testing.assert_array_equal(found[key], weights)


def test_the_dock_comes_back_as_it_was(qtbot: QtBot, viewer: Any, dock: FineTuneDock) -> None:
    click(qtbot, dock.preset.thorough)
    tick(qtbot, dock.preview)
    dock.more.steps.setValue(2)
    fine_tune(qtbot, dock)
    again = FineTuneDock(viewer)
    qtbot.addWidget(again)
    assert again.preset.chosen == "thorough"
    assert not again.preview.isChecked()
    qtbot.waitUntil(lambda: again.is_ready, timeout=LONG_MS)


def test_taking_the_dock_out_stops_its_run_and_leaves_no_thread(
    qtbot: QtBot, viewer: Any, dock: FineTuneDock
) -> None:
    start_endless(qtbot, dock)
    job = dock.job
    assert job is not None
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: not {"Fine-tuning fresh", "Getting ready"} & thread_names(), timeout=LONG_MS)
    qtbot.waitUntil(lambda: not job.is_running, timeout=LONG_MS)  # which is told to this thread afterwards
    assert "em › preview" not in viewer.layers


def test_closing_the_window_while_it_trains_leaves_no_thread_and_no_error(
    qtbot: QtBot,
    viewer: Any,
    painted: Any,
    fresh_model: Model,  # noqa: F811
    no_thread_left: Callable[[], bool],
    capfd: Any,
) -> None:
    dock = dock_in(viewer, qtbot)
    start_endless(qtbot, dock)
    viewer.close()
    qtbot.waitUntil(no_thread_left, timeout=LONG_MS)
    assert "Traceback" not in capfd.readouterr().err


def test_a_disk_that_is_full_while_it_trains_costs_nothing_but_the_recovery(
    qtbot: QtBot, dock: FineTuneDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    fine_tune(qtbot, dock)
    assert "after" in dock.result.verdict.text()
    assert dock.result.keep.isEnabled()


def test_when_the_gpu_is_gone_the_dock_says_so_and_offers_the_best_model(
    qtbot: QtBot, dock: FineTuneDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Trainer.learn_one_batch

    def fail_later(trainer: Trainer) -> Any:
        if trainer.best.step > 0:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return learn(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "learn_one_batch", fail_later)
        patched.setattr(training, "is_lost", lambda error, _: "CUDA" in str(error))
        start_endless(qtbot, dock)
        qtbot.waitUntil(lambda: dock.job is None, timeout=LONG_MS)
    assert "stopped working at step" in dock.message.sentence.text()
    assert dock.fine_tuning is not None
    assert dock.fine_tuning.is_better
    assert not dock.result.isHidden()
    click(qtbot, dock.result.keep)
    qtbot.waitUntil(lambda: "Kept as" in dock.result.why.text(), timeout=LONG_MS)
    assert dock.button.isEnabled(), "after an error everything works again"


def test_renaming_and_deleting_the_labels_by_hand_while_it_trains_is_said_and_it_goes_on(
    qtbot: QtBot, viewer: Any, dock: FineTuneDock, painted: Any
) -> None:
    start_endless(qtbot, dock)
    layer_list = viewer.window._qt_viewer.layers
    layer_list.model().setData(layer_list.model().index(0, 0), "mine", Qt.ItemDataRole.EditRole)
    assert "mine" in dock.annotations.layers.item(0).text()
    viewer.layers.selection = {viewer.layers["mine"]}
    qtbot.keyClick(layer_list, Qt.Key.Key_Delete)
    qtbot.waitUntil(lambda: "mine" not in viewer.layers, timeout=LONG_MS)
    qtbot.waitUntil(lambda: "'mine' was removed" in dock.message.sentence.text(), timeout=LONG_MS)
    seen = len(dock.curves.loss.x)
    qtbot.waitUntil(lambda: len(dock.curves.loss.x) > seen, timeout=LONG_MS)
    stop(qtbot, dock)
    assert dock.fine_tuning is not None
    assert dock.fine_tuning.tuned is not None
    assert not dock.button.isEnabled(), "there is nothing to learn from any more"


def test_two_windows_train_at_once_and_each_keeps_its_own(
    qtbot: QtBot,
    make_napari_viewer: Callable[..., Any],
    dock: FineTuneDock,
    squares: Any,
) -> None:
    other = make_napari_viewer()
    paint(other, add_stack(other, squares))
    other_dock = dock_in(other, qtbot)
    start_endless(qtbot, dock)
    fine_tune(qtbot, other_dock)
    assert dock.job is not None
    other_dock.result.name.setText("of the other")
    click(qtbot, other_dock.result.keep)
    qtbot.waitUntil(lambda: "Kept as" in other_dock.result.why.text(), timeout=LONG_MS)
    assert dock.model.info is not None
    assert dock.model.info.name == "fresh", "the choice of this window is its own"
    stop(qtbot, dock)


def test_a_second_training_lets_go_of_the_first(qtbot: QtBot, dock: FineTuneDock) -> None:
    fine_tune(qtbot, dock)
    first = weakref.ref(dock.fine_tuning)
    fine_tune(qtbot, dock)
    gc.collect()
    assert first() is None


def test_a_device_that_was_chosen_leaves_the_settings_as_they_were(qtbot: QtBot, dock: FineTuneDock) -> None:
    dock.more.steps.setValue(77)
    dock.more.device.choose("auto")
    qtbot.waitUntil(lambda: dock.is_ready, timeout=LONG_MS)
    assert dock.settings().steps == 77


def test_the_plots_follow_the_theme(qtbot: QtBot, viewer: Any, dock: FineTuneDock) -> None:
    dark = dock.curves._colours
    viewer.theme = "light"
    assert dock.curves._colours != dark


def test_long_curves_stay_short() -> None:
    series = Series()
    for step in range(10_000):
        series.add(step, step)
    assert len(series.x) < MOST_POINTS
    np.testing.assert_allclose(series.x, series.y)
    assert series.x == sorted(series.x)
    assert series.x[-1] > 9000


def test_every_control_has_one_sentence_that_explains_it(dock: FineTuneDock) -> None:
    kinds = (QPushButton, QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit)
    controls = [
        w for kind in kinds for w in dock.findChildren(kind) if w.objectName() != "qt_spinbox_lineedit"
    ]
    own = [w for w in controls if not isinstance(w.parent(), (QAbstractSpinBox, QComboBox))]
    for control in own:
        explained = control if control.toolTip() else control.parent()
        assert explained.toolTip().endswith("."), control
