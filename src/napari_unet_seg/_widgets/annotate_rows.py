"""Rows of the Annotate dock, each about one thing: the layers, what counts in them, a question, problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet_seg._annotate.layer import Coding
from napari_unet_seg._layers import Index
from napari_unet_seg._widgets.message import wrapped_label
from napari_unet_seg.core.annotation_problems import Problem

_NONE_YET = "none yet"
_MOST_PROBLEMS = 4
"""More than these are not read; they follow when the first are done."""


class LayersRow(QWidget):
    """Which image, and the labels layer that a person paints in."""

    image_changed = Signal()
    labels_changed = Signal()
    new_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.images = QComboBox()
        self.images.setToolTip("The image that is annotated.")
        self.labels = QComboBox()
        self.labels.setToolTip("The labels layer that you paint in; any labels of the image's size will do.")
        self.new = QPushButton("New")
        self.new.setToolTip("Add an empty labels layer for this image.")
        labels_row = QHBoxLayout()
        labels_row.addWidget(self.labels, 1)
        labels_row.addWidget(self.new)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Image", self.images)
        form.addRow("Labels", labels_row)
        self.images.currentIndexChanged.connect(self.image_changed)
        self.labels.currentIndexChanged.connect(self.labels_changed)
        self.new.clicked.connect(self.new_wanted)

    @property
    def image_layer(self) -> Any:
        """The chosen image, or None."""
        return self.images.currentData()

    @property
    def labels_layer(self) -> Any:
        """The chosen labels, or None."""
        return self.labels.currentData()

    def offer(self, images: Sequence[Any], labels: Sequence[Any]) -> None:
        """Offer these layers; the choice is kept where it can be, without a signal."""
        _fill(self.images, [(str(layer.name), layer) for layer in images], self.image_layer)
        known = [(str(layer.name), layer) for layer in labels]
        _fill(self.labels, [(_NONE_YET, None), *known], self.labels_layer)
        self.new.setEnabled(bool(images))

    def choose_image(self, layer: Any) -> None:
        """Choose an image, without a signal."""
        _choose(self.images, layer)

    def choose_labels(self, layer: Any) -> None:
        """Choose labels, or None, without a signal."""
        _choose(self.labels, layer)


class CodingRow(QWidget):
    """What counts as annotated, and the tools with which a person says it."""

    coding_chosen = Signal(str)
    rectangle_wanted = Signal()
    complete_toggled = Signal(bool)
    check_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.scribbles = QRadioButton("what I paint")
        self.scribbles.setToolTip(
            "Only painted pixels count: some objects, and some background between them."
        )
        self.regions = QRadioButton("inside my rectangles")
        self.regions.setToolTip(
            "Everything inside rectangles counts, and what you leave there is background."
        )
        self.planes = QRadioButton("whole planes")
        self.planes.setToolTip("Planes that you mark as complete count as a whole; one without objects may.")
        self.heading = wrapped_label()
        self.said = wrapped_label()
        self.rectangle = QPushButton("Draw a rectangle")
        self.rectangle.setToolTip("Take the rectangle tool; then drag on the image.")
        self.complete = QCheckBox()
        self.complete.setToolTip("You have labelled every object there; the rest is background.")
        self.check = QPushButton("✓ Checked   K")
        self.check.setToolTip(
            "This predicted object is right: under the mouse with the key, else the chosen one."
        )
        self._lay_out()
        for coding, button in self._radios().items():
            button.clicked.connect(partial(self.coding_chosen.emit, coding))
        self.rectangle.clicked.connect(self.rectangle_wanted)
        self.complete.clicked.connect(self.complete_toggled)
        self.check.clicked.connect(self.check_wanted)

    @property
    def chosen(self) -> Coding:
        """What is chosen; what most begin with where nothing is."""
        radios = self._radios().items()
        return next((coding for coding, button in radios if button.isChecked()), "scribbles")

    def show_coding(self, coding: Coding | None, plane: Index, *, is_stack: bool) -> None:
        """Show what counts; None: not said yet."""
        for name, button in self._radios().items():
            button.setVisible(coding != "corrections")
            with QSignalBlocker(button):
                button.setAutoExclusive(False)
                button.setChecked(name == coding)
                button.setAutoExclusive(True)
        self.planes.setText("whole planes" if is_stack else "the whole image")
        is_corrected = coding == "corrections"
        self.heading.setText(
            "What counts: your corrections of the prediction" if is_corrected else "What counts"
        )
        self.rectangle.setVisible(coding in ("regions", "corrections"))
        self.complete.setVisible(coding in ("planes", "corrections"))
        self.complete.setText(_complete_in_words(plane) if is_stack and plane else "it is complete")
        self.check.setVisible(is_corrected)

    def show_state(self, said: str, *, is_complete: bool) -> None:
        """Say how much is marked."""
        self.said.setText(said)
        self.said.setVisible(bool(said))
        with QSignalBlocker(self.complete):
            self.complete.setChecked(is_complete)

    def _radios(self) -> dict[Coding, QRadioButton]:
        return {"scribbles": self.scribbles, "regions": self.regions, "planes": self.planes}

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.heading)
        radios = QHBoxLayout()
        for button in self._radios().values():
            radios.addWidget(button)
        radios.addStretch(1)
        column.addLayout(radios)
        tools = QHBoxLayout()
        for widget in (self.check, self.rectangle, self.complete):
            tools.addWidget(widget)
        tools.addStretch(1)
        column.addLayout(tools)
        column.addWidget(self.said)


def _complete_in_words(plane: Index) -> str:
    """What is marked counts along the first axis: of a time series of stacks it is all of a stack."""
    if len(plane) > 1:
        return f"everything at {plane[0]} of the first axis is complete"
    return f"plane {plane[0]} is complete"


class Question(QWidget):
    """A sentence and a button for each answer; invisible until something is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.sentence = wrapped_label()
        self.answers: list[QPushButton] = []
        self._buttons = QHBoxLayout()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.sentence)
        column.addLayout(self._buttons)
        self.hide()

    def ask(self, sentence: str, answers: dict[str, Callable[[], object]]) -> None:
        """Ask; the answer that is clicked is called, then the question goes."""
        self.withdraw()
        self.sentence.setText(sentence)
        for text, answer in answers.items():
            button = QPushButton(text)
            button.setToolTip(f"Answer: {text}.")
            button.clicked.connect(partial(self._answer, answer))
            self._buttons.addWidget(button)
            self.answers.append(button)
        self.show()

    def withdraw(self) -> None:
        """Ask nothing any more."""
        for button in self.answers:
            self._buttons.removeWidget(button)
            button.deleteLater()
        self.answers = []
        self.sentence.setText("")
        self.hide()

    def _answer(self, answer: Callable[[], object]) -> None:
        self.withdraw()
        answer()


