"""A person at the window, for scripts and tests: strokes and keys on the canvas, clicks, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QApplication, QWidget

PLUGIN = "napari-unet-seg"
_MOST_PX_PER_MOVE = 24.0

Place = tuple[float, float]
"""Row and column in a layer's pixels."""


class Hand:
    """Acts on a viewer by the events that Qt sends for a mouse and a keyboard.

    Parameters
    ----------
    viewer
        Whose canvas is meant; its window may be hidden.
    patience_s
        Far longer than anything should take.
    """

    def __init__(self, viewer: Any, patience_s: float = 900.0) -> None:
        self._viewer, self._patience_s = viewer, patience_s

    @property
    def canvas(self) -> QWidget:
        """What napari draws on."""
        canvas: QWidget = self._viewer.window._qt_viewer.canvas.native
        return canvas

    def dock(self, name: str) -> Any:
        """A dock of ours as the Plugins menu opens it, brought to the front of its tabs."""
        is_first = not any(title.endswith(f"({PLUGIN})") for title in self._viewer.window.dock_widgets)
        around, dock = self._viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=not is_first)
        around.show()
        around.raise_()
        return dock

    def stroke(self, layer: Any, places: Sequence[Place]) -> None:
        """Drag with the left button through places of the plane in view."""
        points = self._with_points_between([self._point(layer, place) for place in places])
        self._mouse(QEvent.Type.MouseMove, points[0])
        self._mouse(QEvent.Type.MouseButtonPress, points[0], is_down=True)
        for point in points[1:]:
            self._mouse(QEvent.Type.MouseMove, point, is_down=True)
        self._mouse(QEvent.Type.MouseButtonRelease, points[-1])

    def key(self, key: str, *, control: bool = False) -> None:
        """Press a key on the canvas."""
        held = Qt.KeyboardModifier.ControlModifier if control else Qt.KeyboardModifier.NoModifier
        QTest.keyClick(self.canvas, key, held)
        QApplication.processEvents()

    def click(self, widget: QAbstractButton) -> None:
        """Click a button that can be clicked."""
        assert widget.isEnabled(), f"'{widget.text()}' cannot be clicked now"
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton)
        QApplication.processEvents()

    def wait_until(self, is_done: Callable[[], bool], what: str) -> None:
        """Let the window go on until something has come about.

        Raises
        ------
        TimeoutError
            It has not.
        """
        latest = time.monotonic() + self._patience_s
        while not is_done():
            if time.monotonic() > latest:
                raise TimeoutError(f"waited {self._patience_s:.0f} s in vain: {what}")
            QTest.qWait(20)

    def _mouse(self, kind: QEvent.Type, point: QPoint, *, is_down: bool = False) -> None:
        """Send what Qt makes of a mouse; `QTest.mouseMove` would move with no button pressed."""
        button = Qt.MouseButton.NoButton if kind == QEvent.Type.MouseMove else Qt.MouseButton.LeftButton
        pressed = Qt.MouseButton.LeftButton if is_down else Qt.MouseButton.NoButton
        here, there = QPointF(point), QPointF(self.canvas.mapToGlobal(point))
        event = QMouseEvent(kind, here, there, button, pressed, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(self.canvas, event)
        QApplication.processEvents()

    def _point(self, layer: Any, place: Place) -> QPoint:
        """Where a place of the plane in view lies on the canvas."""
        camera = self._viewer.scene.camera
        plane = [round(at) for at in layer.world_to_data(self._viewer.dims.point)[:-2]]
        down, right = layer.data_to_world((*plane, *place))[-2:]
        return QPoint(
            round((right - camera.center[2]) * camera.zoom + self.canvas.width() / 2),
            round((down - camera.center[1]) * camera.zoom + self.canvas.height() / 2),
        )

    def _with_points_between(self, points: list[QPoint]) -> list[QPoint]:
        """As often as a mouse reports where it is."""
        dense = points[:1]
        for start, end in pairwise(points):
            way = end - start
            n_moves = int(np.ceil(np.hypot(way.x(), way.y()) / _MOST_PX_PER_MOVE))
            dense += [start + way * ((move + 1) / n_moves) for move in range(n_moves)]
        return dense


def strokes_through(
    mask: Any, *, most: int = 1, step_px: int = 6, shortest_px: int = 12
) -> list[list[Place]]:
    """Strokes as a person would draw them through the middle of a shape, the longest first; at least one."""
    from scipy import ndimage
    from skimage.morphology import skeletonize

    middle = skeletonize(mask)
    strokes: list[list[Place]] = []
    while len(strokes) < most and middle.any():
        pieces, _ = ndimage.label(middle, np.ones((3, 3)))
        largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
        way = _longest_way(pieces == largest)
        if strokes and len(way) < shortest_px:
            break
        strokes.append([(float(row), float(column)) for row, column in [*way[::step_px], way[-1]]])
        done = np.zeros_like(middle)
        done[tuple(np.transpose(way))] = True
        middle &= ~ndimage.binary_dilation(done, iterations=2)
    return strokes


def _longest_way(line: Any) -> list[tuple[int, int]]:
    """Along a branched line, from one of its ends to the one that is furthest from it."""
    from skimage.graph import MCP

    on_line = np.where(line, 1.0, -1.0)  # what is negative cannot be passed
    start = tuple(np.argwhere(line)[0])
    for _ in range(2):
        search = MCP(on_line)
        costs, _ = search.find_costs([start])
        start = np.unravel_index(int(np.where(np.isfinite(costs), costs, -1).argmax()), line.shape)
    way: list[tuple[int, int]] = search.traceback(start)
    return way
