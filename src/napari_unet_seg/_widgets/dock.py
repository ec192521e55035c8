"""What the docks share: a column that scrolls, the big button, the script on the clipboard, the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFormLayout, QLayout, QPushButton, QVBoxLayout, QWidget

from napari_unet_seg._canvas import guard_removals
from napari_unet_seg._widgets.vertical_scroll import VerticalScroll

COPIED = "The script is on the clipboard: paste it into napari's console."
_BUTTON_PX = 36


class Dock(QWidget):
    """A dock of this plugin.

    Parameters
    ----------
    napari_viewer
        Whose layers it offers.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._viewer = napari_viewer
        guard_removals(napari_viewer)

    def event(self, event: QEvent) -> bool:
        """Stop when the dock is taken out of its window: nothing could be stopped by hand any more."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._stop()
        return bool(super().event(event))

    def _stop(self) -> None:
        """End what runs for this dock only."""

    def _fill(self, parts: Iterable[QWidget | QLayout]) -> None:
        """Put the parts below each other, in a column that scrolls where the window is too low."""
        content = QWidget()
        column = QVBoxLayout(content)
        for part in parts:
            if isinstance(part, QLayout):
                column.addLayout(part)
            else:
                column.addWidget(part)
        column.addStretch(1)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(VerticalScroll(content))


def big_button(text: str, tip: str) -> QPushButton:
    """The one that a dock is there for."""
    button = QPushButton(text)
    button.setMinimumHeight(_BUTTON_PX)
    button.setToolTip(tip)
    return button


def small_button(text: str, tip: str) -> QPushButton:
    """Any other one."""
    small = QPushButton(text)
    small.setToolTip(tip)
    return small


def script_button(what: str) -> QPushButton:
    """Copies lines of Python that do "what"."""
    return small_button("Copy as script", f"Copy lines of Python to the clipboard that {what}.")


def labelled_rows(rows: Iterable[tuple[str, QWidget]]) -> QFormLayout:
    """Rows with their names before them; a row that is high has its name at its top."""
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setLabelAlignment(Qt.AlignmentFlag.AlignTop)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for name, row in rows:
        form.addRow(name, row)
    return form


def copy_script(script: str) -> None:
    """Put it on the clipboard; `COPIED` says so."""
    QGuiApplication.clipboard().setText(script)
