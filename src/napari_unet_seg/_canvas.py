"""What napari's window needs so that layers come and go without a wait and without a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QWidget


def window_of(viewer: Any) -> QWidget | None:
    """The window of a viewer, None when it has none; its end is the end of the viewer's jobs."""
    window = getattr(viewer, "window", None)
    return getattr(window, "_qt_window", None)


@contextlib.contextmanager
def drawn_later(viewer: Any) -> Iterator[None]:
    """Do something long, such as adding a layer, and let the window be drawn in the event loop's next turn.

    Otherwise Qt draws before it answers a click or a key that came meanwhile, and the two waits are one.
    """
    window = window_of(viewer)
    if window is None or not window.updatesEnabled():
        yield
        return
    window.setUpdatesEnabled(False)
    try:
        yield
    finally:
        QTimer.singleShot(1, partial(_let_draw, window))  # after 0 ms would be before anything else


def _let_draw(window: QWidget) -> None:
    with contextlib.suppress(RuntimeError):  # it was closed
        window.setUpdatesEnabled(True)


def guard_removals(viewer: Any) -> None:
    """From now on, free what a removed layer held on the GPU in the canvas's own OpenGL context; idempotent.

    napari 0.9 frees it at once, in whichever context is current: mostly that of the window around the canvas.
    The driver then still holds what is gone, and the next drawing of the canvas can end the process: with
    software drawing when a labels layer in paint mode is removed and another one added. napari's issues 6472
    and 8471 are likely the same on Windows.
    """
    viewer.layers.events.removing.connect(_make_current)


def _make_current(event: Any) -> None:
    """Make the canvas current that shows the layers of this event."""
    for window in QApplication.topLevelWidgets():
        qt_viewer = getattr(window, "_qt_viewer", None)
        if qt_viewer is None or qt_viewer.viewer.layers is not event.source:
            continue
        # Another version of napari may not have these, and a closing window no canvas any more.
        with contextlib.suppress(AttributeError, RuntimeError):
            qt_viewer.canvas.native.makeCurrent()