class ProblemList(QWidget):
    """What would hurt training, a line each, with a button that takes the view there."""

    show_wanted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.lines = [_ProblemLine() for _ in range(_MOST_PROBLEMS)]
        self.rest = wrapped_label()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for line in self.lines:
            column.addWidget(line)
            line.show_wanted.connect(self.show_wanted)
        column.addWidget(self.rest)
        self.list([])

    def list(self, problems: Sequence[Problem]) -> None:
        """List these, the first ones in words."""
        for number, line in enumerate(self.lines):
            line.say(problems[number] if number < len(problems) else None)
        n_more = len(problems) - len(self.lines)
        self.rest.setText(f"and {n_more:,} more" if n_more > 0 else "")
        self.rest.setVisible(n_more > 0)
        self.setVisible(bool(problems))


class _ProblemLine(QWidget):
    """One problem."""

    show_wanted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.problem: Problem | None = None
        self.sentence = wrapped_label()
        self.button = QPushButton("show")
        self.button.setToolTip("Go to this place.")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.sentence, 1)
        row.addWidget(self.button)
        self.button.clicked.connect(self._want)

    def say(self, problem: Problem | None) -> None:
        """Say it; None: nothing."""
        self.problem = problem
        self.sentence.setText("" if problem is None else f"⚠ {problem.message}")
        self.setVisible(problem is not None)

    def _want(self) -> None:
        if self.problem is not None:
            self.show_wanted.emit(self.problem)


def _fill(box: QComboBox, entries: Sequence[tuple[str, Any]], kept: Any) -> None:
    with QSignalBlocker(box):
        box.clear()
        for name, layer in entries:
            box.addItem(name, layer)
        _choose(box, kept)


def _choose(box: QComboBox, wanted: Any) -> None:
    """Not by `findData`, which would compare layers as values."""
    with QSignalBlocker(box):
        for index in range(box.count()):
            if box.itemData(index) is wanted:
                box.setCurrentIndex(index)
                return
