"""One sentence for the person in a dock: a note, or an error with details to unfold and copy."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QFontDatabase, QGuiApplication
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

_DETAILS_HEIGHT_PX = 140


class Message(QWidget):
    """Invisible until there is something to say."""

    def __init__(self) -> None:
        super().__init__()
        self.sentence = wrapped_label()
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.toggle = _button("Show details", "Show or hide what exactly went wrong, for a bug report.")
        self.toggle.setCheckable(True)
        self.copy = _button("Copy", "Copy the sentence and the details to the clipboard.")
        self.details = QPlainTextEdit()
        self.details.setReadOnly(True)
        self.details.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.details.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.details.setFixedHeight(_DETAILS_HEIGHT_PX)
        self.details.setToolTip("What the program was doing when it failed.")
        self.toggle.toggled.connect(self._show_details)
        self.copy.clicked.connect(self._copy)
        self._lay_out()
        self.clear()

    def show_note(self, sentence: str) -> None:
        """Say something that is no error."""
        self._say(sentence, "")

    def show_error(self, sentence: str, details: str = "") -> None:
        """Say what went wrong."""
        self._say(f"⚠ {sentence}", details)

    def clear(self) -> None:
        """Say nothing."""
        self._say("", "")

    def _say(self, sentence: str, details: str) -> None:
        self.sentence.setText(sentence)
        self.details.setPlainText(details)
        self.toggle.setChecked(False)
        self.toggle.setVisible(bool(details))
        self.copy.setVisible(bool(details))
        self._show_details(is_shown=False)
        self.setVisible(bool(sentence))

    def _show_details(self, is_shown: bool) -> None:
        self.details.setVisible(is_shown)
        self.toggle.setText("Hide details" if is_shown else "Show details")

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(f"{self.sentence.text()}\n\n{self.details.toPlainText()}")

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.toggle)
        buttons.addWidget(self.copy)
        buttons.addStretch()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.sentence)
        layout.addLayout(buttons)
        layout.addWidget(self.details)


def wrapped_label(text: str = "") -> QLabel:
    """A label that breaks its lines instead of making the dock wider."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setMinimumWidth(1)
    return label


def _button(text: str, tooltip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tooltip)
    return button
