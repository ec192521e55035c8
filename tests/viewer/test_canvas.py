"""Removing layers: what they held on the GPU is freed in the canvas's own context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtGui import QOpenGLContext

from napari_unet_seg._canvas import drawn_later, guard_removals


@pytest.fixture
def viewer(make_napari_viewer: Any, qtbot: QtBot) -> Any:
    viewer = make_napari_viewer(show=True)
    viewer.add_image(np.random.default_rng(0).random((3, 64, 80)), name="image")
    qtbot.wait(50)
    return viewer


def test_a_removed_layer_is_freed_in_the_context_of_the_canvas(viewer: Any) -> None:
    canvas, context_then = viewer.window._qt_viewer.canvas.native, []
    labels = viewer.add_labels(np.zeros((3, 64, 80), np.uint16))
    guard_removals(viewer)
    canvas.doneCurrent()
    viewer.layers.events.removed.connect(
        lambda: context_then.append(QOpenGLContext.currentContext() == canvas.context())
    )
    viewer.layers.remove(labels)
    assert context_then == [True]


def test_labels_in_paint_mode_come_and_go_while_the_window_draws(viewer: Any, qtbot: QtBot) -> None:
    guard_removals(viewer)
    for number in range(3):  # without the guard, drawing the second one ends the process under llvmpipe
        labels = viewer.add_labels(np.full((3, 64, 80), number, np.uint16))
        labels.mode = "paint"
        qtbot.wait(60)
        viewer.layers.remove(labels)
        qtbot.wait(60)
    assert [layer.name for layer in viewer.layers] == ["image"]


def test_guarding_twice_listens_once(viewer: Any) -> None:
    guard_removals(viewer)
    n_listeners = len(viewer.layers.events.removing.callbacks)
    guard_removals(viewer)
    assert len(viewer.layers.events.removing.callbacks) == n_listeners


def test_a_window_is_drawn_again_after_what_must_not_be_interrupted(viewer: Any, qtbot: QtBot) -> None:
    window = viewer.window._qt_window

    def fail() -> None:
        with drawn_later(viewer):
            with drawn_later(viewer):
                pass
            assert not window.updatesEnabled()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    qtbot.waitUntil(window.updatesEnabled, timeout=2000)


def test_a_viewer_without_a_window_needs_no_turn(viewer: Any) -> None:
    with drawn_later(ViewerModel()):
        assert viewer.window._qt_window.updatesEnabled()
