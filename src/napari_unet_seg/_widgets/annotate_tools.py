"""The big buttons of the Annotate dock, and the keys that do the same while the dock is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QPushButton, QWidget

_HEIGHT_PX = 32


@dataclass(frozen=True)
class Tool:
    """A button.

    Attributes
    ----------
    key
        That does the same. Where napari has one for it, that one; else one that it has no use for.
    """

    name: str
    text: str
    key: str
    tooltip: str
    is_napari_key: bool = False


TOOLS = (
    Tool("object", "● New object", "N", "Take the brush with an id that no object has yet."),
    Tool("background", "○ Background", "G", "Take the brush with the id of background."),
    Tool("erase", "⌫ Erase", "E", "Take the eraser.", is_napari_key=True),
    Tool("pick", "⊕ Pick", "L", "Click an object to go on painting it.", is_napari_key=True),
    Tool(
        "unfinished", "➔ Unfinished", "R", "Go to the next rectangle or place where something is to be done."
    ),
    Tool("unsure", "⤳ Next unsure", "U", "Go to the next place where the model is least sure."),
)
CHECK_KEY, MAP_KEY = "K", "W"


class ToolRow(QWidget):
    """Buttons, two in a row, the first of an odd number alone; the one that is in use is pressed."""

    wanted = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._shown: list[str] = []
        self.buttons: dict[str, QPushButton] = {}
        for tool in TOOLS:
            button = QPushButton(f"{tool.text}   {tool.key}")
            button.setToolTip(f"{tool.tooltip} (key {tool.key})")
            button.setMinimumHeight(_HEIGHT_PX)
            button.setCheckable(tool.name in ("object", "background", "erase", "pick"))
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the keys go on working on the canvas
            button.clicked.connect(lambda _checked=False, name=tool.name: self.wanted.emit(name))
            button.setParent(self)
            self.buttons[tool.name] = button
        self.show_coding(None)

    def show_in_use(self, name: str | None) -> None:
        """Press the button of the tool that is in use."""
        for other, button in self.buttons.items():
            if button.isCheckable():
                button.setChecked(other == name)

    def show_coding(self, coding: str | None, *, has_classes: bool = False) -> None:
        """Only among scribbles background is painted; elsewhere it is what is erased."""
        self.buttons["object"].setText("● Next class   N" if has_classes else "● New object   N")
        hidden = {None: "unfinished", "scribbles": ""}.get(coding, "background")
        self._lay_out([name for name in self.buttons if name != hidden])
        erase = "⌫ Erase   E" if coding in (None, "scribbles") else "⌫ Background   E"
        self.buttons["erase"].setText(erase)

    def _lay_out(self, names: list[str]) -> None:
        if names == self._shown:
            return
        self._shown, n_alone = names, len(names) % 2
        for number, name in enumerate(names):
            row, column = divmod(number + n_alone if number else 0, 2)
            self._grid.addWidget(self.buttons[name], row, column, 1, 2 if n_alone and not number else 1)
        for name, button in self.buttons.items():
            button.setVisible(name in names)


class Keys:
    """Keys of one viewer, bound while a dock lives; one that is taken already is left to its owner."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._bound: list[str] = []

    def bind(self, key: str, action: Callable[[], object]) -> None:
        """Let a key do something."""

        def act(_viewer: Any) -> None:
            action()

        try:
            self._viewer.bind_key(key, act)
        except ValueError:  # napari's way to say that the key is taken
            return
        self._bound.append(key)

    def release(self) -> None:
        """Give the keys back."""
        for key in self._bound:
            self._viewer.bind_key(key, None)
        self._bound.clear()
