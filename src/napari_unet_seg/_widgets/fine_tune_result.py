"""Better? Scores before and after, one or the other on the canvas, and what becomes of the new model."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet_seg._widgets.message import wrapped_label
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo, list_models, saved_path


class ResultPanel(QWidget):
    """Invisible until a training has ended.

    Attributes
    ----------
    side_wanted
        Qt signal: "before" or "after" is to be shown.
    keep_wanted
        Qt signal: name of the model, and whether it replaces one.
    revert_wanted
        Qt signal.
    """

    side_wanted = Signal(str)
    keep_wanted = Signal(str, bool)
    revert_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        heading = QLabel("Better?")
        heading.setStyleSheet("font-weight: bold; padding-top: 4px;")
        self.verdict = wrapped_label()
        self.before = _side_button("before", "Show what the old model makes of the current view.")
        self.after = _side_button("after", "Show what the new model makes of the current view.")
        self.name = QLineEdit()
        self.name.setToolTip("What the new model is going to be called in every list of models.")
        self.keep = QPushButton("Keep as new model")
        self.keep.setToolTip("Save the new model beside the old one.")
        self.replace = QPushButton("Replace")
        self.replace.setToolTip("Save the new model in place of one of yours; Go back brings that one back.")
        self.back = QPushButton("Go back")
        self.back.setToolTip("Go on with the old model and forget the new one.")
        self.why = wrapped_label()
        self._base: ModelInfo | None = None
        self._lay_out(heading)
        self._connect()
        self.setVisible(False)

    def show_result(self, verdict: str, base: ModelInfo, name: str, *, is_better: bool) -> None:
        """Say how it went; what can be kept and compared is offered when it is better."""
        self._base = base
        self.verdict.setText(verdict)
        self.name.setText(name)
        self.after.setChecked(True)
        self.choices.setVisible(is_better)
        self.setVisible(True)
        self._show_state()

    def show_kept(self, name: str) -> None:
        """Say that the model is in the lists now."""
        self.why.setText(f"Kept as '{name}': it is in every list of models, and chosen in Segment.")
        self.keep.setEnabled(False)
        self.replace.setVisible(False)

    def show_gone_back(self, name: str) -> None:
        """Say that the old model is used again."""
        self.choices.setVisible(False)
        self.verdict.setText(f"Back to '{name}'.")

    def _show_state(self) -> None:
        """What the buttons would do with this name."""
        name, problem = self.name.text().strip(), ""
        try:
            saved_path(name)
        except InputError as error:
            problem = str(error)
        sources = {info.name: info.source for info in list_models()}
        is_mine = sources.get(name) == "saved"
        if is_mine:
            problem = f"You have a model '{name}' already: choose another name, or replace it."
        elif name in sources:
            problem = f"'{name}' came with the package and cannot be replaced: choose another name."
        self.why.setText(problem)
        self.keep.setEnabled(not problem)
        base_is_mine = self._base is not None and self._base.source == "saved"
        self._replaced = name if is_mine else self._base.name if base_is_mine and self._base else ""
        self.replace.setText(f"Replace '{self._replaced}'")
        self.replace.setVisible(bool(self._replaced))

    def _connect(self) -> None:
        self.before.clicked.connect(lambda: self.side_wanted.emit("before"))
        self.after.clicked.connect(lambda: self.side_wanted.emit("after"))
        self.name.textChanged.connect(self._show_state)
        self.keep.clicked.connect(lambda: self.keep_wanted.emit(self.name.text().strip(), False))
        self.replace.clicked.connect(lambda: self.keep_wanted.emit(self._replaced, True))
        self.back.clicked.connect(self.revert_wanted)

    def _lay_out(self, heading: QLabel) -> None:
        self.choices = QWidget()
        sides = QButtonGroup(self)
        toggle = QHBoxLayout()
        toggle.setSpacing(0)
        for button in (self.before, self.after):
            sides.addButton(button)
            toggle.addWidget(button)
        toggle.addStretch(1)
        form = QFormLayout(self.choices)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("On the canvas", toggle)
        form.addRow("Name", self.name)
        buttons = QHBoxLayout()
        for button in (self.keep, self.replace, self.back):
            buttons.addWidget(button)
        form.addRow(buttons)
        form.addRow(self.why)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(heading)
        column.addWidget(self.verdict)
        column.addWidget(self.choices)


def _side_button(text: str, tooltip: str) -> QPushButton:
    button = QPushButton(text)
    button.setCheckable(True)
    button.setToolTip(tooltip)
    return button
